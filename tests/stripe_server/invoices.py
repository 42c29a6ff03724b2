"""Invoices: what a subscription owes, line by line, and how it was paid."""

from __future__ import annotations

from collections.abc import Sequence

from tests.stripe_server.errors import Json, invalid
from tests.stripe_server.lists import page, whole
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


# --- the endpoints -----------------------------------------------------------------------------


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
