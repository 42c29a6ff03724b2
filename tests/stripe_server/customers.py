"""Customers and the cards that they leave behind."""

from __future__ import annotations

from typing import Any, Final

from tests.stripe_server.errors import Json, invalid
from tests.stripe_server.expansion import part
from tests.stripe_server.lists import at, narrowed, page, whole
from tests.stripe_server.params import Params
from tests.stripe_server.routes import Call, route
from tests.stripe_server.world import World

ADDRESS: Final = ("city", "country", "line1", "line2", "postal_code", "state")
# Stripe's own test cards, by the names that a request may give, and how each behaves.
CARDS: Final = {
    "pm_card_visa": "ok",
    "pm_card_mastercard": "ok",
    "pm_card_chargeDeclined": "generic_decline",
    "pm_card_chargeDeclinedInsufficientFunds": "insufficient_funds",
    "pm_card_chargeDeclinedExpiredCard": "expired_card",
    "pm_card_chargeCustomerFail": "generic_decline",
    "pm_card_authenticationRequired": "authentication_required",
}


def address(params: Params) -> Json | None:
    return {name: params.text(name) for name in ADDRESS} if params else None


def create_customer(world: World, /, **fields: Any) -> Json:
    """Make a customer of whatever is known of them, and say so."""
    made = world.add(
        "customer",
        world.ids.make("cus"),
        **{
            "address": None,
            "balance": 0,
            "currency": None,
            "default_source": None,
            "delinquent": False,
            "description": None,
            "discount": None,
            "email": None,
            "invoice_prefix": world.ids.letters(8).upper(),
            "invoice_settings": {
                "custom_fields": None,
                "default_payment_method": None,
                "footer": None,
                "rendering_options": None,
            },
            "livemode": world.livemode,
            "metadata": {},
            "name": None,
            "next_invoice_sequence": 1,
            "phone": None,
            "preferred_locales": [],
            "shipping": None,
            "tax_exempt": "none",
            "test_clock": None,
            **fields,
        },
    )
    world.emit("customer.created", made)
    return made


def _fields(world: World, params: Params, before: Json | None) -> Json:
    fields: Json = {
        name: params.text(name)
        for name in ("description", "email", "name", "phone", "tax_exempt")
        if name in params
    }
    if "address" in params:
        fields["address"] = address(params.branch("address"))
    if "metadata" in params:
        fields["metadata"] = params.metadata(before["metadata"] if before else None)
    settings = params.branch("invoice_settings")
    if "default_payment_method" in settings:
        named = settings.text("default_payment_method")
        where = settings.path("default_payment_method")
        if named:
            method = world.get(named, "payment_method", param=where)
            if before is None or method["customer"] != before["id"]:
                message = f"The customer does not have a payment method with the ID {named}."
                raise invalid(message, code="resource_missing", param=where)
        former = before["invoice_settings"] if before else {}
        fields["invoice_settings"] = {**former, "default_payment_method": named}
    return fields


@route("POST", "/v1/customers")
def post_customer(call: Call) -> Json:
    fields = _fields(call.world, call.params, None)
    fields.pop("invoice_settings", None)
    made = create_customer(call.world, **fields)
    if named := call.params.text("payment_method"):
        method = attach(call.world, named, made["id"])
        settings = call.params.branch("invoice_settings")
        if settings.text("default_payment_method"):
            set_default(call.world, made, method)
    return made


@route("POST", "/v1/customers/{customer}")
def update_customer(call: Call) -> Json:
    customer = call.world.get(call.id, "customer")
    fields = _fields(call.world, call.params, customer)
    return call.world.update("customer.updated", customer, **fields)


@route("DELETE", "/v1/customers/{customer}")
def delete_customer(call: Call) -> Json:
    """Forget a customer, and end what they subscribe to."""
    from tests.stripe_server import subscriptions

    customer = call.world.get(call.id, "customer")
    for each in call.world.every("subscription"):
        if each["customer"] == call.id and each["status"] != "canceled":
            subscriptions.end(call.world, each)
    return call.world.delete(customer)


@route("GET", "/v1/customers/{customer}")
def get_customer(call: Call) -> Json:
    """A customer who was deleted is still there, to say so."""
    return call.world.deleted.get(call.id) or call.world.get(call.id, "customer")


@route("GET", "/v1/customers/{customer}/payment_methods")
def methods_of_customer(call: Call) -> Json:
    call.world.get(call.id, "customer")
    mine = [each for each in call.world.every("payment_method") if each["customer"] == call.id]
    return page(narrowed(mine, call.params, {"type": "type"}), call.params, call.path)


# --- payment methods ----------------------------------------------------------------------------


def create_card(world: World, behaviour: str = "ok") -> Json:
    """Make a card that nobody owns yet; `behaviour` is "ok", "slow", or the code with which it declines."""
    made = world.add(
        "payment_method",
        f"pm_1{world.ids.letters(23)}",
        allow_redisplay="unspecified",
        billing_details=billing_details(None, None),
        card=card_face(world),
        customer=None,
        livemode=world.livemode,
        metadata={},
        type="card",
    )
    world.note(made["id"])["behaviour"] = behaviour
    return made


def card_face(world: World) -> Json:
    return {
        "brand": "visa",
        "checks": {
            "address_line1_check": None,
            "address_postal_code_check": None,
            "cvc_check": "pass",
        },
        "country": "US",
        "display_brand": "visa",
        "exp_month": 12,
        "exp_year": 2040,
        "fingerprint": world.ids.letters(16),
        "funding": "credit",
        "generated_from": None,
        "last4": "4242",
        "networks": {"available": ["visa"], "preferred": None},
        "regulated_status": "unregulated",
        "three_d_secure_usage": {"supported": True},
        "wallet": None,
    }


def billing_details(email: str | None, name: str | None) -> Json:
    return {
        "address": dict.fromkeys(ADDRESS),
        "email": email,
        "name": name,
        "phone": None,
        "tax_id": None,
    }


def method_named(world: World, named: str, param: str) -> Json:
    """Return a payment method; one of Stripe's test cards becomes a card of its own."""
    if named in CARDS:
        return create_card(world, CARDS[named])
    return world.get(named, "payment_method", param=param)


def attach(world: World, named: str, customer: str) -> Json:
    """Give a card to a customer."""
    method = method_named(world, named, "payment_method")
    if method["customer"] not in {None, customer}:
        message = "The payment method you provided has already been attached to a customer."
        raise invalid(message, param="payment_method")
    if method["customer"] is None:
        world.change(method, customer=customer)
        world.emit("payment_method.attached", method)
    return method


def set_default(world: World, customer: Json, method: Json) -> None:
    settings = {**customer["invoice_settings"], "default_payment_method": method["id"]}
    world.update("customer.updated", customer, invoice_settings=settings)


@route("POST", "/v1/payment_methods/{payment_method}/attach")
def post_attach(call: Call) -> Json:
    call.world.get(call.params.demand("customer"), "customer", param="customer")
    if call.id not in CARDS:
        call.world.get(call.id, "payment_method")
    return attach(call.world, call.id, call.params.demand("customer"))


@route("POST", "/v1/payment_methods/{payment_method}/detach")
def post_detach(call: Call) -> Json:
    method = call.world.get(call.id, "payment_method")
    if method["customer"] is None:
        message = "The payment method you provided is not attached to a customer."
        raise invalid(message, code="payment_method_unexpected_state", param="payment_method")
    owner = call.world.find(method["customer"], "customer")
    if owner and at(owner, "invoice_settings.default_payment_method") == call.id:
        settings = {**owner["invoice_settings"], "default_payment_method": None}
        call.world.update("customer.updated", owner, invoice_settings=settings)
    previous = call.world.change(method, customer=None)
    call.world.emit("payment_method.detached", method, previous)
    return method


@part("customer", "subscriptions")
def subscriptions_of(world: World, customer: Json) -> Json:
    mine = [
        each
        for each in world.every("subscription")
        if each["customer"] == customer["id"] and each["status"] != "canceled"
    ]
    return whole(mine, f"/v1/customers/{customer['id']}/subscriptions")
