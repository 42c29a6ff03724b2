"""Coupons, the promotion codes that stand for them, and the discounts that they become."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from tests.stripe_server import periods
from tests.stripe_server.errors import Json, invalid, missing_parameter
from tests.stripe_server.expansion import part
from tests.stripe_server.params import Params
from tests.stripe_server.routes import Call, route
from tests.stripe_server.world import World


@route("POST", "/v1/coupons")
def post_coupon(call: Call) -> Json:
    params, world = call.params, call.world
    percent = params.text("percent_off")
    amount = params.integer("amount_off")
    if (percent is None) == (amount is None):
        message = "You must pass either `percent_off` or `amount_off`, and not both."
        raise invalid(message, param="percent_off")
    if amount is not None and not params.text("currency"):
        raise missing_parameter("currency")
    identity = params.text("id") or world.ids.coupon()
    if identity in world.objects:
        raise invalid("Coupon already exists.", code="resource_already_exists", param="id")
    made = world.add(
        "coupon",
        identity,
        amount_off=amount,
        currency=params.text("currency"),
        duration=params.text("duration") or "once",
        duration_in_months=params.integer("duration_in_months"),
        livemode=world.livemode,
        max_redemptions=params.integer("max_redemptions"),
        metadata=params.metadata(),
        name=params.text("name"),
        percent_off=float(percent) if percent is not None else None,
        redeem_by=params.integer("redeem_by"),
        times_redeemed=0,
        valid=True,
    )
    if products := params.branch("applies_to").texts("products"):
        world.note(identity)["products"] = products
    world.emit("coupon.created", made)
    return made


@route("POST", "/v1/coupons/{coupon}")
def update_coupon(call: Call) -> Json:
    coupon = call.world.get(call.id, "coupon")
    fields: Json = {}
    if "name" in call.params:
        fields["name"] = call.params.text("name")
    if "metadata" in call.params:
        fields["metadata"] = call.params.metadata(coupon["metadata"])
    return call.world.update("coupon.updated", coupon, **fields)


@route("DELETE", "/v1/coupons/{coupon}")
def delete_coupon(call: Call) -> Json:
    return call.world.delete(call.world.get(call.id, "coupon"))


@route("POST", "/v1/promotion_codes")
def post_promotion_code(call: Call) -> Json:
    params, world = call.params, call.world
    promotion = params.branch("promotion")
    coupon = world.get(promotion.demand("coupon"), "coupon", param="promotion[coupon]")
    code = params.text("code") or world.ids.promotion_code()
    if any(
        each["active"] and each["code"].lower() == code.lower()
        for each in world.every("promotion_code")
    ):
        message = "An active promotion code with the same code already exists."
        raise invalid(message, code="resource_already_exists", param="code")
    active = params.flag("active")
    limits = params.branch("restrictions")
    made = world.add(
        "promotion_code",
        f"promo_1{world.ids.letters(23)}",
        active=True if active is None else active,
        code=code,
        customer=params.text("customer"),
        expires_at=params.integer("expires_at"),
        livemode=world.livemode,
        max_redemptions=params.integer("max_redemptions"),
        metadata=params.metadata(),
        promotion={"coupon": coupon["id"], "type": "coupon"},
        restrictions={
            "first_time_transaction": bool(limits.flag("first_time_transaction")),
            "minimum_amount": limits.integer("minimum_amount"),
            "minimum_amount_currency": limits.text("minimum_amount_currency"),
        },
        times_redeemed=0,
    )
    world.emit("promotion_code.created", made)
    return made


@route("POST", "/v1/promotion_codes/{promotion_code}")
def update_promotion_code(call: Call) -> Json:
    code = call.world.get(call.id, "promotion_code")
    fields: Json = {}
    if (active := call.params.flag("active")) is not None:
        fields["active"] = active
    if "metadata" in call.params:
        fields["metadata"] = call.params.metadata(code["metadata"])
    return call.world.update("promotion_code.updated", code, **fields)


# --- what they do to a sum ----------------------------------------------------------------------


def chosen(world: World, params: Params) -> list[Json]:
    """Return the discounts that a request names: coupon and promotion code, each an id or None.

    Raises:
        Refusal: it names one that there is not, or that may not be redeemed any more.
    """
    found = []
    for each in params.branches("discounts"):
        if named := each.text("promotion_code"):
            where = each.path("promotion_code")
            code = world.get(named, "promotion_code", param=where)
            found.append(redeemable(world, code, where))
        elif named := each.text("coupon"):
            coupon = world.get(named, "coupon", param=each.path("coupon"))
            check_coupon(world, coupon, each.path("coupon"))
            found.append({"coupon": named, "promotion_code": None})
    return found


def redeemable(world: World, code: Json, where: str) -> Json:
    """Return the discount of a promotion code that may be redeemed now."""
    limit, expires = code["max_redemptions"], code["expires_at"]
    spent = limit is not None and code["times_redeemed"] >= limit
    late = expires is not None and world.now() >= expires
    if spent or late or not code["active"]:
        message = "This promotion code cannot be redeemed because it is not active."
        raise invalid(message, code="promotion_code_not_active", param=where)
    coupon = world.get(code["promotion"]["coupon"], "coupon", param=where)
    check_coupon(world, coupon, where)
    return {"coupon": coupon["id"], "promotion_code": code["id"]}


def check_coupon(world: World, coupon: Json, where: str) -> None:
    late = coupon["redeem_by"] is not None and world.now() >= coupon["redeem_by"]
    if late or not coupon["valid"]:
        message = f"Coupon {coupon['id']} is used up or expired."
        raise invalid(message, code="coupon_expired", param=where)


def eligible(world: World, coupon: Json, amounts: list[tuple[str, int]]) -> list[int]:
    """Return the amounts that a coupon applies to, and 0 for those of other products."""
    products = world.note(coupon["id"]).get("products")
    return [amount if products is None or name in products else 0 for name, amount in amounts]


def check_restrictions(world: World, applied: list[Json], lines: list[Json], customer: Any) -> None:
    """Hold discounts against what is bought, and by whom.

    Raises:
        Refusal: a coupon is of another currency, or its code is for other people or larger sums.
    """
    for each in applied:
        coupon = world.get(each["coupon"], "coupon")
        currency = lines[0]["currency"] if lines else None
        if coupon["currency"] not in {None, currency}:
            message = f"The coupon {coupon['id']} is in {coupon['currency']}, not in {currency}."
            raise invalid(message, param="discounts")
        code = world.find(each["promotion_code"], "promotion_code")
        if code is None:
            continue
        limits, total = code["restrictions"], sum(line["amount_subtotal"] for line in lines)
        paid = any(
            charge["status"] == "succeeded" and charge["customer"] == customer
            for charge in world.every("charge")
        )
        if (
            code["customer"] not in {None, customer}
            or (limits["minimum_amount"] or 0) > total
            or (limits["first_time_transaction"] and customer and paid)
        ):
            message = "This promotion code cannot be redeemed for this purchase."
            raise invalid(message, code="promotion_code_restricted", param="discounts")


def reduction(coupon: Json, amount: int) -> int:
    """Return how many minor units a coupon takes off an amount; never more than there is."""
    if coupon["percent_off"] is not None:
        share = Fraction(str(coupon["percent_off"])) / 100
        return min(amount, int(amount * share + Fraction(1, 2)))
    return min(amount, int(coupon["amount_off"]))


def redeem(world: World, applied: list[Json]) -> None:
    """Count that discounts were used, and close what may not be used once more."""
    for each in applied:
        coupon = world.get(each["coupon"], "coupon")
        times = coupon["times_redeemed"] + 1
        limit = coupon["max_redemptions"]
        world.change(coupon, times_redeemed=times, valid=limit is None or times < limit)
        if code := world.find(each["promotion_code"], "promotion_code"):
            times = code["times_redeemed"] + 1
            limit = code["max_redemptions"]
            active = code["active"] and (limit is None or times < limit)
            world.update("promotion_code.updated", code, times_redeemed=times, active=active)


def discount_of(world: World, applied: Json, **of: str | None) -> Json:
    """Make the Discount object of a session, an invoice or a subscription."""
    coupon = world.get(applied["coupon"], "coupon")
    months = coupon["duration_in_months"] if coupon["duration"] == "repeating" else None
    made = world.add(
        "discount",
        world.ids.make("di"),
        checkout_session=of.get("checkout_session"),
        customer=of.get("customer"),
        end=periods.after_months(world.now(), months) if months else None,
        invoice=of.get("invoice"),
        invoice_item=None,
        promotion_code=applied["promotion_code"],
        source={"coupon": applied["coupon"], "type": "coupon"},
        start=world.now(),
        subscription=of.get("subscription"),
        subscription_item=None,
    )
    del made["created"]
    return made


@part("coupon", "applies_to")
def products_of(world: World, coupon: Json) -> Json:
    return {"products": world.note(coupon["id"]).get("products", [])}
