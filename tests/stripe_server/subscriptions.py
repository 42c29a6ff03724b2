"""Subscriptions: how they begin, renew, fall behind, recover and end."""

from __future__ import annotations

from typing import Any, Final

from tests.stripe_server import collection, discounts, invoices, periods
from tests.stripe_server.copies import copied
from tests.stripe_server.errors import Json
from tests.stripe_server.lists import at, whole
from tests.stripe_server.world import World

DAY_SECONDS: Final = 86_400
RETRY_SECONDS: Final = 3 * DAY_SECONDS

# What a subscription has and nobody here asks for.
_UNUSED: Final[Json] = {
    "application": None,
    "application_fee_percent": None,
    "billing_cycle_anchor_config": None,
    "billing_mode": {"flexible": {"proration_discounts": "included"}, "type": "flexible"},
    "billing_schedules": [],
    "billing_thresholds": None,
    "collection_method": "charge_automatically",
    "days_until_due": None,
    "default_source": None,
    "default_tax_rates": [],
    "invoice_settings": {"account_tax_ids": None, "issuer": {"type": "self"}},
    "next_pending_invoice_item_invoice": None,
    "on_behalf_of": None,
    "pause_collection": None,
    "payment_settings": {
        "payment_method_options": None,
        "payment_method_types": None,
        "save_default_payment_method": "off",
    },
    "pending_invoice_item_interval": None,
    "pending_setup_intent": None,
    "pending_update": None,
    "schedule": None,
    "test_clock": None,
    "transfer_data": None,
    "trial_settings": {"end_behavior": {"missing_payment_method": "create_invoice"}},
}


def create(
    world: World,
    customer: str,
    bought: list[tuple[Json, int]],
    *,
    trial_days: int | None = None,
    automatic_tax: bool = False,
    **fields: Any,
) -> Json:
    """Make a subscription to prices in quantities; it is `incomplete` until its first invoice."""
    identity, now = f"sub_1{world.ids.letters(23)}", world.now()
    trial_end = now + trial_days * DAY_SECONDS if trial_days else None
    recurring = bought[0][0]["recurring"]
    end = trial_end or periods.period_end(now, recurring, 1)
    world.note(identity).update(anchor=trial_end or now, count=0 if trial_end else 1, pending=[])
    items = [
        create_item(world, identity, price, quantity, (now, end)) for price, quantity in bought
    ]
    made = world.add(
        "subscription",
        identity,
        **{
            **copied(_UNUSED),
            "automatic_tax": {
                "disabled_reason": None,
                "enabled": automatic_tax,
                "liability": {"type": "self"} if automatic_tax else None,
            },
            "billing_cycle_anchor": trial_end or now,
            "cancel_at": None,
            "cancel_at_period_end": False,
            "canceled_at": None,
            "cancellation_details": {"comment": None, "feedback": None, "reason": None},
            "currency": bought[0][0]["currency"],
            "customer": customer,
            "default_payment_method": None,
            "description": None,
            "discounts": [],
            "ended_at": None,
            "items": whole(items, f"/v1/subscription_items?subscription={identity}"),
            "latest_invoice": None,
            "livemode": world.livemode,
            "metadata": {},
            "start_date": now,
            "status": "trialing" if trial_end else "incomplete",
            "trial_end": trial_end,
            "trial_start": now if trial_end else None,
            **fields,
        },
    )
    world.emit("customer.subscription.created", made)
    return made


def create_item(
    world: World, subscription: str, price: Json, quantity: int, period: tuple[int, int]
) -> Json:
    return {
        "id": world.ids.make("si"),
        "object": "subscription_item",
        "billing_thresholds": None,
        "created": world.now(),
        "current_period_end": period[1],
        "current_period_start": period[0],
        "discounts": [],
        "metadata": {},
        "price": dict(price),
        "quantity": quantity,
        "subscription": subscription,
        "tax_rates": [],
    }


def items_of(subscription: Json) -> list[Json]:
    items: list[Json] = subscription["items"]["data"]
    return items


def period_of(subscription: Json) -> tuple[int, int]:
    """The present period, in seconds since 1970; it is kept on the items."""
    first = items_of(subscription)[0]
    return first["current_period_start"], first["current_period_end"]


def method_of(world: World, subscription: Json) -> Json | None:
    """The card that renewals use: the subscription's own, or the customer's."""
    customer = world.get(subscription["customer"], "customer")
    usual = at(customer, "invoice_settings.default_payment_method")
    return world.find(subscription["default_payment_method"] or usual, "payment_method")


def regular_lines(world: World, subscription: Json) -> list[Json]:
    """The lines of the present period: what each item costs, in advance."""
    lines = []
    for item in items_of(subscription):
        price, quantity = item["price"], item["quantity"]
        product = world.get(price["product"], "product")["name"]
        trial = subscription["status"] == "trialing"
        amount = 0 if trial else price["unit_amount"] * quantity
        text = f"Trial period for {product}" if trial else described(product, price, quantity)
        period = (item["current_period_start"], item["current_period_end"])
        lines.append(invoices.line(world, item, amount, period, text))
    return lines


def described(product: str, price: Json, quantity: int) -> str:
    units = price["unit_amount"]
    return f"{quantity} × {product} (at {units} {price['currency']} / {_interval(price)})"  # noqa: RUF001 - as Stripe writes it


def _interval(price: Json) -> str:
    return str(price["recurring"]["interval"])


def reduction(world: World, subscription: Json, lines: list[Json]) -> int:
    """Return how many minor units the subscription's discount takes off these lines now."""
    if not subscription["discounts"]:
        return 0
    discount = world.get(subscription["discounts"][0], "discount")
    coupon = world.get(discount["source"]["coupon"], "coupon")
    amounts = [(at(each, "pricing.price_details.product"), each["amount"]) for each in lines]
    return discounts.reduction(coupon, sum(discounts.eligible(world, coupon, amounts)))


def _end_discount(world: World, subscription: Json) -> None:
    """Take away a discount that is over: one that counts once was for the first invoice."""
    for identity in subscription["discounts"]:
        discount = world.get(identity, "discount")
        coupon = world.find(discount["source"]["coupon"], "coupon")
        late = discount["end"] is not None and world.now() >= discount["end"]
        if late or coupon is None or coupon["duration"] == "once":
            world.change(subscription, discounts=[])


# --- its life -----------------------------------------------------------------------------------


def first_invoice(
    world: World, subscription: Json, extra: list[Json], *, discount: int, tax: int
) -> Json:
    """Make the first invoice. Its own period has no length: it bills in advance."""
    start = period_of(subscription)[0]
    lines = [*extra, *regular_lines(world, subscription)]
    return invoices.create(
        world,
        subscription,
        lines,
        "subscription_create",
        (start, start),
        discount=discount,
        tax=tax,
    )


def activate(world: World, subscription: Json) -> None:
    """The first invoice is paid."""
    if subscription["status"] == "incomplete":
        world.update("customer.subscription.updated", subscription, status="active")


def begin_period(world: World, subscription: Json) -> tuple[int, int]:
    """Let the next period begin and return the former one.

    Raises:
        ValueError: the clock has not come to the end of the present one.
    """
    former, note = period_of(subscription), world.note(subscription["id"])
    if world.now() < former[1]:
        raise ValueError(f"it renews at {former[1]}, it is {world.now()}: step the clock first")
    count = note["count"] + 1
    end = periods.period_end(note["anchor"], items_of(subscription)[0]["price"]["recurring"], count)
    note["count"] = count
    before = [dict(item) for item in items_of(subscription)]
    for item in items_of(subscription):
        item.update(current_period_start=former[1], current_period_end=end)
    note["former_items"] = {**subscription["items"], "data": before}
    return former


def renewal_invoice(world: World, subscription: Json, *, tax: int = 0) -> Json:
    """Begin the next period and bill it, with the prorations that have waited for it."""
    former = begin_period(world, subscription)
    note = world.note(subscription["id"])
    status = "active" if subscription["status"] == "trialing" else subscription["status"]
    previous = world.change(subscription, status=status)
    previous["items"] = note.pop("former_items")
    regular = regular_lines(world, subscription)
    lines = [*note["pending"], *regular]
    note["pending"] = []
    _end_discount(world, subscription)
    off = reduction(world, subscription, regular)
    before = subscription["latest_invoice"]
    made = invoices.create(
        world, subscription, lines, "subscription_cycle", former, discount=off, tax=tax
    )
    world.emit(
        "customer.subscription.updated", subscription, {**previous, "latest_invoice": before}
    )
    return made


def renew(world: World, subscription: Json, *, fee: int | None = None, tax: int = 0) -> Json | None:
    """Renew a subscription whose period is over, and take the money.

    The answer is the invoice; None where it was to end at the period's end, and has.
    """
    if ends_now(world, subscription):
        return None
    made = renewal_invoice(world, subscription, tax=tax)
    collection.pay(world, made, method_of(world, subscription), fee)
    recovered(world, subscription)
    return made


def fail_renewal(world: World, subscription: Json, code: str) -> Json:
    """Renew a subscription whose period is over, and be declined: it is past due.

    Where the customer's credit covers it, nothing is declined: the invoice is paid.
    """
    made = renewal_invoice(world, subscription)
    if made["amount_due"] == 0:
        collection.pay(world, made, None)
        return made
    method = method_of(world, subscription)
    if method is None:
        raise ValueError(f"{subscription['id']} has no card that could decline")
    collection.fail(world, made, method, code, world.now() + RETRY_SECONDS)
    world.update("customer.subscription.updated", subscription, status="past_due")
    return made


def recovered(world: World, subscription: Json) -> None:
    """A payment came: the subscription is active, if nothing else is owed."""
    if subscription["status"] in {"past_due", "unpaid", "incomplete"}:
        world.update("customer.subscription.updated", subscription, status="active")


def cancel_at_end(world: World, subscription: Json, *, wanted: bool, reason: Json) -> None:
    """Let a subscription end with its period, or let it go on after all."""
    fields: Json = {
        "cancel_at_period_end": wanted,
        "cancel_at": period_of(subscription)[1] if wanted else None,
        "canceled_at": world.now() if wanted else None,
        "cancellation_details": reason,
    }
    world.update("customer.subscription.updated", subscription, **fields)


def ends_now(world: World, subscription: Json) -> bool:
    """End a subscription that was to end about now; say whether it did."""
    ends = subscription["cancel_at"]
    if ends is None:
        return False
    if world.now() < ends:
        raise ValueError(f"it ends at {ends}, it is {world.now()}: step the clock first")
    end(world, subscription, at_time=ends)
    return True


def end(
    world: World,
    subscription: Json,
    *,
    at_time: int | None = None,
    reason: str = "cancellation_requested",
) -> Json:
    """End a subscription: it gives nothing back by itself."""
    details = {**subscription["cancellation_details"]}
    details["reason"] = details["reason"] or reason
    ended = world.now() if at_time is None else at_time
    world.change(
        subscription,
        canceled_at=subscription["canceled_at"] or ended,
        cancellation_details=details,
        ended_at=ended,
        status="canceled",
    )
    world.note(subscription["id"])["pending"] = []
    world.emit("customer.subscription.deleted", subscription)
    return subscription
