"""What events of subscriptions say, as our own values: snapshots of subscriptions, their invoices, and who paid them.

A subscription and its invoices are known under the subscription's id, so that whoever hears of either waits for the
other. What was paid for an invoice names only that: it is known under the invoice's id.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from billing.stripe.events import Heard
from billing.stripe.facts import BILL, HELD, LATE, PAID_BY, SUBSCRIPTION, Facts, known_status
from billing.stripe.plan_facts import GIVES
from billing.stripe.values import id_in, minor_in, purchase_in, seconds_in, signed_in, text_in

PLAN_KEY: Final = "comptroller_plan"
"""The key in the metadata of Stripe's prices under which they name the plan that they are for."""


def _subscription(about: Mapping[str, Any], _: str, at: int) -> Heard | None:
    purchase = purchase_in(about)
    if purchase is None:
        return None  # not of our making
    identity, item = text_in(about["id"]), about["items"]["data"][0]
    price, invoice = item["price"], id_in(about.get("latest_invoice"))
    cancel_at = about.get("cancel_at")
    snapshot = {
        "status": known_status(SUBSCRIPTION, about["status"]),
        "id": identity,
        "plan": str((price.get("metadata") or {}).get(PLAN_KEY, "")),
        "start": seconds_in(item["current_period_start"]),
        "end": seconds_in(item["current_period_end"]),
        "cancel_at": None if cancel_at is None else seconds_in(cancel_at),
        "invoice": invoice,
        "at": at,
    }
    facts: Facts = {SUBSCRIPTION: {identity: snapshot}}
    held = {
        "status": "held" if about["status"] in GIVES else "named",
        "of": identity if about["status"] in GIVES else "",
        "id": text_in(price["id"]),
        "plan": snapshot["plan"],
        "price": minor_in(price["unit_amount"] or 0),
        "start": snapshot["start"],
    }
    facts[HELD] = {f"{held['status']}:{held['start']}:{held['id']}": held}
    if about["status"] == "past_due":
        facts[LATE] = {invoice or "": {"status": "late", "at": at}}
    return Heard(identity, facts, purchase=purchase, customer=id_in(about.get("customer")))


def _invoice(about: Mapping[str, Any], _: str, at: int) -> Heard | None:
    details = (about.get("parent") or {}).get("subscription_details") or {}
    purchase = purchase_in(details)
    if purchase is None or about.get("id") is None:
        return None  # not of our making, or only announced
    paid, net = minor_in(about["amount_paid"]), about.get("total_excluding_tax")
    tax = 0 if net is None else signed_in(about["total"]) - signed_in(net)
    bill = {
        "status": known_status(BILL, about["status"]),
        "total": paid,
        "tax": min(max(tax, 0), paid),
        "net": signed_in(about["total"] if net is None else net),
        "currency": text_in(about["currency"]),
        "lines": [_line(line) for line in about["lines"]["data"]],
        "at": at,
    }
    return Heard(
        id_in(details["subscription"]) or "",
        {BILL: {text_in(about["id"]): bill}},
        purchase=purchase,
        customer=id_in(about.get("customer")),
    )


def shows_few_lines(about: Mapping[str, Any]) -> bool:
    """Whether an object is an invoice that has more lines than it shows: Stripe shows ten."""
    lines = about.get("lines") if about.get("object") == "invoice" else None
    return isinstance(lines, Mapping) and lines.get("has_more") is True


def _line(line: Mapping[str, Any]) -> list[Any]:
    price = ((line.get("pricing") or {}).get("price_details") or {}).get("price")
    period = line["period"]
    span = seconds_in(period["start"]), seconds_in(period["end"])
    return [signed_in(line["amount"]), *span, id_in(price)]


def _invoice_payment(about: Mapping[str, Any], _: str, at: int) -> Heard | None:
    invoice = id_in(about["invoice"])
    intent = id_in(about["payment"].get("payment_intent"))
    if about["status"] != "paid" or intent is None or invoice is None:
        return None
    return Heard(invoice, {PAID_BY: {intent: {"status": "paid", "at": at}}})


READERS: Final[Mapping[str, Callable[[Mapping[str, Any], str, int], Heard | None]]] = {
    "subscription": _subscription,
    "invoice": _invoice,
    "invoice_payment": _invoice_payment,
}
