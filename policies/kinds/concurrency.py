"""Live grants at one time."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Final, Literal

from pydantic import Field

from policies.decision import Reason
from policies.fields import PositiveInt
from policies.policy import Asked, Check, Limit, Scope
from policies.state import History, OpenRead, Read, State


class ConcurrencyLimit(Limit):
    """At most `limit` grants held and not expired at one time."""

    kind: Literal["concurrency"] = "concurrency"
    limit: PositiveInt = Field(description="Live grants at one time.")
    scope: Scope = Field(
        default="account",
        description="Whether the whole account shares it, or each member has one.",
    )

    reason: ClassVar[str] = Reason.CONCURRENCY_EXCEEDED

    def reads(self, asked: Asked) -> tuple[Read, ...]:
        """The live grants."""
        return (self._read(asked),)

    def check(self, asked: Asked, state: State, now: datetime) -> Check:
        """Compare the live grants with the limit."""
        used = state.read(self._read(asked), now)
        return Check(used=used, limit=self.limit, asked=1, ok=used < self.limit)

    def next_chance(self, asked: Asked, history: History, now: datetime) -> datetime | None:
        """Return when the next live grant expires."""
        return history.next_expiry(now, self._member(asked))

    def _member(self, asked: Asked) -> str | None:
        return asked.member if self.scope == "member" else None

    def _read(self, asked: Asked) -> OpenRead:
        return _WHOLE_ACCOUNT if self.scope == "account" else OpenRead(asked.member)


_WHOLE_ACCOUNT: Final = OpenRead()
