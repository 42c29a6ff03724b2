"""Checking records of plans that are paid for: what a subscription gives, what invoices pay, what of it is earned."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import bindparam, select

from billing.entries import Entry
from billing.payments import Payment
from billing.plans import (
    PLAN_DUE,
    Invoice,
    Span,
    Standing,
    draft_invoice,
    draft_plan_due,
    draft_recognised,
    draft_subscription,
    groups_due,
    next_due,
    recognised,
)
from billing.sql import Db, Statement
from billing.stripe.plan_rows import COLUMNS, row_of
from billing.stripe.tables import PLAN_INVOICES
from quota.audit.payments import SaleAudit
from quota.audit.state import BookAudit

INVOICE_COLUMNS: Final = COLUMNS[1:]
MOMENT: Final = timedelta(microseconds=1)
_INVOICES: Final = Statement(
    select(*(PLAN_INVOICES.c[name] for name in COLUMNS)).where(
        PLAN_INVOICES.c.book_id == bindparam("book_id")
    )
)


def check_invoice(book: BookAudit, entry: Entry) -> None:
    """Check that a record takes the books from what was posted of an invoice before to what is known now."""
    facts = entry.facts
    sale: SaleAudit = book.sales[facts["purchase"]]
    before = book.invoices.get(
        facts["invoice"], Invoice(facts["invoice"], sale.purchase.id, facts["currency"])
    )
    now = replace(
        before,
        payment=Payment.of(facts["payment"]),
        spans=tuple(Span(*span) for span in facts["spans"]),
        revision=before.revision + 1,
    )
    now = replace(now, revoked_minor=now.to_revoke_minor())
    draft = draft_invoice(before, now, entry.at)
    book.same(entry, "facts", dict(draft.facts), dict(facts))
    book.same_draft(entry, draft)
    book.settings.disputes += now.payment.stops_paid_use - before.payment.stops_paid_use
    book.invoices[now.id] = now
    _set_due(book, entry.at)


def check_recognised(book: BookAudit, entry: Entry) -> None:
    """Check that a day has earned what it says, of what was paid before, and that the day was not over before."""
    book.same(entry, "instant of what fell due", book.settings.plan_due, entry.at)
    groups = groups_due(book.invoices.values(), entry.at)
    key = entry.plan, entry.facts["currency"]
    draft = draft_recognised(*key, groups.get(key, {}), entry.at)
    book.same(entry, "what the day has earned", dict(draft.facts), dict(entry.facts))
    book.same_draft(entry, draft)
    for identity, amount in entry.facts["invoices"].items():
        invoice = book.invoices[identity]
        earned = recognised(invoice, entry.plan, amount)
        book.invoices[identity] = replace(invoice, recognised=earned)
    _set_due(book, entry.at - MOMENT)


def check_subscription(book: BookAudit, entry: Entry) -> None:
    """Take over what a subscription gives from now on."""
    sale: SaleAudit = book.sales[entry.facts["purchase"]]
    sale.revision, sale.standing = sale.revision + 1, Standing.of(entry.facts["standing"])
    draft = draft_subscription(sale.purchase.id, sale.revision, sale.standing, entry.at)
    book.same(entry, "facts", dict(draft.facts), dict(entry.facts))
    book.same_draft(entry, draft)
    _set_due(book, entry.at)


def check_plan(book: BookAudit, entry: Entry) -> None:
    """Take a change of plan over. One that time has brought is what a subscription said before."""
    if is_plan_due(entry):
        purchase = str(entry.once).split(":")[1]
        sale: SaleAudit = book.sales[purchase]
        book.same(entry, "instant of what fell due", sale.standing.until, entry.at)
        plan = book.settings.plan
        draft = draft_plan_due(purchase, sale.revision, sale.standing, plan, entry.at)
        book.same(entry, "plan", draft.facts["plan"], entry.facts["plan"])
        book.same_draft(entry, draft)
        sale.standing = sale.standing.over()
        _set_due(book, entry.at - MOMENT)
    book.settings.plan = entry.facts["plan"]


def is_plan_due(entry: Entry) -> bool:
    """Whether a record is a change of plan that time has brought."""
    return entry.once is not None and entry.once.startswith(f"{PLAN_DUE}:")


def invoice_rows(db: Db, book_id: int) -> dict[str, tuple[Any, ...]]:
    """Load the rows of a book's invoices."""
    return {str(key): tuple(row) for key, *row in db.rows(_INVOICES, book_id=book_id)}


def expected_invoices(book: BookAudit, rows: dict[str, tuple[Any, ...]]) -> dict[str, Any]:
    """Return what these rows are by the records. One that was heard of and is not paid has a row and no record."""
    expected = {key: row_of(invoice) for key, invoice in book.invoices.items()}
    for key, (purchase, currency, *_) in rows.items():
        if key not in expected and purchase in book.sales:
            expected[key] = row_of(Invoice(key, purchase, currency))
    return expected


def _set_due(book: BookAudit, after: datetime) -> None:
    standings = (sale.standing for sale in book.sales.values())
    book.settings.plan_due = next_due(book.invoices.values(), standings, after)
