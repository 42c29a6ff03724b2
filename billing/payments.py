"""What a payment does to the books: a function of what it has come to, posted as differences. Pure drafts.

Whatever order messages about a payment arrive in, what is known of it in the end is the same (`billing.stripe.facts`
sees to that), and so are the books: each record takes them from what was known before to what is known now. Units
that a refund or a lost dispute has paid back are revoked, as far as they are unused: of N units that cost p, those
are min(unused, floor(returned x N / p)). While a dispute is open, what is left of the lot is suspended.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from billing import chart
from billing import lots as lot_rules
from billing.draft import Draft, Line, LotMark
from billing.lots import Lot
from billing.transfer import Transfer
from policies.instants import Length

PAYMENT: Final = "payment"
CHECKOUT: Final = "checkout"
STRIPE: Final = "stripe"
"""The origin of lots that were bought through Stripe; their reference is the purchase's id."""

_FLAGS: Final = ("paid", "disputed", "stops_paid_use")


@dataclass(frozen=True, slots=True)
class Purchase:
    """What was offered to a buyer and, at that, under which terms. Money in minor units of `currency`.

    Of a plan, `pack` is its name, it has no units, and `valid_for` is how long one payment lasts.
    """

    id: str
    pack: str
    units: int
    price_minor: int
    currency: str
    priority: int
    valid_for: str | None
    policy_version: str
    kind: str = "pack"

    def expires_at(self, paid_at: datetime) -> datetime | None:
        """Return when its units expire."""
        return None if self.valid_for is None else Length.parse(self.valid_for).after(paid_at)


@dataclass(frozen=True, slots=True)
class Payment:
    """What is known of a payment: all of it cumulative, in minor units of one currency.

    `total_minor` was paid, `tax_minor` of it is tax. `refunded_minor` went back to the buyer, or is on its way;
    `lost_minor` went back by disputes that were lost. `withdrawn_minor` is what disputes have taken away so far, less
    what came back of it. `fee_minor`: Stripe's fees. `paid_out_minor`: what has arrived in the bank.
    `stops_paid_use`: whether the account may use no credits as long as this payment is disputed.
    """

    paid: bool = False
    total_minor: int = 0
    tax_minor: int = 0
    refunded_minor: int = 0
    lost_minor: int = 0
    withdrawn_minor: int = 0
    fee_minor: int = 0
    paid_out_minor: int = 0
    disputed: bool = False
    stops_paid_use: bool = False

    @property
    def price_minor(self) -> int:
        """What was paid without tax."""
        return self.total_minor - self.tax_minor

    @property
    def returned_minor(self) -> int:
        """What went back to the buyer without tax, by refunds and by lost disputes."""
        return self.net(self.refunded_minor + self.lost_minor)

    @property
    def charged_back_minor(self) -> int:
        """The part of it that lost disputes took."""
        return self.returned_minor - self.net(self.refunded_minor)

    def net(self, gross_minor: int) -> int:
        """Return an amount that went back without the tax in it: tax goes back in proportion, rounded down."""
        if not self.total_minor:
            return gross_minor
        return gross_minor - gross_minor * self.tax_minor // self.total_minor

    def facts(self) -> dict[str, Any]:
        """Return what a record says of it: what is not nothing."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {name: int(value) for name, value in values.items() if value}

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Payment:
        """Return what a record says of it."""
        flags = {name: bool(facts[name]) for name in _FLAGS if name in facts}
        return cls(**{**facts, **flags})


def draft_checkout(purchase: Purchase, at: datetime) -> Draft:
    """Draft the record of an offer: what is to be had for what, whatever becomes of the policy file."""
    facts = {name: getattr(purchase, name) for name in Purchase.__slots__ if name != "id"}
    return Draft(CHECKOUT, at, {"purchase": purchase.id, **facts}, once=f"{CHECKOUT}:{purchase.id}")


def lot_of(purchase: Purchase, payment: Payment, number: int, paid_at: datetime) -> Lot:
    """Return the lot that a payment buys, before anything has happened to it. Its price is what was paid net of tax."""
    return Lot(
        number=number,
        origin=STRIPE,
        reference=purchase.id,
        pack=purchase.pack,
        units=purchase.units,
        price_minor=payment.price_minor,
        currency=purchase.currency,
        priority=purchase.priority,
        created_at=paid_at,
        expires_at=purchase.expires_at(paid_at),
    )


def draft_payment(
    purchase: str,
    revision: int,
    states: tuple[Payment, Payment],
    lot: Lot | None,
    at: datetime,
    *,
    currency: str,
) -> Draft:
    """Draft what takes the books from one state of a payment to the next.

    Args:
        purchase: its id.
        revision: how many states of the payment were posted, this one included.
        states: what was posted last, and what is known now.
        lot: what the payment bought, as it stands; with its first state that is paid, the new one; None: nothing yet.
        at: the record's instant.
        currency: what it is paid in.
    """
    before, now = states
    new = lot is not None and now.paid and not before.paid
    transfers: list[Transfer] = []
    mark = None
    line = Line(
        currency=currency,
        returned_minor=now.returned_minor - before.returned_minor,
        fee_minor=now.fee_minor - before.fee_minor,
    )
    transfers.extend(money_moves(currency, before, now))
    if lot is not None:
        begun = lot_rules.issue(lot) if new else []
        moves, then, broken = _move_units(lot, now, at)
        transfers = [*begun, *transfers, *moves]
        line = replace(
            line,
            lot_no=lot.number,
            lot_units=then.available - (0 if new else lot.available),
            sold_minor=lot.price_minor if new else 0,
            refunded_minor=then.revoked_minor - lot.revoked_minor,
            breakage_minor=broken,
        )
        mark = LotMark(lot.number, then.returned_minor, then.charged_back_minor, then.disputed)
    return Draft(
        PAYMENT,
        at,
        {"purchase": purchase, "revision": revision, "currency": currency, "payment": now.facts()},
        once=f"{PAYMENT}:{purchase}:{revision}",
        transfers=tuple(transfers),
        lines=() if line == Line(lot_no=line.lot_no, currency=currency) else (line,),
        new_lots=(lot,) if new and lot is not None else (),
        mark=mark,
        opens_payments_in=currency,
    )


def money_moves(currency: str, before: Payment, now: Payment) -> Iterator[Transfer]:
    """Yield what takes the accounts of money from one state of a payment to the next, without what it has bought."""
    yield from _cash(currency, _flows(before), _flows(now))


def _flows(payment: Payment) -> Iterator[tuple[str, str, int]]:
    """Yield what a state has moved in all between accounts of money: (debited, credited, minor units)."""
    refunded, lost = payment.net(payment.refunded_minor), payment.charged_back_minor
    # What was paid for units goes by way of `cash`, to which payments from elsewhere are debited too.
    yield chart.CLEARING, chart.CASH, payment.price_minor if payment.paid else 0
    yield chart.CLEARING, chart.TAX, payment.tax_minor if payment.paid else 0
    yield chart.FEES, chart.CLEARING, payment.fee_minor
    yield chart.RETURNED, chart.CLEARING, refunded
    yield chart.TAX, chart.CLEARING, payment.refunded_minor - refunded
    yield chart.DISPUTED, chart.CLEARING, payment.withdrawn_minor
    yield chart.RETURNED, chart.DISPUTED, lost
    yield chart.TAX, chart.DISPUTED, payment.lost_minor - lost
    yield chart.BANK, chart.CLEARING, payment.paid_out_minor


def _cash(
    currency: str,
    before: Iterator[tuple[str, str, int]],
    now: Iterator[tuple[str, str, int]],
) -> Iterator[Transfer]:
    for (debit, credit, was), (_, _, amount) in zip(before, now, strict=True):
        if amount != was:
            accounts = chart.money(debit, currency), chart.money(credit, currency)
            one, other = accounts if amount > was else reversed(accounts)
            yield Transfer(one, other, currency, abs(amount - was))


def _move_units(lot: Lot, now: Payment, at: datetime) -> tuple[list[Transfer], Lot, int]:
    """Bring a lot's units up to what its payment has come to. Returns also the lot after it, and the breakage.

    What a dispute has suspended is freed first and suspended again last, so that refunds find it in between.
    """
    moves: list[Transfer] = []
    then = replace(
        lot,
        returned_minor=now.returned_minor,
        charged_back_minor=now.charged_back_minor,
        disputed=now.disputed,
    )

    def apply(transfers: list[Transfer]) -> None:
        nonlocal then
        moves.extend(transfers)
        then = lot_rules.after(then, transfers)

    if not now.disputed or then.owed:
        apply(lot_rules.resume(then, then.suspended))
    if not then.refunded:
        apply(lot_rules.restore(then, max(0, then.revoked - then.claimed))[0])
    apply(lot_rules.revoke(then, min(then.available, then.owed))[0])
    moves.extend(lot_rules.chargeback(lot, then))
    broken = 0
    if now.disputed:
        apply(lot_rules.suspend(then, then.available))
    elif then.has_expired(at):
        transfers, broken = lot_rules.expire(then, then.available)
        apply(transfers)
    return moves, then, broken
