"""What is known of a payment at Stripe: the latest state of each of its objects, in whatever order they were heard of.

Stripe promises no order, repeats itself, and tells of one payment by many events. So nothing is done because of an
event: each adds what it says of objects to what is known, and of two states of one object the later one stays. States
only ever go forward (a refund that has failed was not made after that), so "later" needs no clock: each kind of object
has an order of its statuses. `joined` is commutative, associative and idempotent (tests/stripe holds it to that), and
`payment_of` is a function of what is known. That is the whole of *order-free*.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from billing.book import canonical
from billing.payments import Payment

Item = Mapping[str, Any]
Facts = dict[str, dict[str, Item]]
"""By kind of object, then by its id: what matters of its latest state."""

SESSION: Final = "session"
INTENT: Final = "intent"
REFUND: Final = "refund"
DISPUTE: Final = "dispute"
MOVE: Final = "move"
"""A balance transaction: what moved on our balance at Stripe because of a payment."""
SUBSCRIPTION: Final = "subscription"
BILL: Final = "bill"
"""An invoice of a subscription."""
PAID_BY: Final = "paid_by"
"""The PaymentIntent that has paid an invoice."""
HELD: Final = "held"
"""A price that a subscription had in one of its periods."""
LATE: Final = "late"
"""Since when an invoice is past due: its first snapshot stays."""

_ORDER: Final[Mapping[str, tuple[str, ...]]] = {
    SESSION: ("open", "complete", "expired", "failed", "paid"),
    INTENT: ("pending", "failed", "canceled", "succeeded"),
    REFUND: ("requires_action", "pending", "succeeded", "canceled", "failed"),
    DISPUTE: (
        *("warning_needs_response", "warning_under_review", "needs_response", "under_review"),
        *("warning_closed", "prevented", "won", "lost"),
    ),
    MOVE: ("pending", "paid_out"),
    SUBSCRIPTION: (
        *("incomplete", "trialing", "active", "past_due", "unpaid", "paused"),
        *("incomplete_expired", "canceled"),
    ),
    BILL: ("draft", "open", "uncollectible", "void", "paid"),
    PAID_BY: ("paid",),
    HELD: ("named", "held"),
    LATE: ("late",),
}
_OPEN: Final = ("needs_response", "under_review")
_FAILED: Final = ("failed", "canceled")


class Terms(NamedTuple):
    """What a payment must agree with to be for our offer. `price_minor`: before tax and discounts."""

    price_minor: int
    currency: str


def known_status(kind: str, status: str) -> str:
    """Return a status, if we know where it comes in the order of its kind of object.

    Raises:
        ValueError: we do not.
    """
    if status not in _ORDER[kind]:
        raise ValueError(f"a {kind} with status `{status:.40}` is not known")
    return status


def joined(one: Facts, other: Facts) -> Facts:
    """Return what is known from both."""
    both = {kind: dict(items) for kind, items in one.items()}
    for kind, items in other.items():
        known = both.setdefault(kind, {})
        for key, item in items.items():
            known[key] = item if key not in known else max(known[key], item, key=_rank_in(kind))
    return both


def all_of(facts: Iterable[Facts]) -> Facts:
    """Return what is known from all of these."""
    known: Facts = {}
    for each in facts:
        known = joined(known, each)
    return known


def text_of(facts: Facts) -> str:
    """Return facts as they are stored."""
    return canonical(facts).decode()


def facts_from(text: str) -> Facts:
    """Return the facts that were stored."""
    facts: Facts = json.loads(text)
    return facts


def problem_of(facts: Facts, terms: Terms) -> str | None:
    """Say why what was paid is not what we offered; None: it is, or nothing was paid yet."""
    paid = _paid(facts)
    if paid is None:
        return None
    said = paid["subtotal"], paid["currency"]
    if said == (terms.price_minor, terms.currency):
        return None
    return (
        f"Stripe says {said[0]} {said[1]} (minor units) before tax and discounts, "
        f"the offer was {terms.price_minor} {terms.currency}"
    )


def payment_of(facts: Facts, terms: Terms, *, stops_paid_use: bool = False) -> Payment:
    """Return what a payment has come to. What was paid for something else than our offer is none of ours, and nothing.

    `stops_paid_use`: whether an open dispute stops paid use.
    """
    if problem_of(facts, terms):
        # Neither it nor its refunds and fees: half of it on the books would never add up.
        return Payment()
    paid = _paid(facts)
    moves = [move for move in facts.get(MOVE, {}).values() if move["currency"] == terms.currency]
    disputes = facts.get(DISPUTE, {})
    disputed = any(dispute["status"] in _OPEN for dispute in disputes.values())
    return Payment(
        paid=paid is not None,
        total_minor=0 if paid is None else paid["total"],
        tax_minor=0 if paid is None else paid["tax"],
        refunded_minor=sum(
            refund["amount"]
            for refund in facts.get(REFUND, {}).values()
            if refund["status"] not in _FAILED
        ),
        lost_minor=sum(
            _lost_minor(key, dispute, moves)
            for key, dispute in disputes.items()
            if dispute["status"] == "lost"
        ),
        withdrawn_minor=-sum(move["amount"] for move in moves if move["of"] in disputes),
        fee_minor=sum(move["fee"] for move in moves),
        paid_out_minor=sum(
            move["amount"] - move["fee"] for move in moves if move["status"] == "paid_out"
        ),
        disputed=disputed,
        stops_paid_use=disputed and stops_paid_use,
    )


def went_back(facts: Facts) -> bool:
    """Whether all that was paid has gone back to the buyer, or is on its way, whatever it was paid for."""
    paid = _paid(facts)
    if paid is None:
        return False
    state = payment_of(facts, Terms(paid["subtotal"], paid["currency"]))
    return state.refunded_minor + state.lost_minor >= state.total_minor


def failed(facts: Facts) -> bool:
    """Whether nothing will be paid any more: the session expired, or its payment failed."""
    sessions = facts.get(SESSION, {}).values()
    return any(session["status"] in ("expired", "failed") for session in sessions)


def declined(facts: Facts) -> str | None:
    """Say why a payment that nobody is there for will not come; None: it has come, or still may."""
    intents = facts.get(INTENT, {}).values()
    given_up = (each for each in intents if each["status"] in _FAILED)
    return next((str(each.get("why", each["status"])) for each in given_up), None)


def paid(facts: Facts) -> bool:
    """Whether it was paid, or nothing had to be."""
    return _paid(facts) is not None


def _paid(facts: Facts) -> Item | None:
    """Return the object that says that it was paid: a Checkout Session, or the payment of a top-up."""
    sessions = facts.get(SESSION, {})
    for session in sessions.values():
        if session["status"] == "paid":
            return session
    if sessions:
        return None
    intents = facts.get(INTENT, {}).values()
    return next(
        (each for each in intents if each["status"] == "succeeded" and "total" in each), None
    )


def _lost_minor(key: str, dispute: Item, moves: list[Item]) -> int:
    """Return what a lost dispute took: what was withdrawn for it, or the whole while that is not known."""
    of_this = [move["amount"] for move in moves if move["of"] == key]
    return -sum(of_this) if of_this else int(dispute["amount"])


def _rank_of_subscription(item: Item) -> tuple[bool, int, int, int, bytes]:
    # Its status goes back and forth until it has ended, so the later snapshot stays; within a second, the later period.
    place = _ORDER[SUBSCRIPTION].index(item["status"])
    over = item["status"] in ("incomplete_expired", "canceled")
    return over, item["at"], item.get("start", 0), place, canonical(item)


def _rank_in(kind: str) -> Any:
    order = _ORDER[kind]
    if kind == SUBSCRIPTION:
        return _rank_of_subscription
    if kind == LATE:
        return lambda item: (-item["at"], canonical(item))

    def rank(item: Item) -> tuple[int, int, bytes]:
        # The status decides. Between snapshots of one status the later stays, and of two of one second either, but
        # always the same one.
        return order.index(item["status"]), item.get("at", 0), canonical(item)

    return rank
