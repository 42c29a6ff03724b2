"""Verifying the books: everything re-derived from the chained records, compared with the tables.

One book at a time, each in a snapshot of its own, so that memory is bounded by one book and nobody
waits. The way of a record: its place in the chain (`billing.chain`), what it does to grants and
settings (`quota.audit`), what it does to the ledger (`billing.verify`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, func, select

from billing.chain import FIRST, Link, entries
from billing.discrepancy import Discrepancy, discrepancy
from billing.entries import UNREADABLE, Entry
from billing.sql import Db, Statement
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
from billing.verify import LedgerAudit
from policies.errors import ComptrollerError
from quota.audit.budgets import budget_rows, check_budgets
from quota.audit.ends import check_attempt, check_end, check_late, check_renewal
from quota.audit.grants import check_grant
from quota.audit.payments import check_checkout, check_payment
from quota.audit.rows import RowAudit, load_values
from quota.audit.settings import (
    check_forget,
    check_freeze,
    check_issue,
    check_lot_expiry,
    check_paid_use,
    check_plan,
    check_refund,
    check_zone,
    new_lots,
)
from quota.audit.state import BookAudit, BudgetSums, Check
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
DUES: Final = ("expired", "lot_expiry")
CHECKS: Final[dict[str, Check]] = {
    "grant": check_grant,
    "start": check_renewal,
    "extend": check_renewal,
    "settled": check_end,
    "released": check_end,
    "expired": check_end,
    "late": check_late,
    "attempt": check_attempt,
    "purchase": check_issue,
    "credits": check_issue,
    "refund": check_refund,
    "checkout": check_checkout,
    "payment": check_payment,
    "lot_expiry": check_lot_expiry,
    "plan": check_plan,
    "zone": check_zone,
    "paid_use": check_paid_use,
    "freeze": check_freeze,
    "unfreeze": check_freeze,
    "forget": check_forget,
}
_OF_BOOKS: Final = (
    *(ACCOUNT_NAMES, ERASABLES, LEDGER_ACCOUNTS, LINES, LOT_BALANCES, LOTS, PAYMENT_REFERENCES),
    *(RECORDS, TRANSFERS, ENDINGS, GPU_ATTEMPTS, GRANTS, HOLDS, LATE_ENDINGS),
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


def verify(store: Store, progress: Progress | None = None) -> Iterator[Discrepancy]:
    """Verify all books, and yield what is not as the records say.

    Raises:
        StoreUnavailable: the database cannot be read.
    """
    budgets, done = BudgetSums(), 0
    with store.reading(unhurried=True) as db:
        total = int((db.row(_TOTAL) or (0,))[0])
        before = budget_rows(db)
        yield from _check_versions(db)
        yield from _check_strays(db)
    after = FIRST
    while True:
        with store.reading(unhurried=True) as db:
            books = [int(row[0]) for row in db.rows(_BOOKS, after=after, most=BOOKS_AT_ONCE)]
        for book_id in books:
            found: list[Discrepancy] = []
            with store.reading(unhurried=True) as db:
                for count in _verify_book(db, book_id, budgets, found):
                    done += count
                    if progress is not None:
                        progress(done, max(done, total))
            yield from found
        if len(books) < BOOKS_AT_ONCE:
            break
        after = books[-1]
    with store.reading(unhurried=True) as db:
        yield from check_budgets(budgets, before, budget_rows(db))


def _verify_book(
    db: Db, book_id: int, budgets: BudgetSums, found: list[Discrepancy]
) -> Iterator[int]:
    """Verify one book, and yield how many records each page had."""
    link, ledger = Link(), LedgerAudit(db, book_id, found)
    book = BookAudit(db, ledger, load_values(db, book_id), budgets, found)
    rows = RowAudit(db, book, found)
    for page in entries(db, book_id, link, found):
        for entry in page:
            _check(book, rows, entry)
        rows.end_of_page(last=False)
        yield len(page)
    ledger.finish(link)
    rows.finish()


def _check(book: BookAudit, rows: RowAudit, entry: Entry) -> None:
    """Check one record. What was tampered with may not even hold together: that is a finding too."""
    try:
        check = CHECKS.get(entry.kind)
        if check is None:
            book.say(entry, "kind of the record", "a known one", entry.kind)
        if entry.kind not in DUES:
            book.same(entry, "instant of the record", entry.recorded_at, entry.at)
            overdue = book.overdue(entry.at)
            if overdue is not None:
                book.say(entry, "what fell due before it", overdue, None)
        if check is not None:
            check(book, entry)
        new_lots(book, entry)
        rows.add(entry)
    except (*UNREADABLE, ComptrollerError) as error:
        book.say(entry, "what the record says", "what earlier records allow", repr(error))
    try:
        book.ledger.apply(entry)
    except UNREADABLE as error:
        book.say(entry, "what the record moves", "what earlier records allow", repr(error))


def _check_versions(db: Db) -> Iterator[Discrepancy]:
    """Every stored policy set has the content that its version is the hash of."""
    for version, content in db.rows(_VERSIONS):
        hashed = hashlib.sha256(content.encode()).hexdigest()
        if hashed != version:
            yield discrepancy(None, None, f"content of policy version {version}", version, hashed)


def _check_strays(db: Db) -> Iterator[Discrepancy]:
    """Every row belongs to a book."""
    for name, statement in _STRAYS:
        for (book_id,) in db.rows(statement):
            yield discrepancy(book_id, None, f"rows of {name}", "a book that has them", None)
