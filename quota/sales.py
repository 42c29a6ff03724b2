"""Answers about selling: what a checkout led to, what an event did, what became of a purchase."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from billing.plans import PLAN
from billing.stripe.facts import Facts, failed, paid, problem_of
from billing.stripe.inbox import Status
from billing.stripe.purchases import Sale
from billing.stripe.top_ups import TOP_UP
from quota.ids import lot_id

PurchaseStatus = Literal["pending", "paid", "failed", "quarantined"]


@dataclass(frozen=True, slots=True)
class Checkout:
    """A Checkout Session that awaits its buyer at `url`, and the purchase that it is for."""

    purchase_id: str
    session_id: str
    url: str


@dataclass(frozen=True, slots=True)
class StripeOutcome:
    """What became of an event. `status`: done, ignored (of no kind that we follow), or failed. `effect`: in words."""

    event_id: str
    type: str
    status: Status
    effect: str


@dataclass(frozen=True, slots=True)
class PurchaseView:
    """A purchase and what has become of it. Money in minor units of `currency`, tax included where there is any.

    `status`: pending, paid, failed (nothing will be paid any more), or quarantined: what was paid is not what was
    offered, and `problem` says how. `kind`: what was sold; of a plan, `pack` is its name, `payment` its subscription,
    and the money is that of all its invoices. `lot_id`: what it brought. `disputed`: whether a payment is disputed now.
    """

    id: str
    account: str
    pack: str
    units: int
    price_minor: int
    currency: str
    created_at: datetime
    status: PurchaseStatus
    problem: str | None
    session_id: str | None
    payment: str | None
    lot_id: str | None
    total_minor: int
    tax_minor: int
    refunded_minor: int
    lost_minor: int
    fee_minor: int
    disputed: bool
    kind: str = "pack"


def viewed(sale: Sale, account: str, facts: Facts) -> PurchaseView:
    """Return a purchase as its buyer's account shows it. `facts`: all that is known of its payment."""
    state = sale.state
    return PurchaseView(
        id=sale.id,
        account=account,
        pack=sale.item,
        units=sale.units,
        price_minor=sale.price_minor,
        currency=sale.currency,
        created_at=sale.created_at,
        status=_status(sale, facts),
        problem=sale.problem,
        session_id=sale.session_id,
        payment=sale.payment,
        lot_id=None if sale.lot_no is None else lot_id(sale.book_id, sale.lot_no),
        total_minor=state.total_minor,
        tax_minor=state.tax_minor,
        refunded_minor=state.refunded_minor,
        lost_minor=state.lost_minor,
        fee_minor=state.fee_minor,
        disputed=state.disputed,
        kind=sale.kind,
    )


def _status(sale: Sale, facts: Facts) -> PurchaseStatus:
    if sale.kind == PLAN and sale.problem is not None:
        return "quarantined"  # what its invoices pay is on the books all the same
    if sale.state.paid or (sale.kind == PLAN and paid(facts)):
        return "paid"
    if sale.kind == TOP_UP and problem_of(facts, sale.terms) is None and sale.problem is not None:
        return "failed"  # declined, or given up
    if sale.problem is not None:
        return "quarantined"
    return "failed" if failed(facts) else "pending"
