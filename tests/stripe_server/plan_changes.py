"""A subscription changes its price or quantity: what is unused is credited, what is left billed."""

from __future__ import annotations

from fractions import Fraction

from tests.stripe_server import collection, invoices, periods, subscriptions
from tests.stripe_server.errors import Json, Refusal
from tests.stripe_server.world import World


def change(
    world: World,
    subscription: Json,
    items: list[Json],
    behavior: str,
    *,
    at_time: int | None = None,
) -> Json | None:
    """Give a subscription other items; the answer is the invoice, where one is made at once.

    `behavior` is Stripe's proration_behavior. Another interval begins a new period now and is
    always billed now.
    """
    former = [dict(each) for each in subscriptions.items_of(subscription)]
    now = world.now() if at_time is None else at_time
    moved = _interval(former[0]) != _interval(items[0])
    start, end = subscriptions.period_of(subscription)
    left = periods.part_left(now, start, end)
    lines: list[Json] = []
    if behavior != "none":
        lines = _credits(world, subscription, former, items, left, (now, end))
    if moved:
        _restart(world, subscription, items)
    elif behavior != "none":
        lines += _debits(world, former, items, left, (now, end))
    previous = _put(world, subscription, items)
    if moved:
        # What is due now are the whole new periods, less what is unused.
        lines += subscriptions.regular_lines(world, subscription)
    made = None
    if lines and (moved or behavior == "always_invoice"):
        before = subscription["latest_invoice"]
        pending = world.note(subscription["id"])["pending"]
        made = invoices.create(
            world, subscription, [*pending, *lines], "subscription_update", (now, now)
        )
        world.note(subscription["id"])["pending"] = []
        previous["latest_invoice"] = before
    else:
        world.note(subscription["id"])["pending"] += lines
    world.emit("customer.subscription.updated", subscription, previous)
    if made:
        _collect(world, subscription, made)
    return made


def credit_rest(world: World, subscription: Json, *, invoiced: bool) -> None:
    """Give back what is unused of a subscription that ends now: as credit of the customer's.

    What is not invoiced now waits for an invoice that will not come.
    """
    start, end = subscriptions.period_of(subscription)
    now = world.now()
    items = subscriptions.items_of(subscription)
    left = periods.part_left(now, start, end)
    pending = world.note(subscription["id"])["pending"]
    pending += _credits(world, subscription, items, [], left, (now, end))
    if invoiced and pending:
        made = invoices.create(world, subscription, pending, "subscription_update", (start, now))
        collection.pay(world, made, subscriptions.method_of(world, subscription))


def _collect(world: World, subscription: Json, made: Json) -> None:
    """Take what the change costs. A card that declines leaves the subscription past due."""
    method = subscriptions.method_of(world, subscription)
    behaviour = world.note(method["id"]).get("behaviour", "ok") if method else "ok"
    if method is None or behaviour == "ok" or made["amount_due"] == 0:
        collection.pay(world, made, method)
        return
    collection.fail(world, made, method, behaviour, world.now() + subscriptions.RETRY_SECONDS)
    world.update("customer.subscription.updated", subscription, status="past_due")


def _put(world: World, subscription: Json, items: list[Json]) -> Json:
    listed = {**subscription["items"], "data": items}
    anchor = world.note(subscription["id"])["anchor"]
    return world.change(
        subscription,
        billing_cycle_anchor=anchor,
        currency=items[0]["price"]["currency"],
        items=listed,
    )


def _restart(world: World, subscription: Json, items: list[Json]) -> None:
    now = world.now()
    world.note(subscription["id"]).update(anchor=now, count=1)
    end = periods.period_end(now, items[0]["price"]["recurring"], 1)
    for each in items:
        each.update(current_period_start=now, current_period_end=end)


def _credits(
    world: World,
    subscription: Json,
    former: list[Json],
    items: list[Json],
    left: Fraction,
    period: tuple[int, int],
) -> list[Json]:
    kept = {each["id"]: each for each in items}
    credited = {"invoice": subscription["latest_invoice"], "invoice_line_items": []}
    if invoice := world.find(subscription["latest_invoice"], "invoice"):
        lines = world.note(invoice["id"])["lines"]
        credited["invoice_line_items"] = [each["id"] for each in lines if each["amount"] > 0]
    return [
        _line(world, item, -_cost(item, left), period, "Unused time on", credited)
        for item in former
        if _differs(item, kept.get(item["id"]))
    ]


def _debits(
    world: World, former: list[Json], items: list[Json], left: Fraction, period: tuple[int, int]
) -> list[Json]:
    held = {each["id"]: each for each in former}
    return [
        _line(world, item, _cost(item, left), period, "Remaining time on", None)
        for item in items
        if _differs(item, held.get(item["id"]))
    ]


def _line(
    world: World,
    item: Json,
    amount: int,
    period: tuple[int, int],
    what: str,
    credited: Json | None,
) -> Json:
    product = world.get(item["price"]["product"], "product")["name"]
    text = f"{what} {product}"
    made = f"ii_1{world.ids.letters(23)}"
    return invoices.line(world, item, amount, period, text, invoice_item=made, credited=credited)


def _cost(item: Json, left: Fraction) -> int:
    return periods.half_up(item["price"]["unit_amount"] * item["quantity"] * left)


def _differs(item: Json, other: Json | None) -> bool:
    return other is None or (
        (item["price"]["id"], item["quantity"]) != (other["price"]["id"], other["quantity"])
    )


def _interval(item: Json) -> tuple[str, int]:
    recurring = item["price"]["recurring"]
    if recurring is None:
        message = "This field only accepts prices with `type=recurring`."
        raise Refusal(400, "invalid_request_error", message, param="items[0][price]")
    return recurring["interval"], recurring["interval_count"]
