"""PaymentIntents: what someone means to pay, until they have."""

from __future__ import annotations

from typing import Any

from tests.stripe_server import charges, customers, money
from tests.stripe_server.errors import Json, Refusal, invalid, missing_parameter
from tests.stripe_server.params import Params
from tests.stripe_server.routes import Call, route
from tests.stripe_server.world import World


def create_intent(world: World, amount: int, currency: str, **fields: Any) -> Json:
    identity = f"pi_3{world.ids.letters(23)}"
    made = world.add(
        "payment_intent",
        identity,
        **{
            "amount": amount,
            "amount_capturable": 0,
            "amount_details": {"tip": {}},
            "amount_received": 0,
            "application": None,
            "application_fee_amount": None,
            "automatic_payment_methods": None,
            "canceled_at": None,
            "cancellation_reason": None,
            "capture_method": "automatic_async",
            "client_secret": f"{identity}_secret_{world.ids.letters(25)}",
            "confirmation_method": "automatic",
            "currency": currency,
            "customer": None,
            "description": None,
            "last_payment_error": None,
            "latest_charge": None,
            "livemode": world.livemode,
            "metadata": {},
            "next_action": None,
            "on_behalf_of": None,
            "payment_method": None,
            "payment_method_configuration_details": None,
            "payment_method_options": {"card": {"request_three_d_secure": "automatic"}},
            "payment_method_types": ["card"],
            "processing": None,
            "receipt_email": None,
            "review": None,
            "setup_future_usage": None,
            "shipping": None,
            "statement_descriptor": None,
            "statement_descriptor_suffix": None,
            "status": "requires_payment_method",
            "transfer_data": None,
            "transfer_group": None,
            **fields,
        },
    )
    world.emit("payment_intent.created", made)
    return made


# --- how an attempt ends ------------------------------------------------------------------------


def succeed(world: World, intent: Json, method: Json, fee: int | None = None) -> Json:
    """Let the money come at once; the answer is the charge. `fee` is in minor units."""
    charge = charges.create(world, intent, method, "succeeded")
    world.emit("charge.succeeded", charge)
    _received(world, intent, method)
    charges.settle(world, charge, fee)
    return charge


def process(world: World, intent: Json, method: Json) -> Json:
    """Let the money be on its way, as with a debit from a bank account."""
    charge = charges.create(world, intent, method, "pending")
    world.emit("charge.pending", charge)
    world.change(intent, payment_method=method["id"], status="processing")
    world.emit("payment_intent.processing", intent)
    return charge


def clear(world: World, intent: Json, fee: int | None = None) -> Json:
    """Let money that was on its way arrive."""
    charge = world.get(intent["latest_charge"], "charge")
    method = world.get(charge["payment_method"], "payment_method")
    world.change(charge, status="succeeded", paid=True, amount_captured=charge["amount"])
    world.emit("charge.succeeded", charge)
    _received(world, intent, method)
    charges.settle(world, charge, fee)
    return charge


def bounce(world: World, intent: Json, code: str = "bank_account_declined") -> None:
    """Let money that was on its way not arrive."""
    charge = world.get(intent["latest_charge"], "charge")
    method = world.get(charge["payment_method"], "payment_method")
    _fail(world, intent, charge, method, code)


def decline(world: World, intent: Json, method: Json, code: str) -> Json:
    """Let the card decline; the answer is the error, as `last_payment_error` has it."""
    charge = charges.create(world, intent, method, "failed")
    return _fail(world, intent, charge, method, code)


def _fail(world: World, intent: Json, charge: Json, method: Json, code: str) -> Json:
    named = code if code in {"expired_card", "authentication_required"} else "card_declined"
    if method["type"] != "card":
        named = "payment_intent_payment_attempt_failed"
    error: Json = {
        "charge": charge["id"],
        "code": named,
        "doc_url": "https://stripe.com/docs/error-codes/" + named.replace("_", "-"),
        "message": charges.MESSAGES[code],
        "payment_method": dict(method),
        "type": "card_error" if method["type"] == "card" else "invalid_request_error",
    }
    if method["type"] == "card":
        error["decline_code"] = code
    world.change(
        charge,
        failure_code=named,
        failure_message=error["message"],
        outcome=charges.outcome("failed", code),
        paid=False,
        captured=False,
        status="failed",
    )
    world.emit("charge.failed", charge)
    world.change(
        intent, last_payment_error=error, payment_method=None, status="requires_payment_method"
    )
    world.emit("payment_intent.payment_failed", intent)
    return error


def _received(world: World, intent: Json, method: Json) -> None:
    world.change(
        intent,
        amount_received=intent["amount"],
        last_payment_error=None,
        next_action=None,
        payment_method=method["id"],
        status="succeeded",
    )
    if intent["setup_future_usage"] and intent["customer"] and not method["customer"]:
        customers.attach(world, method["id"], intent["customer"])
    world.emit("payment_intent.succeeded", intent)


# --- the endpoints ------------------------------------------------------------------------------


@route("POST", "/v1/payment_intents")
def post_intent(call: Call) -> Json:
    params, world = call.params, call.world
    amount = params.integer("amount")
    if amount is None:
        raise missing_parameter("amount")
    currency = params.demand("currency").lower()
    money.check(amount, currency, "amount")
    customer = params.text("customer")
    if customer:
        world.get(customer, "customer", param="customer")
    off_session = params.flag("off_session")
    if off_session and not params.flag("confirm"):
        message = "The parameter `off_session` requires `confirm` to be true."
        raise invalid(message, param="off_session")
    method = _method(world, params, customer)
    automatic = params.branch("automatic_payment_methods")
    enabled = automatic.flag("enabled") if automatic else not params.texts("payment_method_types")
    made = create_intent(
        world,
        amount,
        currency,
        automatic_payment_methods={"allow_redirects": "always", "enabled": True}
        if enabled
        else None,
        customer=customer,
        description=params.text("description"),
        metadata=params.metadata(),
        payment_method=method["id"] if method else None,
        payment_method_types=params.texts("payment_method_types") or ["card"],
        receipt_email=params.text("receipt_email"),
        setup_future_usage=params.text("setup_future_usage"),
        status="requires_confirmation" if method else "requires_payment_method",
    )
    return confirm(world, made, params) if params.flag("confirm") else made


def _method(world: World, params: Params, customer: str | None) -> Json | None:
    named = params.text("payment_method")
    if named is None:
        return None
    method = customers.method_named(world, named, "payment_method")
    if method["customer"] is not None and method["customer"] != customer:
        message = f"The PaymentMethod {named} does not belong to the customer you supplied."
        raise invalid(message, param="payment_method")
    return method


@route("POST", "/v1/payment_intents/{intent}")
def update_intent(call: Call) -> Json:
    intent, params = call.world.get(call.id, "payment_intent"), call.params
    fields: Json = {}
    for name in ("description", "receipt_email", "setup_future_usage"):
        if name in params:
            fields[name] = params.text(name)
    if "metadata" in params:
        fields["metadata"] = params.metadata(intent["metadata"])
    if method := _method(call.world, params, intent["customer"]):
        _demand_open(intent)
        fields |= {"payment_method": method["id"], "status": "requires_confirmation"}
    if (amount := params.integer("amount")) is not None:
        _demand_open(intent)
        fields["amount"] = money.check(amount, intent["currency"], "amount")
    call.world.change(intent, **fields)
    return intent


@route("POST", "/v1/payment_intents/{intent}/confirm")
def post_confirm(call: Call) -> Json:
    intent = call.world.get(call.id, "payment_intent")
    if method := _method(call.world, call.params, intent["customer"]):
        call.world.change(intent, payment_method=method["id"])
    return confirm(call.world, intent, call.params)


def confirm(world: World, intent: Json, params: Params) -> Json:
    """Try to pay with the card that is named.

    Raises:
        Refusal: 402, the card declines, or wants its owner where nobody is there; the intent in
            the error is what can be tried again. 400 where there is nothing to confirm.
    """
    _demand_open(intent)
    named = intent["payment_method"]
    if named is None:
        message = (
            f"You cannot confirm this PaymentIntent because it's missing a payment method. "
            f"Update {intent['id']} with a payment method."
        )
        raise invalid(message, code="payment_intent_unexpected_state")
    method = world.get(named, "payment_method", param="payment_method")
    behaviour = world.note(named).get("behaviour", "ok")
    off_session = bool(params.flag("off_session"))
    wanted = bool(params.flag("error_on_requires_action"))
    if behaviour == "ok":
        succeed(world, intent, method)
        return intent
    if behaviour == "slow":
        process(world, intent, method)
        return intent
    if behaviour == "authentication_required" and not (off_session or wanted):
        action = {"type": "use_stripe_sdk", "use_stripe_sdk": {"type": "three_d_secure_redirect"}}
        world.change(intent, next_action=action, status="requires_action")
        world.emit("payment_intent.requires_action", intent)
        return intent
    error = decline(world, intent, method, behaviour)
    rest = {name: value for name, value in error.items() if name not in {"code", "message", "type"}}
    rest.pop("doc_url", None)
    raise Refusal(
        402, "card_error", error["message"], code=error["code"], payment_intent=dict(intent), **rest
    )


def _demand_open(intent: Json) -> None:
    if intent["status"] in {"succeeded", "canceled", "processing"}:
        message = (
            f"You cannot change this PaymentIntent because it has a status of {intent['status']}."
        )
        raise invalid(message, code="payment_intent_unexpected_state")


@route("POST", "/v1/payment_intents/{intent}/cancel")
def cancel_intent(call: Call) -> Json:
    intent = call.world.get(call.id, "payment_intent")
    _demand_open(intent)
    return cancel(call.world, intent, call.params.text("cancellation_reason"))


def cancel(world: World, intent: Json, reason: str | None) -> Json:
    world.change(intent, canceled_at=world.now(), cancellation_reason=reason, status="canceled")
    world.emit("payment_intent.canceled", intent)
    return intent
