"""Decisions where budgets are leased in blocks: a block is leased before the transaction that charges it.

Never within it: whoever holds an account must not wait for a budget that all accounts share, and a second connection
may be one that the first waits for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Final, TypeVar

from sqlalchemy import Engine
from sqlalchemy.pool import NullPool, QueuePool

from policies.errors import ComptrollerError
from quota.blocks import days_with_blocks, lease, return_blocks
from quota.budgets import Day, NoBlock
from quota.methods.base import Methods

LEASES_MAX: Final = 3
"""Other threads may take what was leased for this one. After so many leases it charges the day's own row."""

NOT_WAITING_LONG: Final = "SET LOCAL lock_timeout = 50"
"""In the host's transaction, which may itself have locked the row that the lease waits for."""

T = TypeVar("T")


class LeasedMethods(Methods):
    """What an admission does about blocks of budgets."""

    def _with_blocks(self, decide: Callable[[frozenset[Day]], T], *, joined: bool) -> T:
        """Decide, and where no block covers the charge lease one and decide again.

        `decide` is told which days of budgets to charge on their own rows: those of which nothing could be leased.
        `joined`: in the host's transaction, out of which a block is leased on a connection of ours if one is free at
        once, and its row can be had at once; otherwise the day's own row is charged, and stays locked until the host
        commits. So a host whose engine we share, with a pool of one connection, waits for nobody.
        """
        plain: frozenset[Day] = frozenset()
        leases: Counter[Day] = Counter()
        while True:
            try:
                return decide(plain)
            except NoBlock as short:
                leases[short.day] += 1
                if leases[short.day] > LEASES_MAX or not self._lease(short, joined=joined):
                    plain |= {short.day}

    def _lease(self, short: NoBlock, *, joined: bool) -> bool:
        if not joined:
            with self._db.writing() as db:
                return lease(db, short)
        if not _has_spare(self._db.engine):
            return False
        with suppress(ComptrollerError), self._db.writing() as db:
            db.driver_sql(NOT_WAITING_LONG)
            return lease(db, short)
        return False

    def _return_blocks(self, now: datetime, *, own: bool = False) -> None:
        """Return what dead blocks have left, and with `own` all that this process has leased."""
        holder = self._db.holder
        if holder is None or (own and not holder.leased):
            return
        with self._db.reading() as db:
            days = days_with_blocks(db, now, holder, own=own)
        for day in days:
            with self._db.writing() as db:
                return_blocks(db, day, now, holder, own=own)


def _has_spare(engine: Engine) -> bool:
    """Whether a connection can be had at once.

    Whoever comes last to see a spare one has none to wait for: threads that each hold a connection of the pool and
    want a second cannot all wait for each other.
    """
    pool = engine.pool
    if isinstance(pool, QueuePool):
        return pool.checkedout() < pool.size()
    return isinstance(pool, NullPool)
