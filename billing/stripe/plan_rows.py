"""Invoices of plans in SQL: what was posted last of each, and what of it is earned."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

from sqlalchemy import bindparam, func, or_, select, update

from billing.book import canonical
from billing.payments import Payment
from billing.plans import Invoice, Span
from billing.sql import Db, Row, Statement, insert_once
from billing.stripe.tables import PLAN_INVOICES

_ROW: Final[Any] = PLAN_INVOICES
STATE: Final = ("revision", "state", "spans", "recognised", "revoked_minor", "deferred_minor")
COLUMNS: Final = ("id", "purchase", "currency", *STATE)
_OF_BOOK: Final = Statement(
    select(*(_ROW.c[name] for name in COLUMNS))
    .where(_ROW.c.book_id == bindparam("book_id"))
    .order_by(_ROW.c.id)
)
_OWNER: Final = Statement(
    select(_ROW.c.purchase)
    .where(or_(_ROW.c.id == bindparam("known_as"), _ROW.c.payment == bindparam("known_as")))
    .order_by(_ROW.c.id)
)
_PAYMENTS: Final = Statement(
    select(_ROW.c.id, _ROW.c.payment).where(_ROW.c.book_id == bindparam("book_id"))
)
_ADD: Final = insert_once(PLAN_INVOICES)
_LINK: Final = Statement(
    update(_ROW).where(_ROW.c.id == bindparam("this")).values(payment=bindparam("new_payment"))
)
_SAVE: Final = Statement(
    update(_ROW)
    .where(_ROW.c.id == bindparam("this"))
    .values({name: bindparam(f"new_{name}") for name in STATE})
)
_DEFERRED: Final = select(_ROW.c.currency, func.sum(_ROW.c.deferred_minor)).group_by(
    _ROW.c.currency
)
_ALL_DEFERRED: Final = Statement(_DEFERRED)
_DEFERRED_OF_BOOK: Final = Statement(_DEFERRED.where(_ROW.c.book_id == bindparam("book_id")))


def add_invoice(db: Db, book_id: int, invoice: Invoice) -> None:
    """Make the row of an invoice that was heard of, unless it is there."""
    db.run(
        _ADD,
        id=invoice.id,
        book_id=book_id,
        purchase=invoice.purchase,
        currency=invoice.currency,
        payment=None,
        **dict(zip(STATE, row_of(invoice)[2:], strict=True)),
    )


def link_invoice(db: Db, invoice_id: str, payment: str) -> None:
    """Say which PaymentIntent has paid an invoice."""
    db.run(_LINK, this=invoice_id, new_payment=payment)


def save_invoice(db: Db, invoice: Invoice) -> None:
    """Write down what was posted last of an invoice."""
    values = zip(STATE, row_of(invoice)[2:], strict=True)
    db.run(_SAVE, this=invoice.id, **{f"new_{name}": value for name, value in values})


def load_invoices(db: Db, book_id: int) -> dict[str, Invoice]:
    """Load a book's invoices, by their id."""
    return {row[0]: _invoice(row) for row in db.rows(_OF_BOOK, book_id=book_id)}


def purchase_of_invoice(db: Db, known_as: str) -> str | None:
    """Return the purchase whose invoice this is, or was paid by this PaymentIntent."""
    row = db.row(_OWNER, known_as=known_as)
    return None if row is None else str(row[0])


def invoice_payments(db: Db, book_id: int) -> list[tuple[str, str | None]]:
    """Return a book's invoices, each with the PaymentIntent that has paid it."""
    return [(str(row[0]), row[1]) for row in db.rows(_PAYMENTS, book_id=book_id)]


def load_deferred(db: Db, book_id: int | None = None) -> dict[str, int]:
    """Add up what was paid for plans and is not earned, of one book or of all, in minor units by currency."""
    rows: Iterable[Row] = (
        db.rows(_ALL_DEFERRED) if book_id is None else db.rows(_DEFERRED_OF_BOOK, book_id=book_id)
    )
    return {str(currency): int(amount) for currency, amount in rows}


def row_of(invoice: Invoice) -> tuple[Any, ...]:
    """Return an invoice as its row has it, from `purchase` on."""
    return (
        invoice.purchase,
        invoice.currency,
        invoice.revision,
        canonical(invoice.payment.facts()).decode(),
        canonical([list(span) for span in invoice.spans]).decode(),
        canonical(dict(invoice.recognised)).decode(),
        invoice.revoked_minor,
        invoice.deferred_minor,
    )


def _invoice(row: Row) -> Invoice:
    identity, purchase, currency, revision, state, spans, recognised, revoked, _ = row
    return Invoice(
        id=identity,
        purchase=purchase,
        currency=currency,
        payment=Payment.of(json.loads(state)),
        spans=tuple(Span(*span) for span in json.loads(spans)),
        recognised=tuple(sorted(json.loads(recognised).items())),
        revoked_minor=revoked,
        revision=revision,
    )
