"""Invoices: what a subscription owes, line by line, and how it was paid."""

from __future__ import annotations

from collections.abc import Sequence

from tests.stripe_server import payments
from tests.stripe_server.errors import Json, Refusal, invalid
from tests.stripe_server.expansion import part
from tests.stripe_server.lists import at, page, whole
from tests.stripe_server.routes import Call, route
from tests.stripe_server.world import World


def line(
    world: World,
    item: Json,
    amount: int,
    period: tuple[int, int],
    description: str,
    *,
    invoice_item: str | None = None,
    credited: Json | None = None,
) -> Json:
    """Make a line for a subscription item; one with an invoice item is a proration.

    `amount` is in minor units, the period in seconds since 1970. `credited` names the invoice
    whose line a proration gives back.
    """
    subscription = world.get(item["subscription"], "subscription")
    parent = {
        "invoice_item_details": None,
        "subscription_item_details": {
            "invoice_item": invoice_item,
            "proration": invoice_item is not None,
            "proration_details": {"credited_items": credited},
            "subscription": item["subscription"],
            "subscription_item": item["id"],
        },
        "type": "subscription_item_details",
    }
    made = _line(world, subscription, item, amount, description, parent)
    made["period"] = {"start": period[0], "end": period[1]}
    return made


def one_time_line(world: World, subscription: Json, bought: Json) -> Json:
    """Make the line of a price that is paid once, beside a subscription's first period.

    `bought` is the line of the Checkout Session that sells it.
    """
    parent = {
        "invoice_item_details": {
            "invoice_item": f"ii_1{world.ids.letters(23)}",
            "proration": False,
            "proration_details": {"credited_items": None},
            "subscription": subscription["id"],
        },
        "subscription_item_details": None,
        "type": "invoice_item_details",
    }
    amount, text = bought["amount_subtotal"], bought["description"]
    return _line(world, subscription, bought, amount, text, parent)


def _line(
    world: World, subscription: Json, item: Json, amount: int, description: str, parent: Json
) -> Json:
    """What lines have in common; their metadata is the subscription's."""
    price = item["price"]
    details = parent["subscription_item_details"] or parent["invoice_item_details"]
    return {
        "id": f"il_1{world.ids.letters(23)}",
        "object": "line_item",
        "amount": amount,
        "currency": price["currency"],
        "description": description,
        "discount_amounts": [],
        "discountable": not details["proration"],
        "discounts": [],
        "invoice": None,
        "livemode": world.livemode,
        "metadata": dict(subscription["metadata"]),
        "parent": parent,
        "period": {"start": world.now(), "end": world.now()},
        "pretax_credit_amounts": [],
        "pricing": {
            "price_details": {"price": price["id"], "product": price["product"]},
            "type": "price_details",
            "unit_amount_decimal": price["unit_amount_decimal"],
        },
        "quantity": item["quantity"],
        "subscription": subscription["id"],
        "subtotal": amount,
        "taxes": [],
    }


def create(
    world: World,
    subscription: Json,
    lines: Sequence[Json],
    reason: str,
    period: tuple[int, int],
    *,
    discount: int = 0,
    tax: int = 0,
) -> Json:
    """Make the invoice of these lines and finalise it. It is open, or paid where nothing is due.

    Amounts are in minor units. What the customer has in credit is used first; what a credit note
    of prorations leaves over is credited to them.
    """
    customer = world.get(subscription["customer"], "customer")
    subtotal = sum(each["amount"] for each in lines)
    total = subtotal - discount + tax
    before = customer["balance"]
    due = max(0, total + before)
    identity = f"in_1{world.ids.letters(23)}"
    for each in lines:
        each["invoice"] = identity
    world.note(identity)["lines"] = list(lines)
    number = f"{customer['invoice_prefix']}-{customer['next_invoice_sequence']:04}"
    fields = _face(world, subscription, customer, period)
    made = world.add(
        "invoice",
        identity,
        **fields,
        amount_due=due,
        amount_remaining=due,
        billing_reason=reason,
        lines=whole(lines, f"/v1/invoices/{identity}/lines"),
        starting_balance=before,
        subtotal=subtotal,
        subtotal_excluding_tax=subtotal,
        total=total,
        total_discount_amounts=_discounted(subscription, discount),
        total_excluding_tax=total - tax,
        total_taxes=_taxes(tax, total - tax),
    )
    world.change(subscription, latest_invoice=identity)
    world.emit("invoice.created", made)
    after = before + total - due
    world.change(customer, next_invoice_sequence=customer["next_invoice_sequence"] + 1)
    world.update("customer.updated", customer, balance=after)
    transitions = {**made["status_transitions"], "finalized_at": world.now()}
    previous = world.change(
        made, effective_at=world.now(), ending_balance=after, number=number, status="open",
        status_transitions=transitions,
    )  # fmt: skip
    world.emit("invoice.finalized", made, previous)
    return made


def _face(world: World, subscription: Json, customer: Json, period: tuple[int, int]) -> Json:
    """What an invoice says besides its sums."""
    return {
        "account_country": "US",
        "account_name": "Comptroller",
        "account_tax_ids": None,
        "amount_overpaid": 0,
        "amount_paid": 0,
        "amount_paid_off_stripe": 0,
        "amount_shipping": 0,
        "application": None,
        "attempt_count": 0,
        "attempted": False,
        "auto_advance": True,
        "automatic_tax": {
            "disabled_reason": None,
            "enabled": subscription["automatic_tax"]["enabled"],
            "liability": subscription["automatic_tax"]["liability"],
            "provider": "stripe" if subscription["automatic_tax"]["enabled"] else None,
            "status": "complete" if subscription["automatic_tax"]["enabled"] else None,
        },
        "collection_method": "charge_automatically",
        "currency": subscription["currency"],
        "customer": customer["id"],
        "customer_email": customer["email"],
        "customer_name": customer["name"],
        "default_payment_method": None,
        "default_tax_rates": [],
        "description": None,
        "discounts": [],
        "due_date": None,
        "effective_at": None,
        "ending_balance": None,
        "hosted_invoice_url": f"https://invoice.stripe.com/i/{world.ids.letters(30)}",
        "issuer": {"type": "self"},
        "livemode": world.livemode,
        "metadata": {},
        "next_payment_attempt": None,
        "number": None,
        "parent": {
            "quote_details": None,
            "subscription_details": {
                "metadata": dict(subscription["metadata"]),
                "subscription": subscription["id"],
            },
            "type": "subscription_details",
        },
        "payment_settings": {
            "default_mandate": None,
            "payment_method_options": None,
            "payment_method_types": None,
        },
        "period_start": period[0],
        "period_end": period[1],
        "post_payment_credit_notes_amount": 0,
        "pre_payment_credit_notes_amount": 0,
        "receipt_number": None,
        "status": "draft",
        "status_transitions": dict.fromkeys(
            ("finalized_at", "marked_uncollectible_at", "paid_at", "voided_at")
        ),
    }


def _discounted(subscription: Json, discount: int) -> list[Json]:
    if not discount:
        return []
    return [{"amount": discount, "discount": subscription["discounts"][0]}]


def _taxes(tax: int, taxable: int) -> list[Json]:
    if not tax:
        return []
    return [
        {
            "amount": tax,
            "tax_behavior": "exclusive",
            "tax_rate_details": None,
            "taxability_reason": "standard_rated",
            "taxable_amount": taxable,
            "type": "tax_rate_details",
        }
    ]


# --- paying -------------------------------------------------------------------------------------


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


@route("GET", "/v1/invoices/{invoice}/lines")
def list_lines(call: Call) -> Json:
    call.world.get(call.id, "invoice")
    return page(call.world.note(call.id)["lines"], call.params, call.path)


@route("POST", "/v1/invoices/{invoice}")
def update_invoice(call: Call) -> Json:
    made = call.world.get(call.id, "invoice")
    if "metadata" not in call.params:
        return made
    metadata = call.params.metadata(made["metadata"])
    return call.world.update("invoice.updated", made, metadata=metadata)


@route("POST", "/v1/invoices/{invoice}/void")
def void_invoice(call: Call) -> Json:
    made = call.world.get(call.id, "invoice")
    if made["status"] != "open":
        raise invalid(f"You can only void open invoices. This invoice is {made['status']}.")
    transitions = {**made["status_transitions"], "voided_at": call.world.now()}
    call.world.change(made, auto_advance=False, status="void", status_transitions=transitions)
    call.world.emit("invoice.voided", made)
    return made


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
