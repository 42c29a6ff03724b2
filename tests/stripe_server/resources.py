"""Reading: every kind of object by its id, and in lists with Stripe's filters."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from tests.stripe_server.errors import Json
from tests.stripe_server.lists import dated, narrowed, page
from tests.stripe_server.routes import Call, Handler, route


@dataclass(frozen=True)
class Kind:
    """A kind of object, where it is served, and which parameter of its list filters what."""

    name: str
    path: str
    placeholder: str
    filters: dict[str, str] = field(default_factory=dict)


KINDS: Final = (
    Kind("product", "/v1/products", "id", {"active": "active", "url": "url"}),
    Kind("coupon", "/v1/coupons", "coupon"),
    Kind(
        "promotion_code",
        "/v1/promotion_codes",
        "promotion_code",
        {
            "active": "active",
            "code": "code",
            "coupon": "promotion.coupon",
            "customer": "customer",
        },
    ),
    Kind(
        "checkout.session",
        "/v1/checkout/sessions",
        "session",
        {
            "customer": "customer",
            "customer_details.email": "customer_details.email",
            "payment_intent": "payment_intent",
            "status": "status",
            "subscription": "subscription",
        },
    ),
    Kind("payment_intent", "/v1/payment_intents", "intent", {"customer": "customer"}),
    Kind(
        "setup_intent",
        "/v1/setup_intents",
        "intent",
        {"customer": "customer", "payment_method": "payment_method"},
    ),
    Kind(
        "payment_method",
        "/v1/payment_methods",
        "payment_method",
        {"customer": "customer", "type": "type"},
    ),
    Kind(
        "charge",
        "/v1/charges",
        "charge",
        {"customer": "customer", "payment_intent": "payment_intent"},
    ),
    Kind(
        "refund",
        "/v1/refunds",
        "refund",
        {"charge": "charge", "payment_intent": "payment_intent"},
    ),
    Kind(
        "dispute",
        "/v1/disputes",
        "dispute",
        {"charge": "charge", "payment_intent": "payment_intent"},
    ),
    Kind("payout", "/v1/payouts", "payout", {"status": "status", "destination": "destination"}),
    Kind(
        "invoice",
        "/v1/invoices",
        "invoice",
        {
            "collection_method": "collection_method",
            "customer": "customer",
            "status": "status",
            "subscription": "parent.subscription_details.subscription",
        },
    ),
)


def serve(kind: Kind) -> None:
    """Make the two endpoints that read a kind."""

    def get(call: Call) -> Json:
        return call.world.get(call.id, kind.name)

    def listed(call: Call) -> Json:
        items = narrowed(call.world.every(kind.name), call.params, kind.filters)
        return page(items, call.params, call.path)

    handlers: tuple[tuple[str, Handler], ...] = (
        (f"{kind.path}/{{{kind.placeholder}}}", get),
        (kind.path, listed),
    )
    for template, handler in handlers:
        route("GET", template)(handler)


for each_kind in KINDS:
    serve(each_kind)


# --- lists and filters of their own ------------------------------------------------------------


@route("GET", "/v1/customers")
def list_customers(call: Call) -> Json:
    items = narrowed(call.world.every("customer"), call.params, {"email": "email"})
    return page(items, call.params, call.path)


@route("GET", "/v1/prices/{price}")
def get_price(call: Call) -> Json:
    return call.world.get(call.id, "price")


@route("GET", "/v1/prices")
def list_prices(call: Call) -> Json:
    params = call.params
    fields = {
        "active": "active",
        "currency": "currency",
        "product": "product",
        "recurring.interval": "recurring.interval",
        "type": "type",
    }
    items = narrowed(call.world.every("price"), params, fields)
    if keys := params.texts("lookup_keys"):
        items = [each for each in items if each["lookup_key"] in keys]
    return page(items, params, call.path)


@route("GET", "/v1/subscriptions/{subscription_exposed_id}")
def get_subscription(call: Call) -> Json:
    return call.world.get(call.id, "subscription")


@route("GET", "/v1/subscriptions")
def list_subscriptions(call: Call) -> Json:
    """Those that are over are left out unless they are asked for."""
    params, status = call.params, call.params.text("status")
    items = dated(call.world.every("subscription"), params, "created")
    if customer := params.text("customer"):
        items = [each for each in items if each["customer"] == customer]
    if price := params.text("price"):
        items = [each for each in items if price in _prices(each)]
    if status is None:
        items = [each for each in items if each["status"] != "canceled"]
    elif status != "all":
        wanted = {"ended": {"canceled", "incomplete_expired"}}.get(status, {status})
        items = [each for each in items if each["status"] in wanted]
    return page(items, params, call.path)


def _prices(subscription: Json) -> set[str]:
    return {each["price"]["id"] for each in subscription["items"]["data"]}


@route("GET", "/v1/invoice_payments/{invoice_payment}")
def get_invoice_payment(call: Call) -> Json:
    return call.world.get(call.id, "invoice_payment")


@route("GET", "/v1/invoice_payments")
def list_invoice_payments(call: Call) -> Json:
    """The way from a payment to its invoice: neither names the other."""
    fields = {
        "invoice": "invoice",
        "payment.payment_intent": "payment.payment_intent",
        "payment.type": "payment.type",
        "status": "status",
    }
    items = narrowed(call.world.every("invoice_payment"), call.params, fields)
    return page(items, call.params, call.path)


@route("GET", "/v1/balance_transactions/{id}")
def get_balance_transaction(call: Call) -> Json:
    return call.world.get(call.id, "balance_transaction")


@route("GET", "/v1/balance_transactions")
def list_balance_transactions(call: Call) -> Json:
    world, params = call.world, call.params
    fields = {"currency": "currency", "source": "source", "type": "type"}
    items = narrowed(world.every("balance_transaction"), params, fields)
    if payout := params.text("payout"):
        world.get(payout, "payout", param="payout")
        items = [each for each in items if world.note(each["id"]).get("payout") == payout]
    return page(items, params, call.path)
