"""Verifying one book, in a snapshot of its own.

The way of a record: its place in the chain (`billing.chain`), what it does to grants and settings
(the other modules here), what it does to the ledger (`billing.verify`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from billing.chain import Link, entries
from billing.discrepancy import Discrepancy, discrepancy
from billing.entries import UNREADABLE, Entry
from billing.plans import INVOICE, RECOGNISED, SUBSCRIPTION
from billing.sql import Db
from billing.verify import LedgerAudit
from policies.errors import ComptrollerError
from quota.audit.ends import check_attempt, check_end, check_late, check_renewal
from quota.audit.grants import check_grant
from quota.audit.payments import check_checkout, check_payment, check_top_up
from quota.audit.plans import (
    check_invoice,
    check_plan,
    check_recognised,
    check_subscription,
    is_plan_due,
)
from quota.audit.rows import RowAudit, load_values
from quota.audit.settings import (
    check_forget,
    check_freeze,
    check_issue,
    check_lot_expiry,
    check_paid_use,
    check_refund,
    check_zone,
    new_lots,
)
from quota.audit.state import BookAudit, BudgetSums, Check

UNTYPED: Final = (*UNREADABLE, struct.error, MemoryError)
"""What becomes of a value that SQLite keeps in a column of another type: a huge number of bytes, for one."""
DUES: Final = ("expired", "lot_expiry", RECOGNISED)
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
    "top_up": check_top_up,
    "lot_expiry": check_lot_expiry,
    INVOICE: check_invoice,
    RECOGNISED: check_recognised,
    SUBSCRIPTION: check_subscription,
    "plan": check_plan,
    "zone": check_zone,
    "paid_use": check_paid_use,
    "freeze": check_freeze,
    "unfreeze": check_freeze,
    "forget": check_forget,
}


def verify_book(
    db: Db, book_id: int, budgets: BudgetSums, found: list[Discrepancy]
) -> Iterator[int]:
    """Verify one book, and yield how many records each page had.

    What is not as they say is added to `found`, what they charged to budgets to `budgets`. A row that cannot even be
    read, since a column holds what none of its type can be, is found too: nothing after it can be said of the book.
    """
    try:
        yield from _verified(db, book_id, budgets, found)
    except UNTYPED as error:
        found.append(
            discrepancy(book_id, None, "rows of the book", "what can be read", repr(error))
        )


def _verified(db: Db, book_id: int, budgets: BudgetSums, found: list[Discrepancy]) -> Iterator[int]:
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
        if entry.kind not in DUES and not is_plan_due(entry):
            if entry.recorded_micros != entry.at_micros:
                book.say(entry, "instant of the record", entry.recorded_at, entry.at)
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
