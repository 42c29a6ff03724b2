"""Verifying the books: everything re-derived from the chained records, compared with the tables.

Each book in a snapshot of its own (`quota.audit.book`), so that memory is bounded by one book and
nobody waits; one after the other, or several at a time by processes (`quota.audit.workers`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, func, select

from billing.chain import FIRST
from billing.discrepancy import Discrepancy, discrepancy
from billing.sql import Db, Statement
from billing.stripe.tables import PLAN_INVOICES, PURCHASES, STRIPE_CUSTOMERS, TOP_UPS
from billing.tables import (
    ACCOUNT_NAMES,
    BOOKS,
    ERASABLES,
    LEDGER_ACCOUNTS,
    LINES,
    LOT_BALANCES,
    LOTS,
    PAYMENT_REFERENCES,
    RECORDS,
    TRANSFERS,
)
from quota.audit.book import verify_book
from quota.audit.budgets import budget_rows, check_budgets
from quota.audit.state import BudgetSums
from quota.audit.workers import Step, Workers, useful_workers
from quota.tables import (
    ENDINGS,
    GPU_ATTEMPTS,
    GRANTS,
    HOLDS,
    LATE_ENDINGS,
    POLICY_VERSIONS,
)

if TYPE_CHECKING:
    from quota.stores.base import Store

Progress = Callable[[int, int], None]
"""Told how many records were verified, of how many."""

BOOKS_AT_ONCE: Final = 500
_OF_BOOKS: Final = (
    *(ACCOUNT_NAMES, ERASABLES, LEDGER_ACCOUNTS, LINES, LOT_BALANCES, LOTS, PAYMENT_REFERENCES),
    *(RECORDS, TRANSFERS, ENDINGS, GPU_ATTEMPTS, GRANTS, HOLDS, LATE_ENDINGS, PURCHASES),
    *(PLAN_INVOICES, STRIPE_CUSTOMERS, TOP_UPS),
)
_BOOKS: Final = Statement(
    select(BOOKS.c.id)
    .where(BOOKS.c.id > bindparam("after"))
    .order_by(BOOKS.c.id)
    .limit(bindparam("most"))
)
_TOTAL: Final = Statement(select(func.coalesce(func.sum(BOOKS.c.seq), 0)))
_VERSIONS: Final = Statement(select(POLICY_VERSIONS.c.version, POLICY_VERSIONS.c.content))


def _strays(table: Any) -> Statement:
    stray = select(table.c.book_id).distinct()
    known = select(BOOKS.c.id)
    # PostgreSQL makes a join of NOT EXISTS, and of NOT IN a search for each row.
    missing = ~known.where(BOOKS.c.id == table.c.book_id).exists()
    return Statement(stray.where(table.c.book_id.not_in(known)), postgresql=stray.where(missing))


_STRAYS: Final = tuple((table.name, _strays(table)) for table in _OF_BOOKS)


def verify(
    store: Store, progress: Progress | None = None, workers: int | None = 1
) -> Iterator[Discrepancy]:
    """Verify all books, and yield what is not as the records say.

    `workers`: how many processes verify books at the same time; None: as many as are worth it.

    Raises:
        InvalidRequest: `workers` is no number of processes, or other processes cannot open the database.
        StoreUnavailable: the database cannot be read.
    """
    budgets, done = BudgetSums(), 0
    with store.reading(unhurried=True) as db:
        total = int((db.row(_TOTAL) or (0,))[0])
        before = budget_rows(db)
        yield from _check_versions(db)
        yield from _check_strays(db)
    count = useful_workers(store, workers, total)
    with nullcontext() if count == 1 else Workers(store, count) as others:
        for books in _books(store):
            steps = (
                _in_turn(store, books, budgets) if others is None else others.verify(books, budgets)
            )
            for records, found in steps:
                done += records
                if records and progress is not None:
                    progress(done, max(done, total))
                yield from found
    with store.reading(unhurried=True) as db:
        yield from check_budgets(budgets, before, budget_rows(db))


def _books(store: Store) -> Iterator[list[int]]:
    """Yield the numbers of all books in order, some at a time."""
    after, books = FIRST, [0] * BOOKS_AT_ONCE
    while len(books) == BOOKS_AT_ONCE:
        with store.reading(unhurried=True) as db:
            books = [int(row[0]) for row in db.rows(_BOOKS, after=after, most=BOOKS_AT_ONCE)]
        if books:
            after = books[-1]
            yield books


def _in_turn(store: Store, books: list[int], budgets: BudgetSums) -> Iterator[Step]:
    for book_id in books:
        found: list[Discrepancy] = []
        with store.reading(unhurried=True) as db:
            for records in verify_book(db, book_id, budgets, found):
                yield records, []
        yield 0, found


def _check_versions(db: Db) -> Iterator[Discrepancy]:
    """Every stored policy set has the content that its version is the hash of."""
    for version, content in db.rows(_VERSIONS):
        is_text = isinstance(content, str)  # SQLite keeps bytes in a column of text, too
        hashed = hashlib.sha256(content.encode()).hexdigest() if is_text else None
        if hashed != version:
            yield discrepancy(None, None, f"content of policy version {version}", version, hashed)


def _check_strays(db: Db) -> Iterator[Discrepancy]:
    """Every row belongs to a book."""
    for name, statement in _STRAYS:
        for (book_id,) in db.rows(statement):
            yield discrepancy(book_id, None, f"rows of {name}", "a book that has them", None)
