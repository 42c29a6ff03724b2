"""Checking records of purchases: what was offered, and what its payment has come to since."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import bindparam, select

from billing.book import canonical
from billing.draft import Draft
from billing.entries import Entry
from billing.lots import Lot
from billing.payments import Payment, Purchase, draft_checkout, draft_payment, lot_of
from billing.plans import PLAN, Standing
from billing.sql import Db, Statement
from billing.stripe.tables import PURCHASES
from billing.stripe.top_ups import TopUp
from quota.audit.state import BookAudit

PURCHASE_COLUMNS: Final = (
    *(
        "kind",
        "item",
        "units",
        "price_minor",
        "currency",
        "priority",
        "valid_for",
        "policy_version",
    ),
    *("created_at", "lot_no", "revision", "state"),
)
_PURCHASES: Final = Statement(
    select(PURCHASES.c.id, *(PURCHASES.c[name] for name in PURCHASE_COLUMNS)).where(
        PURCHASES.c.book_id == bindparam("book_id")
    )
)


@dataclass(slots=True)
class SaleAudit:
    """A purchase, as the records so far leave it. `seq`: the record that offered it."""

    purchase: Purchase
    at: datetime
    seq: int
    state: Payment
    revision: int = 0
    lot_no: int | None = None
    standing: Standing = field(default_factory=Standing)


def check_checkout(book: BookAudit, entry: Entry) -> None:
    """Check what was offered, and take it over."""
    facts = dict(entry.facts)
    purchase = Purchase(id=facts.pop("purchase"), **facts)
    book.same_draft(entry, draft_checkout(purchase, entry.at))
    policy_set = book.policy_set(purchase.policy_version)
    if purchase.kind == PLAN:
        price = policy_set.plan(purchase.pack).price_in(purchase.currency)
        said = None if price is None else price.minor
        book.same(entry, "price of the plan", said, purchase.price_minor)
    else:
        pack = policy_set.packs.get(purchase.pack)
        sold = None if pack is None else (pack.units, pack.priority)
        offered = purchase.units, purchase.priority
        book.same(entry, "units and priority of the pack", sold, offered)
    book.sales[purchase.id] = SaleAudit(purchase, entry.at, entry.seq, Payment())


def check_payment(book: BookAudit, entry: Entry) -> None:
    """Check that a record takes the books from what was posted of a payment before to what is known now."""
    sale: SaleAudit = book.sales[entry.facts["purchase"]]
    now, purchase = Payment.of(entry.facts["payment"]), sale.purchase
    lot: Lot | None = None
    if sale.lot_no is not None:
        lot = book.ledger.lot(sale.lot_no)
    elif now.paid:
        number, new = len(book.ledger.lots) + 1, entry.lots[0]
        lot = lot_of(purchase, now, number, new.created_at)
        sale.lot_no = number
    sale.revision += 1
    states = sale.state, now
    draft = draft_payment(
        purchase.id, sale.revision, states, lot, entry.at, currency=purchase.currency
    )
    book.same(entry, "facts", dict(draft.facts), dict(entry.facts))
    book.same(entry, "what the payment has come to for its lot", draft.mark, entry.mark)
    book.same_draft(entry, draft)
    if sale.state.paid and (now.price_minor, now.paid) != (sale.state.price_minor, True):
        book.say(entry, "price that was paid", sale.state.price_minor, now.price_minor)
    book.settings.disputes += now.stops_paid_use - sale.state.stops_paid_use
    sale.state = now


def check_top_up(book: BookAudit, entry: Entry) -> None:
    """Take over what the account has opted in to."""
    book.top_up = TopUp(**entry.facts), entry.seq
    book.same_draft(entry, Draft("top_up", entry.at, entry.facts))


def purchase_rows(db: Db, book_id: int) -> dict[str, tuple[Any, ...]]:
    """Load the rows of a book's purchases."""
    return {str(key): tuple(row) for key, *row in db.rows(_PURCHASES, book_id=book_id)}


def expected_purchases(book: BookAudit) -> dict[str, tuple[Any, ...]]:
    """Return what these rows are by the records."""
    return {
        key: (
            *(getattr(sale.purchase, _FIELD.get(name, name)) for name in PURCHASE_COLUMNS[:8]),
            sale.at,
            sale.lot_no,
            sale.revision,
            canonical(
                (sale.standing if sale.purchase.kind == PLAN else sale.state).facts()
            ).decode(),
        )
        for key, sale in book.sales.items()
    }


_FIELD: Final = {"item": "pack"}


def suspended(book: BookAudit) -> dict[tuple[int | None, int], int]:
    """Return the units that disputes hold: all that is left of their lots."""
    lots = (books.lot for books in book.ledger.lots.values())
    left = {(None, lot.number): lot.suspended + lot.available for lot in lots if lot.disputed}
    return {key: units for key, units in left.items() if units}
