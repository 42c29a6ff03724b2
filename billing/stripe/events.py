"""What an event of Stripe says, as our own values: read from its bytes, never from objects of a library.

Which object it is about counts, not the event's name: `refund.created`, `refund.updated` and `charge.refund.updated`
all show a refund as it was then. Two names add something: a failed payment does not show in its session.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from billing.stripe.facts import DISPUTE, INTENT, MOVE, REFUND, SESSION, Facts, known_status
from billing.stripe.values import PURCHASE_KEY
from billing.stripe.values import id_in as _id
from billing.stripe.values import instant_in as _instant
from billing.stripe.values import minor_in as _minor
from billing.stripe.values import purchase_in as _purchase
from billing.stripe.values import text_in as _text

__all__ = [
    "KIND_KEY",
    "PURCHASE_KEY",
    "TOP_UP",
    "Event",
    "Heard",
    "heard_of",
    "move_of",
    "parsed",
    "related",
]

KIND_KEY: Final = "comptroller_kind"
TOP_UP: Final = "top_up"
UNREADABLE: Final = (
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    OverflowError,
    RecursionError,
)
"""What reading a payload raises that Stripe did not write."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event, as its bytes say. `object`: the snapshot it carries; None in a thin event, which names it alone."""

    id: str
    type: str
    created: datetime
    live: bool
    account: str | None
    api_version: str | None
    object: Mapping[str, Any] | None

    @property
    def customer(self) -> str | None:
        """Whom the snapshot is about, where it says so: what is to be erased with them."""
        about = self.object or {}
        named = about.get("id") if about.get("object") == "customer" else about.get("customer")
        return named if isinstance(named, str) and named.isprintable() else None


@dataclass(frozen=True, slots=True)
class Heard:
    """What was heard of a payment: under which of Stripe's ids it is known, and what of its objects.

    `intent`: the PaymentIntent, or the subscription, that a Checkout Session led to, or what has paid an invoice;
    `purchase`: what our own metadata says it is for.
    """

    payment: str
    facts: Facts
    intent: str | None = None
    purchase: str | None = None
    customer: str | None = None


def parsed(payload: bytes) -> Event:
    """Return what an event's bytes say.

    Raises:
        ValueError: they are no event of Stripe's.
    """
    try:
        content = json.loads(payload)
        if content["object"] not in ("event", "v2.core.event"):
            raise ValueError(f"it is a `{content['object']}`, not an event")
        thin = content["object"] != "event"
        return Event(
            id=_text(content["id"]),
            type=_text(content["type"]),
            created=_instant(content["created"]),
            live=content["livemode"] is True,
            account=_id(content.get("account") or content.get("context")),
            api_version=_id(content.get("api_version")),
            object=None if thin else dict(content["data"]["object"]),
        )
    except UNREADABLE as error:
        raise ValueError(f"it is no event of Stripe's: {error!r:.200}") from error


def related(payload: bytes) -> tuple[str, str]:
    """Return the kind and the id of the object that a thin event is about.

    Raises:
        ValueError: it names none.
    """
    try:
        named = json.loads(payload)["related_object"]
        return _text(named["type"]), _text(named["id"])
    except UNREADABLE as error:
        raise ValueError("the thin event names no related object") from error


def heard_of(about: Mapping[str, Any], event_type: str, at: int) -> Heard | None:
    """Return what an object says of a payment; None: it is of no kind that we follow.

    Args:
        about: the object, as JSON.
        event_type: the event's name.
        at: when it was as it is here, in seconds since 1970.

    Raises:
        ValueError: it lacks what such an object has.
    """
    from billing.stripe.plan_events import READERS as OF_PLANS  # noqa: PLC0415 - it says what it read as we do

    kind = str(about.get("object"))
    reader = _READERS.get(kind) or OF_PLANS.get(kind)
    if reader is None:
        return None
    try:
        return reader(about, event_type, at)
    except UNREADABLE as error:
        raise ValueError(f"the {about['object']} cannot be read: {error!r:.200}") from error


def _session(about: Mapping[str, Any], event_type: str, at: int) -> Heard | None:
    if about["mode"] not in ("payment", "subscription"):
        return None
    item = {
        "status": _session_status(about, event_type),
        "subtotal": _minor(about["amount_subtotal"]),
        "total": _minor(about["amount_total"]),
        "tax": _minor((about.get("total_details") or {}).get("amount_tax") or 0),
        "currency": _text(about["currency"]),
        "at": at,
    }
    return Heard(
        payment=_text(about["id"]),
        facts={SESSION: {_text(about["id"]): item}},
        intent=_id(about.get("payment_intent") or about.get("subscription")),
        purchase=_purchase(about),
        customer=_id(about.get("customer")),
    )


def _session_status(about: Mapping[str, Any], event_type: str) -> str:
    # A session that asks for no payment is open all the same until its buyer completes it; and a pack that costs
    # something although nothing is asked for is to be paid later.
    is_free = about["payment_status"] == "no_payment_required" and (
        about["mode"] == "subscription" or not about["amount_total"]
    )
    if about["status"] == "complete" and (is_free or about["payment_status"] == "paid"):
        return "paid"
    if event_type == "checkout.session.async_payment_failed":
        return "failed"
    return known_status(SESSION, about["status"])


def _intent(about: Mapping[str, Any], _: str, at: int) -> Heard:
    status = about["status"] if about["status"] in ("canceled", "succeeded") else "pending"
    item: dict[str, Any] = {"status": status, "at": at}
    if (about.get("metadata") or {}).get(KIND_KEY) == TOP_UP:
        declined = about.get("last_payment_error")
        if about["status"] == "requires_payment_method" and declined:
            # Nobody is there to try another card.
            item |= {"status": "failed", "why": _text(declined.get("code") or declined["type"])}
        # What a session has led to is told by the session: it knows of taxes and discounts.
        item |= {
            "subtotal": _minor(about["amount"]),
            "total": _minor(about["amount_received"]),
            "tax": 0,
            "currency": _text(about["currency"]),
        }
    return Heard(
        payment=_text(about["id"]),
        facts={INTENT: {_text(about["id"]): item}},
        purchase=_purchase(about),
    )


def _refund(about: Mapping[str, Any], _: str, at: int) -> Heard | None:
    item = {
        "status": known_status(REFUND, about["status"] or "succeeded"),
        "amount": _minor(about["amount"]),
        "currency": _text(about["currency"]),
        "at": at,
    }
    return _under_payment(about, {REFUND: {_text(about["id"]): item}})


def _dispute(about: Mapping[str, Any], _: str, at: int) -> Heard | None:
    item = {
        "status": known_status(DISPUTE, about["status"]),
        "amount": _minor(about["amount"]),
        "currency": _text(about["currency"]),
        "at": at,
    }
    facts: Facts = {DISPUTE: {_text(about["id"]): item}}
    moves = about.get("balance_transactions") or ()
    if moves:
        facts[MOVE] = {_text(move["id"]): move_of(move, _text(about["id"])) for move in moves}
    return _under_payment(about, facts)


def move_of(move: Mapping[str, Any], of: str, *, paid_out: bool = False) -> dict[str, Any]:
    """Return what matters of a balance transaction. `of`: what it came of; `paid_out`: whether a payout took it."""
    return {
        "status": "paid_out" if paid_out else "pending",
        "of": of,
        "amount": int(move["amount"]),
        "fee": int(move["fee"]),
        "currency": _text(move["currency"]),
    }


def _under_payment(about: Mapping[str, Any], facts: Facts) -> Heard | None:
    intent = _id(about.get("payment_intent"))
    # Charges without a PaymentIntent are not of our making.
    return None if intent is None else Heard(payment=intent, facts=facts)


_READERS: Final[Mapping[str, Callable[[Mapping[str, Any], str, int], Heard | None]]] = {
    "checkout.session": _session,
    "payment_intent": _intent,
    "refund": _refund,
    "dispute": _dispute,
}
