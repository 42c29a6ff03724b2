"""How invoices are paid: which payment is for which invoice, and what is said of it."""

from __future__ import annotations

from tests.stripe_server import payments
from tests.stripe_server.errors import Json, Refusal, invalid
from tests.stripe_server.expansion import part
from tests.stripe_server.lists import at, whole
from tests.stripe_server.routes import Call, route
from tests.stripe_server.world import World


def pay(world: World, made: Json, method: Json | None, fee: int | None = None) -> None:
    """Take what is due from a card that pays. `fee` is in minor units."""
    if made["amount_due"] == 0:
        _paid(world, made, 0)
        return
    if method is None:
        raise ValueError(f"nothing to pay invoice {made['id']} with: the customer has no card")
    row = _attempt(world, made)
    intent = world.get(row["payment"]["payment_intent"], "payment_intent")
    payments.succeed(world, intent, method, fee)
    _pay_row(world, row)
    _paid(world, made, made["amount_due"])


def fail(world: World, made: Json, method: Json, code: str, next_attempt: int | None) -> Json:
    """Let the card decline; the answer is the error. The invoice stays open."""
    row = _attempt(world, made)
    intent = world.get(row["payment"]["payment_intent"], "payment_intent")
    error = payments.decline(world, intent, method, code)
    previous = world.change(
        made,
        attempt_count=made["attempt_count"] + 1,
        attempted=True,
        next_payment_attempt=next_attempt,
    )
    world.emit("invoice.updated", made, previous)
    world.emit("invoice.payment_failed", made)
    if code == "authentication_required":
        world.emit("invoice.payment_action_required", made)
    return error


def _attempt(world: World, made: Json) -> Json:
    """The InvoicePayment of an invoice; its PaymentIntent is made once and tried again."""
    if rows := payments_of(world, made):
        return rows[0]
    creation = made["billing_reason"] == "subscription_create"
    intent = payments.create_intent(
        world,
        made["amount_due"],
        made["currency"],
        customer=made["customer"],
        description="Subscription creation" if creation else "Subscription update",
        setup_future_usage="off_session" if creation else None,
    )
    return _row(world, made, intent)


def paid_before(world: World, made: Json, intent: Json | None) -> None:
    """Say that an invoice is paid by what its customer paid at Checkout, before there was one."""
    if intent is None:
        _paid(world, made, 0)
        return
    _pay_row(world, _row(world, made, intent))
    _paid(world, made, made["amount_due"])


def _row(world: World, made: Json, intent: Json) -> Json:
    return world.add(
        "invoice_payment",
        f"inpay_1{world.ids.letters(23)}",
        amount_paid=None,
        amount_requested=made["amount_due"],
        currency=made["currency"],
        invoice=made["id"],
        is_default=True,
        livemode=world.livemode,
        payment={"payment_intent": intent["id"], "type": "payment_intent"},
        status="open",
        status_transitions={"canceled_at": None, "paid_at": None},
    )


def _pay_row(world: World, row: Json) -> None:
    transitions = {"canceled_at": None, "paid_at": world.now()}
    world.change(
        row, amount_paid=row["amount_requested"], status="paid", status_transitions=transitions
    )
    world.emit("invoice_payment.paid", row)


def _paid(world: World, made: Json, amount: int) -> None:
    transitions = {**made["status_transitions"], "paid_at": world.now()}
    previous = world.change(
        made,
        amount_paid=amount,
        amount_remaining=0,
        attempt_count=made["attempt_count"] + (1 if amount else 0),
        attempted=True,
        auto_advance=False,
        next_payment_attempt=None,
        status="paid",
        status_transitions=transitions,
    )
    world.emit("invoice.updated", made, previous)
    world.emit("invoice.paid", made)
    world.emit("invoice.payment_succeeded", made)


def payments_of(world: World, made: Json) -> list[Json]:
    return [each for each in world.every("invoice_payment") if each["invoice"] == made["id"]]


@part("invoice", "payments")
def payments_part(world: World, made: Json) -> Json:
    return whole(payments_of(world, made), "/v1/invoice_payments")


@route("POST", "/v1/invoices/{invoice}/pay")
def post_pay(call: Call) -> Json:
    """Try to pay an open invoice with the card named, or the one that renewals use."""
    from tests.stripe_server import subscriptions

    world, made = call.world, call.world.get(call.id, "invoice")
    if made["status"] != "open":
        raise invalid("Invoice is already paid", code="invoice_not_editable")
    subscription = world.get(at(made, "parent.subscription_details.subscription"), "subscription")
    named = call.params.text("payment_method")
    method = (
        world.get(named, "payment_method", param="payment_method")
        if named
        else subscriptions.method_of(world, subscription)
    )
    if method is None:
        message = "There is no default_payment_method set on this Customer or Invoice."
        raise invalid(message, code="invoice_payment_intent_requires_action")
    behaviour = world.note(method["id"]).get("behaviour", "ok")
    if behaviour != "ok":
        error = fail(world, made, method, behaviour, made["next_payment_attempt"])
        raise Refusal(402, "card_error", error["message"], code=error["code"])
    pay(world, made, method)
    subscriptions.recovered(world, subscription)
    return made
