"""The endpoints of subscriptions."""

from __future__ import annotations

from tests.stripe_server import collection, discounts, plan_changes, subscriptions
from tests.stripe_server.copies import copied
from tests.stripe_server.errors import Json, Refusal, invalid, missing_parameter
from tests.stripe_server.lists import page
from tests.stripe_server.params import Params
from tests.stripe_server.routes import Call, route
from tests.stripe_server.world import World

_ONE = "/v1/subscriptions/{subscription_exposed_id}"


def recurring_price(world: World, params: Params) -> Json:
    """Return the price that an item names.

    Raises:
        Refusal: there is none, or it is not active, or it is paid once.
    """
    where = params.path("price")
    price = world.get(params.demand("price"), "price", param=where)
    if not price["active"]:
        message = "The price specified is inactive. This field only accepts active prices."
        raise invalid(message, param=where)
    if price["type"] != "recurring":
        message = (
            "The price specified is set to `type=one_time` but this field only accepts prices "
            "with `type=recurring`."
        )
        raise invalid(message, param=where)
    return price


@route("POST", "/v1/subscriptions")
def post_subscription(call: Call) -> Json:
    params, world = call.params, call.world
    customer = world.get(params.demand("customer"), "customer", param="customer")
    bought = []
    for each in params.branches("items"):
        quantity = each.integer("quantity")
        bought.append((recurring_price(world, each), 1 if quantity is None else quantity))
    if not bought:
        raise missing_parameter("items")
    applied = discounts.chosen(world, params)
    named = params.text("default_payment_method")
    usual = customer["invoice_settings"]["default_payment_method"]
    trial = params.integer("trial_period_days")
    if not (named or usual or trial):
        message = (
            "This customer has no attached payment source or default payment method. Please "
            "consider adding a default payment method."
        )
        raise invalid(message, code="resource_missing")
    if named:
        world.get(named, "payment_method", param="default_payment_method")
    made = subscriptions.create(
        world,
        customer["id"],
        bought,
        trial_days=trial,
        automatic_tax=bool(params.branch("automatic_tax").flag("enabled")),
        default_payment_method=named,
        description=params.text("description"),
        metadata=params.metadata(),
    )
    _discount(world, made, applied)
    _collect_first(world, made, params.text("payment_behavior") or "allow_incomplete")
    return made


def _discount(world: World, made: Json, applied: list[Json]) -> None:
    if applied:
        discount = discounts.discount_of(
            world, applied[0], customer=made["customer"], subscription=made["id"]
        )
        world.change(made, discounts=[discount["id"]])
        discounts.redeem(world, applied)


def _collect_first(world: World, made: Json, behavior: str) -> None:
    off = subscriptions.reduction(world, made, subscriptions.regular_lines(world, made))
    invoice = subscriptions.first_invoice(world, made, [], discount=off, tax=0)
    method = subscriptions.method_of(world, made)
    behaviour = world.note(method["id"]).get("behaviour", "ok") if method else "ok"
    if behavior == "default_incomplete" and invoice["amount_due"]:
        return
    if method is None or behaviour == "ok" or invoice["amount_due"] == 0:
        collection.pay(world, invoice, method)
        subscriptions.activate(world, made)
        return
    error = collection.fail(world, invoice, method, behaviour, None)
    if behavior == "error_if_incomplete":
        del world.objects[made["id"]]
        raise Refusal(402, "card_error", error["message"], code=error["code"])


@route("POST", _ONE)
def update_subscription(call: Call) -> Json:
    params, world = call.params, call.world
    made = world.get(call.id, "subscription")
    if made["status"] == "canceled":
        message = "A canceled subscription can only update its cancellation_details and metadata."
        raise invalid(message, param="id")
    fields: Json = {}
    if "metadata" in params:
        fields["metadata"] = params.metadata(made["metadata"])
    if "default_payment_method" in params:
        named = params.demand("default_payment_method")
        method = world.get(named, "payment_method", param="default_payment_method")
        fields["default_payment_method"] = method["id"]
    if "description" in params:
        fields["description"] = params.text("description")
    if "cancel_at" in params:
        ends = params.integer("cancel_at")
        fields |= {"cancel_at": ends, "canceled_at": world.now() if ends else None}
    world.update("customer.subscription.updated", made, **fields)
    if params.text("payment_behavior") not in {None, "allow_incomplete"}:
        raise LookupError("this server changes a subscription whether it is paid or not")
    if items := params.branches("items"):
        changed = _wanted(world, made, items)
        behavior = params.text("proration_behavior") or "create_prorations"
        moment = params.integer("proration_date")
        plan_changes.change(world, made, changed, behavior, at_time=moment)
    wanted = params.flag("cancel_at_period_end")
    if wanted is not None and wanted != made["cancel_at_period_end"]:
        reason = _reason(made, params, "cancellation_requested" if wanted else None)
        subscriptions.cancel_at_end(world, made, wanted=wanted, reason=reason)
    return made


def _wanted(world: World, made: Json, given: list[Params]) -> list[Json]:
    """Return the items as they shall be: those named are changed, the others stay."""
    items = {each["id"]: copied(each) for each in subscriptions.items_of(made)}
    for each in given:
        named = each.text("id")
        if named is not None and named not in items:
            message = f"No such subscription_item: '{named}'"
            raise invalid(message, code="resource_missing", param=each.path("id"))
        if named is not None and each.flag("deleted"):
            del items[named]
            continue
        quantity = each.integer("quantity")
        if named is None:
            price = recurring_price(world, each)
            period = subscriptions.period_of(made)
            item = subscriptions.create_item(world, made["id"], price, quantity or 1, period)
            items[item["id"]] = item
            continue
        if "price" in each:
            items[named]["price"] = dict(recurring_price(world, each))
        if quantity is not None:
            items[named]["quantity"] = quantity
    if not items:
        raise invalid("A subscription must have at least one active plan.", param="items")
    return list(items.values())


def _reason(made: Json, params: Params, reason: str | None) -> Json:
    told = params.branch("cancellation_details")
    before = made["cancellation_details"]
    return {
        "comment": told.text("comment") or before["comment"],
        "feedback": told.text("feedback") or before["feedback"],
        "reason": reason,
    }


@route("DELETE", _ONE)
def cancel_subscription(call: Call) -> Json:
    params, world = call.params, call.world
    made = world.get(call.id, "subscription")
    if made["status"] == "canceled":
        raise Refusal(
            404,
            "invalid_request_error",
            f"No such subscription: '{call.id}'",
            code="resource_missing",
            param="id",
        )
    details = _reason(made, params, "cancellation_requested")
    world.change(made, cancellation_details=details)
    prorate, invoiced = params.flag("prorate"), bool(params.flag("invoice_now"))
    if prorate:
        plan_changes.credit_rest(world, made, invoiced=invoiced)
    return subscriptions.end(world, made)


@route("GET", "/v1/subscription_items")
def list_items(call: Call) -> Json:
    named = call.params.demand("subscription")
    made = call.world.get(named, "subscription", param="subscription")
    return page(subscriptions.items_of(made), call.params, call.path)
