"""What a customer does on the page of a Checkout Session."""

from __future__ import annotations

from dataclasses import dataclass

from tests.stripe_server import (
    baskets,
    charges,
    collection,
    customers,
    discounts,
    invoices,
    payments,
    sessions,
    setups,
    subscriptions,
)
from tests.stripe_server.errors import Json, Refusal
from tests.stripe_server.lists import at
from tests.stripe_server.world import World


@dataclass(frozen=True)
class Order:
    """What the customer types in: amounts are in minor units.

    `card` is how the card behaves later, when nobody is there: now it pays.
    """

    promotion_code: str | None = None
    quantity: int | None = None  # of the first line, where it is adjustable
    tax: int = 0
    fee: int | None = None
    email: str = "customer@example.com"
    name: str = "Jenny Rosen"
    card: str = "ok"


def pay(world: World, session: Json, order: Order) -> None:
    """Complete a session with a card that pays."""
    _prepare(world, session, order)
    if session["mode"] == "subscription":
        _subscribe(world, session, order)
    elif session["mode"] == "setup":
        intent = setups.create(world, session["customer"], _setup_metadata(world, session))
        method = _card(world, session, order)
        setups.succeed(world, intent, method)
        world.change(session, setup_intent=intent["id"])
    elif session["amount_total"]:
        intent = _intent(world, session)
        payments.succeed(world, intent, _card(world, session, order), order.fee)
        world.change(session, payment_status="paid")
    _complete(world, session)


def pay_later(world: World, session: Json, order: Order) -> None:
    """Complete a session by a debit from a bank account: the money comes, or not, in days."""
    if session["mode"] != "payment":
        raise ValueError("this server pays later for packs only: a session of mode `payment`")
    _prepare(world, session, order)
    method = charges.create_bank_debit(world, order.email)
    payments.process(world, _intent(world, session), method)
    _complete(world, session)


def clear(world: World, session: Json, fee: int | None) -> None:
    """Let the money of `pay_later` come."""
    payments.clear(world, _waiting(world, session), fee)
    world.change(session, payment_status="paid")
    world.emit("checkout.session.async_payment_succeeded", session)


def fail(world: World, session: Json) -> None:
    """Let the money of `pay_later` not come."""
    payments.bounce(world, _waiting(world, session))
    world.emit("checkout.session.async_payment_failed", session)


def decline(world: World, session: Json, code: str) -> None:
    """Let the customer's card decline: the session stays open, and they may try another."""
    if session["mode"] == "setup" or not session["amount_total"]:
        raise ValueError("there is nothing to pay that could be declined")
    _demand_open(session)
    intent = (
        _intent(world, session)
        if session["mode"] == "payment"
        else _intent_of_subscription(world, session, session["amount_total"])
    )
    payments.decline(world, intent, customers.create_card(world, code), code)


def _demand_open(session: Json) -> None:
    if session["status"] != "open":
        raise ValueError(f"session {session['id']} is {session['status']}, not open")


def _waiting(world: World, session: Json) -> Json:
    intent = world.find(session["payment_intent"], "payment_intent")
    if intent is None or intent["status"] != "processing":
        raise ValueError(f"no money is on its way for session {session['id']}")
    return intent


def _prepare(world: World, session: Json, order: Order) -> None:
    """Apply what the customer typed: code, address and so the tax, email."""
    _demand_open(session)
    if world.now() >= session["expires_at"]:
        raise ValueError(f"session {session['id']} is over: `expire_due` closes it")
    applied, lines = list(session["discounts"]), world.note(session["id"])["lines"]
    try:
        if order.promotion_code is not None:
            applied.append(_typed(world, session, order.promotion_code))
        discounts.check_restrictions(world, applied, lines, session["customer"])
    except Refusal as refused:
        raise ValueError(f"Checkout would not take the discount: {refused}") from refused
    if order.tax and not session["automatic_tax"]["enabled"]:
        raise ValueError("tax is computed where the session enables automatic_tax")
    if order.quantity is not None:
        baskets.take(lines[0], order.quantity)
    baskets.priced(world, lines, applied, order.tax)
    fields: Json = {"discounts": applied}
    if lines:
        fields |= baskets.sums(lines)
    if session["automatic_tax"]["enabled"]:
        fields["automatic_tax"] = {**session["automatic_tax"], "status": "complete"}
    email = session["customer_email"] or at(session, "customer_details.email") or order.email
    fields["customer_details"] = sessions.details(email, order.name)
    world.change(session, **fields)
    if fields.get("amount_total") == 0 and session["mode"] == "payment":
        world.change(session, payment_status="no_payment_required")
    discounts.redeem(world, applied)
    if session["customer"] is None and _needs_customer(world, session):
        made = customers.create_customer(world, email=email, name=order.name)
        world.change(session, customer=made["id"])


def _typed(world: World, session: Json, typed: str) -> Json:
    if not session["allow_promotion_codes"]:
        raise ValueError("the session does not allow promotion codes")
    for code in world.every("promotion_code"):
        if code["code"].lower() == typed.lower() and code["active"]:
            return discounts.redeemable(world, code, "discounts")
    raise ValueError(f"no promotion code {typed!r} is active")


def _needs_customer(world: World, session: Json) -> bool:
    saved = world.note(session["id"])["payment_intent_data"].text("setup_future_usage")
    return session["customer_creation"] == "always" or bool(saved)


def _card(world: World, session: Json, order: Order) -> Json:
    method = customers.create_card(world, order.card)
    world.change(method, billing_details=customers.billing_details(order.email, order.name))
    if session["mode"] != "payment" and session["customer"]:
        customers.attach(world, method["id"], session["customer"])
    return method


def _intent(world: World, session: Json) -> Json:
    """The intent of a session's payment: made when the customer first tries to pay."""
    if found := world.find(session["payment_intent"], "payment_intent"):
        # Since the first attempt a code may have been typed, or an address.
        world.change(found, amount=session["amount_total"], customer=session["customer"])
        return found
    data = world.note(session["id"])["payment_intent_data"]
    made = payments.create_intent(
        world,
        session["amount_total"],
        session["currency"],
        customer=session["customer"],
        description=data.text("description"),
        metadata=data.metadata(),
        payment_method_types=session["payment_method_types"],
        receipt_email=data.text("receipt_email"),
        setup_future_usage=data.text("setup_future_usage"),
    )
    world.change(session, payment_intent=made["id"])
    return made


def _setup_metadata(world: World, session: Json) -> dict[str, str]:
    metadata: dict[str, str] = world.note(session["id"])["setup_intent_data"].metadata()
    return metadata


def _complete(world: World, session: Json) -> None:
    world.change(session, status="complete", url=None)
    world.emit("checkout.session.completed", session)


def _subscribe(world: World, session: Json, order: Order) -> None:
    """Take the money, and then make the subscription that it is for, with its invoice.

    In this order since API version 2025-03-31: a payment that fails leaves no subscription.
    """
    note = world.note(session["id"])
    data, lines = note["subscription_data"], note["lines"]
    method = _card(world, session, order)
    balance = world.get(session["customer"], "customer")["balance"]
    due = max(0, session["amount_total"] + balance)
    intent = None
    if due:
        intent = _intent_of_subscription(world, session, due)
        payments.succeed(world, intent, method, order.fee)
    trial = data.integer("trial_period_days")
    recurring = [each for each in lines if each["price"]["recurring"]]
    made = subscriptions.create(
        world,
        session["customer"],
        [(each["price"], each["quantity"]) for each in recurring],
        trial_days=trial,
        automatic_tax=session["automatic_tax"]["enabled"],
        default_payment_method=method["id"],
        description=data.text("description"),
        metadata=data.metadata(),
        status="trialing" if trial else "active",
    )
    if session["discounts"]:
        discount = discounts.discount_of(
            world,
            session["discounts"][0],
            checkout_session=session["id"],
            customer=session["customer"],
            subscription=made["id"],
        )
        world.change(made, discounts=[discount["id"]])
    once = [each for each in lines if not each["price"]["recurring"]]
    extra = [invoices.one_time_line(world, made, each) for each in once]
    off = session["total_details"]["amount_discount"]
    invoice = subscriptions.first_invoice(world, made, extra, discount=off, tax=order.tax)
    collection.paid_before(world, invoice, intent)
    world.change(
        session,
        invoice=invoice["id"],
        payment_status="paid" if invoice["amount_paid"] else "no_payment_required",
        subscription=made["id"],
    )


def _intent_of_subscription(world: World, session: Json, due: int) -> Json:
    """The intent of a subscription's first payment, in minor units; the session does not show it."""
    note = world.note(session["id"])
    if found := world.find(note.get("intent"), "payment_intent"):
        world.change(found, amount=due, customer=session["customer"])
        return found
    made = payments.create_intent(
        world,
        due,
        session["currency"],
        customer=session["customer"],
        description="Subscription creation",
        setup_future_usage="off_session",
    )
    note["intent"] = made["id"]
    return made
