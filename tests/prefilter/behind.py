"""A world behind Redis, where news are told when a test says so; and more processes on the same books."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from policies.policy_set import PolicySet
from quota import Comptroller, Denial, Grant
from quota.prefilter.answers import Verdict
from quota.prefilter.front import Front
from quota.prefilter.prints import redis_key
from quota.testing import FakeClock
from tests.prefilter.blobs import rows_of
from tests.world import POLICIES, START, World, discrepancies


@dataclass
class Behind(World):
    """A Comptroller behind Redis."""

    @property
    def front(self) -> Front:
        assert self.comptroller._front is not None
        return self.comptroller._front

    def tell(self) -> None:
        self.front.news.flush()

    def ask(self, n: int = 1, **more: Any) -> Grant | Denial:
        """Admit, and tell Redis what came of it."""
        decision = self.admit(n, **more)
        self.tell()
        return decision

    def said(self, n: int = 1, **more: Any) -> tuple[str, str]:
        """Ask, and return the reason of a denial, or `granted`; and who decided."""
        decision = self.ask(n, **more)
        return (
            decision.reason if isinstance(decision, Denial) else "granted",
            str(decision.decided_by),
        )

    def known(self, account: str = "u") -> Any:
        """Return the rows that Redis holds of an account, or None."""
        blob = self.front.redis.command("GET", redis_key(account))
        return None if blob is None else rows_of(blob)

    def learn(self, account: str = "u") -> None:
        """Have Redis told all that SQL knows of an account."""
        self.front.news.unknown(account)
        self.tell()

    def verdicts(self) -> list[Verdict]:
        """Return a list that grows with each answer of the script."""
        heard, seen = self.front.heard, list[Verdict]()

        def watched(reply: Any) -> Any:
            said = heard(reply)
            seen.append(Verdict(said[0]))
            return said

        self.front.heard = watched  # type: ignore[method-assign]
        return seen


@contextmanager
def behind(
    url: str,
    policies: str | PolicySet = POLICIES,
    *,
    database: Any = "sqlite://",
    clock: FakeClock | None = None,
    start: datetime = START,
    server_time: bool = False,
) -> Iterator[Behind]:
    """Open a Comptroller behind Redis, and see at the end that its books are sound.

    `server_time`: by the clocks of the system and of Redis's server, instead of one that is set.
    """
    parsed = policies if isinstance(policies, PolicySet) else PolicySet.parse(policies)
    clock = clock or FakeClock(start)
    given = None if server_time else clock
    with Comptroller.open(parsed, database, url, given) as comptroller:
        world = Behind(comptroller, clock)
        world.front.news.by_hand = True
        yield world
        assert discrepancies(comptroller) == []


@contextmanager
def two_processes(
    url: str, folder: Any, policies: str | PolicySet = POLICIES
) -> Iterator[tuple[Behind, Behind]]:
    """Open two Comptrollers on one file and one Redis, as two processes would, with one clock."""
    database, clock = f"sqlite:///{folder}/books.db", FakeClock(START)
    with (
        behind(url, policies, database=database, clock=clock) as one,
        behind(url, policies, database=database, clock=clock) as other,
    ):
        other.keys = one.keys
        yield one, other
