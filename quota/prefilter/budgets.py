"""What the operator's budgets have spent, as SQL said at most two seconds ago.

Budgets are shared by all accounts, so that no account's key in Redis can hold them. A denial for another reason says
what they have spent too; where that is not known well enough, SQL is asked.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final

from policies.state import BudgetRead
from quota.clock import monotonic_seconds
from quota.forks import Forkable

FRESH_SECONDS: Final = 2.0


class BudgetMemory(Forkable):
    """What budgets have spent on their current days. Safe for several threads."""

    def __init__(self) -> None:
        """Begin knowing nothing."""
        self.epoch = 0
        """How often a transaction of this process may have charged them: who reads them notes it before."""
        self.after_fork()
        self.starts_anew_in_children()

    def after_fork(self) -> None:
        """Begin knowing nothing, with a lock that nobody holds."""
        self._guard = threading.Lock()
        self._spent: dict[tuple[str, datetime], int] = {}
        self._until = 0.0

    def spent(
        self, reads: Iterable[BudgetRead], now: datetime
    ) -> Mapping[tuple[str, datetime], int] | None:
        """Return what these budgets have spent on the days that hold `now`, in micro-dollars; None: not known."""
        days = [(read.budget, read.window.bounds(now)[0]) for read in reads]
        with self._guard:
            if monotonic_seconds() > self._until or any(day not in self._spent for day in days):
                return None
            return {day: self._spent[day] for day in days}

    def remember(self, spent: Mapping[tuple[str, datetime], int], epoch: int) -> None:
        """Take what SQL has said since `epoch`, if nothing of ours was committed meanwhile."""
        with self._guard:
            if epoch != self.epoch:
                return
            self._spent = dict(spent)
            self._until = monotonic_seconds() + FRESH_SECONDS

    def forget(self) -> None:
        """A transaction of ours may have charged them."""
        with self._guard:
            self.epoch += 1
            self._until = 0.0
