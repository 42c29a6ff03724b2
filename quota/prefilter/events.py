"""What happens that Redis has to be told of, and what it is told then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from quota.clock import monotonic_seconds
from quota.granting import Granted
from quota.redis.wire import Argument

MICROS: Final = 1_000_000


class Moment(NamedTuple):
    """When something was so: for the script, or empty where it asks its server; and in monotonic seconds."""

    given: str
    seconds: float

    def age(self) -> int:
        """Return how long ago it was, in microseconds; by a clock that was given, that is always now."""
        return 0 if self.given else int((monotonic_seconds() - self.seconds) * MICROS)


@dataclass(frozen=True, slots=True)
class GrantNote:
    """A grant that the script has noted under `print`, as SQL has made it."""

    account: str
    print: bytes
    member: bytes
    granted: Granted


@dataclass(frozen=True, slots=True)
class Made:
    """A grant was committed: its book reached `before`, and reaches `after`."""

    moment: Moment
    note: GrantNote
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class Undid:
    """SQL did not grant what the script has noted under `print`."""

    account: str
    print: bytes


@dataclass(frozen=True, slots=True)
class Erased:
    """An account was forgotten."""

    account: str


Event = Made | Undid | Erased


@dataclass(frozen=True, slots=True)
class Written:
    """A book reaches `after`. Not `exact`: or less, if the host has undone some of it."""

    after: int
    exact: bool = True

    def and_then(self, later: Written) -> Written:
        """Return what both say."""
        return Written(max(self.after, later.after), self.exact and later.exact)


class Message(NamedTuple):
    """What the script is told of an account: that its book reaches `after`, where it says that."""

    key: bytes
    args: list[Argument]
    book_id: int = 0
    after: int = 0
    event: Event | None = None
    moment: Moment | None = None
    """Since when it has been so, where that matters: it is told how long ago that is."""

    def timed(self) -> list[Argument]:
        """Return what to send now."""
        return self.args if self.moment is None else [*self.args, self.moment.age()]
