"""Verifying several books at the same time, each in a process of its own.

Books have nothing in common but budgets, whose sums are added up here. The processes are started
anew, not forked, so that they share no connection, lock or thread with this one; each opens the
database by its URL. What they find comes back in the order of the books.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Self

from sqlalchemy.pool import StaticPool

from billing.discrepancy import Discrepancy
from policies.errors import InvalidRequest, StoreUnavailable
from policies.units import whole
from quota.audit.book import verify_book
from quota.audit.state import BudgetSums
from quota.stores.opening import open_store

if TYPE_CHECKING:
    from quota.stores.base import Store

Step = tuple[int, list[Discrepancy]]
"""How many more records were verified, and what was found by then."""

WORKERS_MAX: Final = 256
WORTH_IT: Final = 100_000
"""How many records take one process a few times as long as it takes until several are ready."""

_STORE: list[Store] = []
"""The database, in a process that verifies."""


def useful_workers(store: Store, wanted: int | None, records: int) -> int:
    """Return how many processes verify; None: one for each core, where there is enough to do.

    Raises:
        InvalidRequest: it is no number of processes, or other processes cannot open the database.
    """
    shared = store.owns_engine and not isinstance(store.engine.pool, StaticPool)
    if wanted is None:
        return cores() if shared and records >= WORTH_IT else 1
    count = whole(wanted, "workers", most=WORKERS_MAX)
    if count > 1 and not shared:
        raise InvalidRequest(
            "workers must be 1 for a database in memory, and on your own engine: "
            "other processes cannot open them"
        )
    return count


def cores() -> int:
    """Return on how many cores this process may run."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Workers:
    """Processes that verify books of one database. A context manager: at its end they are gone."""

    def __init__(self, store: Store, count: int) -> None:
        """Start them when there is something to do."""
        self._count = count
        self._pool = ProcessPoolExecutor(
            count,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_begin,
            initargs=(store.engine.url.render_as_string(hide_password=False),),
        )

    def verify(self, books: list[int], budgets: BudgetSums) -> Iterator[Step]:
        """Verify books, and yield what each had and what was found, in their order.

        Raises:
            StoreUnavailable: the database cannot be read, or a process has come to its end.
        """
        at_once = max(1, len(books) // (self._count * 8))
        try:
            with uninterrupted():
                steps = self._pool.map(_verify, books, chunksize=at_once)
            for records, found, charged in steps:
                budgets.spent.update(charged.spent)
                budgets.of_blocks.update(charged.of_blocks)
                yield records, found
        except BrokenProcessPool:
            raise StoreUnavailable(
                "a process that verified books has come to its end: try again, with one worker"
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back in this thread, and for good in processes that are started meanwhile.

    Ctrl-C reaches the whole group, also a process that is only just importing its modules: who waits for it hears it.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(database: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _STORE.append(open_store(database))


def _verify(book_id: int) -> tuple[int, list[Discrepancy], BudgetSums]:
    found: list[Discrepancy] = []
    budgets = BudgetSums()
    with _STORE[0].reading(unhurried=True) as db:
        records = sum(verify_book(db, book_id, budgets, found))
    return records, found, budgets
