"""One batch: calls that arrived while the last transaction was under way, made in one of their own.

Those that look first do so in a transaction that only reads: a denial ends there, and takes no lock. All others lock
their accounts, decide and write in one transaction. What could not be done so is done alone: calls whose account
somebody else has, calls that failed, and where the transaction itself failed all of them. Each is known by its key or
its grant, so none is done twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from contextvars import Context
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from billing.sql import Db
from policies.errors import ComptrollerError
from quota.group_commit.side_by_side import InStep, InTurn, Side, Spoiled
from quota.group_commit.works import Work
from quota.stores.base import Store

PATIENCE: Final = timedelta(milliseconds=100)
"""How long a batch waits for a lock, with all its calls in it. Whoever holds one longer is waited for alone."""


@dataclass(slots=True, eq=False)
class Call:
    """One call of a batch: what it does, the context variables of whoever made it, and what came of it.

    `is_done`: the transactions that it took part in are committed, and `outcome` is what it brought. Otherwise it has
    to be made alone.
    """

    work: Work
    context: Context
    is_done: bool = field(default=False, init=False)
    outcome: Any = field(default=None, init=False)

    def answer(self) -> Any:
        """Return the answer of a call that is done, or raise the error that it is."""
        return self.context.run(self.work.answered, self.outcome)


def run_batch(store: Store, calls: Sequence[Call]) -> None:
    """Make these calls, in order where they are about one account."""
    looking = [call for call in calls if call.work.looks]
    would_take = {call for call in calls if not call.work.looks}
    if looking:
        for call, side in _share(store.reading(), looking, lambda call: call.work.look):
            if side.answer is None:
                would_take.add(call)
            else:
                call.outcome, call.is_done = side.answer, True
    taking = [call for call in calls if call in would_take]
    if taking:
        taken = _share(store.writing(waits=PATIENCE), taking, lambda call: call.work.take)
        for call, side in taken:
            call.outcome, call.is_done = side.answer, True
        for _, side in taken:
            if side.db is not None:
                store.tell(side.db)


def _share(
    transaction: AbstractContextManager[Db],
    calls: Sequence[Call],
    part: Callable[[Call], Callable[[Db], Any]],
) -> list[tuple[Call, Side]]:
    """Do a part of each call in one transaction, and return those that need not be made alone, once it is committed."""
    sides = [Side(call.work.key, part(call), call.context) for call in calls]
    try:
        with transaction as db:
            shared = InTurn(db) if db.one_writer else InStep(db)
            shared.run(sides)
    except (ComptrollerError, Spoiled):
        return []
    return [(call, side) for call, side in zip(calls, sides, strict=True) if not side.alone]
