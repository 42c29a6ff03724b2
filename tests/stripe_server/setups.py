"""SetupIntents: a card is kept for later, and nothing is paid."""

from __future__ import annotations

from tests.stripe_server import customers
from tests.stripe_server.errors import Json, Refusal, invalid
from tests.stripe_server.routes import Call, route
from tests.stripe_server.world import World


def create(
    world: World, customer: str | None, metadata: dict[str, str], usage: str = "off_session"
) -> Json:
    identity = f"seti_1{world.ids.letters(23)}"
    made = world.add(
        "setup_intent",
        identity,
        application=None,
        automatic_payment_methods=None,
        cancellation_reason=None,
        client_secret=f"{identity}_secret_{world.ids.letters(24)}",
        customer=customer,
        description=None,
        flow_directions=None,
        last_setup_error=None,
        latest_attempt=None,
        livemode=world.livemode,
        mandate=None,
        metadata=metadata,
        next_action=None,
        on_behalf_of=None,
        payment_method=None,
        payment_method_configuration_details=None,
        payment_method_options={"card": {"request_three_d_secure": "automatic"}},
        payment_method_types=["card"],
        single_use_mandate=None,
        status="requires_payment_method",
        usage=usage,
    )
    world.emit("setup_intent.created", made)
    return made


def succeed(world: World, intent: Json, method: Json) -> None:
    if intent["customer"]:
        customers.attach(world, method["id"], intent["customer"])
    world.change(intent, payment_method=method["id"], status="succeeded")
    world.emit("setup_intent.succeeded", intent)


@route("POST", "/v1/setup_intents")
def post_setup(call: Call) -> Json:
    params, world = call.params, call.world
    customer = params.text("customer")
    if customer:
        world.get(customer, "customer", param="customer")
    usage = params.text("usage") or "off_session"
    made = create(world, customer, params.metadata(), usage)
    if named := params.text("payment_method"):
        method = customers.method_named(world, named, "payment_method")
        world.change(made, payment_method=method["id"], status="requires_confirmation")
    return confirm(world, made) if params.flag("confirm") else made


@route("POST", "/v1/setup_intents/{intent}/confirm")
def post_confirm(call: Call) -> Json:
    made = call.world.get(call.id, "setup_intent")
    if named := call.params.text("payment_method"):
        method = customers.method_named(call.world, named, "payment_method")
        call.world.change(made, payment_method=method["id"])
    return confirm(call.world, made)


def confirm(world: World, made: Json) -> Json:
    """Keep the card, if it lets itself be kept.

    Raises:
        Refusal: 402, it declines; 400, there is none, or it is kept already.
    """
    if made["payment_method"] is None or made["status"] in {"succeeded", "canceled"}:
        message = f"You cannot confirm this SetupIntent because it has status {made['status']}."
        raise invalid(message, code="setup_intent_unexpected_state")
    method = world.get(made["payment_method"], "payment_method")
    behaviour = world.note(method["id"]).get("behaviour", "ok")
    if behaviour in {"ok", "insufficient_funds", "authentication_required"}:
        succeed(world, made, method)
        return made
    world.change(made, payment_method=None, status="requires_payment_method")
    world.emit("setup_intent.setup_failed", made)
    raise Refusal(
        402,
        "card_error",
        "Your card was declined.",
        code="card_declined",
        decline_code=behaviour,
        setup_intent=dict(made),
    )
