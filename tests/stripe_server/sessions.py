"""Checkout Sessions: how a request makes one, and how it expires."""

from __future__ import annotations

from typing import Final

from tests.stripe_server import baskets, discounts, payments
from tests.stripe_server.copies import copied
from tests.stripe_server.errors import Json, invalid, missing_parameter
from tests.stripe_server.params import Params
from tests.stripe_server.routes import Call, route
from tests.stripe_server.world import World

LIFE_SECONDS: Final = 86_400
LIFE_SECONDS_MIN: Final = 1_800
_ONLY_IN: Final = {
    "payment_intent_data": {"payment"},
    "subscription_data": {"subscription"},
    "setup_intent_data": {"setup"},
    "customer_creation": {"payment", "setup"},
    "invoice_creation": {"payment"},
}
# What this server does of the parameters that a session hands on.
_DONE: Final = {
    "payment_intent_data": {"description", "metadata", "receipt_email", "setup_future_usage"},
    "subscription_data": {"description", "metadata", "trial_period_days"},
    "setup_intent_data": {"metadata"},
}
# What a session has and nobody here asks for.
_UNUSED: Final[Json] = {
    "adaptive_pricing": {"enabled": False},
    "after_expiration": None,
    "client_secret": None,
    "collected_information": None,
    "consent": None,
    "consent_collection": None,
    "currency_conversion": None,
    "custom_fields": [],
    "custom_text": {
        "after_submit": None,
        "shipping_address": None,
        "submit": None,
        "terms_of_service_acceptance": None,
    },
    "invoice": None,
    "origin_context": None,
    "payment_link": None,
    "payment_method_configuration_details": None,
    "payment_method_options": {"card": {"request_three_d_secure": "automatic"}},
    "permissions": None,
    "phone_number_collection": {"enabled": False},
    "recovered_from": None,
    "saved_payment_method_options": None,
    "shipping_address_collection": None,
    "shipping_cost": None,
    "shipping_options": [],
    "wallet_options": None,
}


@route("POST", "/v1/checkout/sessions")
def post_session(call: Call) -> Json:
    params, world = call.params, call.world
    mode = params.demand("mode")
    _check(world, params, mode)
    lines = [] if mode == "setup" else baskets.lines_of(world, params, mode)
    if params.branch("subscription_data").integer("trial_period_days"):
        baskets.start_free(lines)
    applied = discounts.chosen(world, params)
    discounts.check_restrictions(world, applied, lines, params.text("customer"))
    baskets.priced(world, lines, applied, 0)
    currency = params.text("currency")
    if lines and currency not in {None, lines[0]["currency"]}:
        message = f"The prices of `line_items` are not in `{currency}`."
        raise invalid(message, param="currency")
    currency = lines[0]["currency"] if lines else currency
    identity = world.ids.session(livemode=world.livemode)
    note = world.note(identity)
    note.update(
        lines=lines,
        payment_intent_data=params.branch("payment_intent_data"),
        subscription_data=params.branch("subscription_data"),
        setup_intent_data=params.branch("setup_intent_data"),
    )
    made = _face(world, identity, params, mode)
    world.change(made, currency=currency, discounts=applied)
    if lines:
        world.change(made, **baskets.sums(lines))
    if mode == "payment" and made["amount_total"] == 0:
        world.change(made, payment_status="no_payment_required")
    return made


def _check(world: World, params: Params, mode: str) -> None:
    """Refuse what contradicts itself."""
    if params.text("ui_mode") in {None, "hosted_page"} and not params.text("success_url"):
        raise missing_parameter("success_url")
    for name, done in _DONE.items():
        ignored = sorted(params.branch(name).tree.keys() - done)
        if ignored:
            raise LookupError(f"this server does nothing about {name}: {ignored}")
    for name, modes in _ONLY_IN.items():
        if name in params and mode not in modes:
            raise invalid(f"You can not pass `{name}` in `{mode}` mode.", param=name)
    if params.text("customer"):
        world.get(params.demand("customer"), "customer", param="customer")
        if params.text("customer_email"):
            message = "You may only specify one of these parameters: customer, customer_email."
            raise invalid(message, param="customer_email")
        _check_location(world, params)
    if params.flag("allow_promotion_codes") and params.branches("discounts"):
        message = "You may only specify one of these parameters: allow_promotion_codes, discounts."
        raise invalid(message, param="discounts")
    expires = params.integer("expires_at")
    if expires is None:
        return
    life = expires - world.now()
    if not LIFE_SECONDS_MIN <= life <= LIFE_SECONDS:
        bound = "at least 30 minutes" if life < LIFE_SECONDS_MIN else "less than 24 hours"
        message = f"The `expires_at` timestamp must be {bound} from Checkout Session creation."
        raise invalid(message, param="expires_at")


def _check_location(world: World, params: Params) -> None:
    """Refuse to work out taxes for a customer who is nowhere."""
    known = world.get(params.demand("customer"), "customer")["address"]
    asks = params.branch("customer_update").text("address") == "auto"
    if params.branch("automatic_tax").flag("enabled") and not known and not asks:
        message = (
            "Automatic tax calculation in Checkout requires a valid address on the Customer. Add a "
            "valid address to the Customer or set either `customer_update[address]` to 'auto' or "
            "`customer_update[shipping]` to 'auto' to save the address entered in Checkout to the "
            "Customer."
        )
        raise invalid(message, param="customer")


def _face(world: World, identity: str, params: Params, mode: str) -> Json:
    customer = params.text("customer")
    creation = params.text("customer_creation") or ("if_required" if mode == "payment" else None)
    if mode == "subscription":
        creation = "always"
    automatic = bool(params.branch("automatic_tax").flag("enabled"))
    return world.add(
        "checkout.session",
        identity,
        **copied(_UNUSED),
        allow_promotion_codes=params.flag("allow_promotion_codes"),
        amount_subtotal=None,
        amount_total=None,
        automatic_tax={
            "enabled": automatic,
            "liability": {"type": "self"} if automatic else None,
            "provider": "stripe" if automatic else None,
            "status": "requires_location_inputs" if automatic else None,
        },
        billing_address_collection=params.text("billing_address_collection"),
        cancel_url=params.text("cancel_url"),
        client_reference_id=params.text("client_reference_id"),
        currency=None,
        customer=customer,
        customer_creation=None if customer else creation,
        customer_details=_details(world, customer, params.text("customer_email")),
        customer_email=params.text("customer_email"),
        discounts=[],
        expires_at=params.integer("expires_at") or world.now() + LIFE_SECONDS,
        livemode=world.livemode,
        locale=params.text("locale"),
        metadata=params.metadata(),
        mode=mode,
        payment_intent=None,
        payment_method_collection="if_required" if mode == "payment" else "always",
        payment_method_types=params.texts("payment_method_types") or ["card"],
        payment_status="no_payment_required" if mode == "setup" else "unpaid",
        setup_intent=None,
        status="open",
        submit_type=params.text("submit_type"),
        subscription=None,
        success_url=params.text("success_url"),
        total_details=None,
        ui_mode=params.text("ui_mode") or "hosted_page",
        url=f"https://checkout.stripe.com/c/pay/{identity}",
    )


def _details(world: World, customer: str | None, email: str | None) -> Json | None:
    if customer:
        known = world.get(customer, "customer")
        return details(known["email"], known["name"])
    return details(email, None) if email else None


def details(email: str | None, name: str | None) -> Json:
    return {
        "address": None,
        "business_name": None,
        "email": email,
        "individual_name": None,
        "name": name,
        "phone": None,
        "tax_exempt": "none",
        "tax_ids": [],
    }


@route("POST", "/v1/checkout/sessions/{session}")
def update_session(call: Call) -> Json:
    session = call.world.get(call.id, "checkout.session")
    if "metadata" in call.params:
        call.world.change(session, metadata=call.params.metadata(session["metadata"]))
    return session


@route("POST", "/v1/checkout/sessions/{session}/expire")
def post_expire(call: Call) -> Json:
    session = call.world.get(call.id, "checkout.session")
    if session["status"] != "open":
        message = (
            'Only Checkout Sessions with a status in ["open"] can be expired. This Checkout '
            f"Session has a status of `{session['status']}`."
        )
        raise invalid(message, param="session")
    expire(call.world, session)
    return session


def expire(world: World, session: Json) -> None:
    """Close a session that nobody paid."""
    if session["status"] != "open":
        raise ValueError(f"session {session['id']} is {session['status']}, not open")
    intent = world.find(session["payment_intent"], "payment_intent")
    if intent and intent["status"] == "requires_payment_method":
        payments.cancel(world, intent, "expired")
    world.change(session, status="expired", url=None)
    world.emit("checkout.session.expired", session)


def expire_due(world: World) -> list[Json]:
    """Close every session whose time is over by the clock."""
    due = [
        each
        for each in world.every("checkout.session")
        if each["status"] == "open" and each["expires_at"] <= world.now()
    ]
    for each in reversed(due):
        expire(world, each)
    return due
