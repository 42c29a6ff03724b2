"""Charges: each attempt to take money, whether it came, was declined or is still on its way."""

from __future__ import annotations

from typing import Final

from tests.stripe_server import balance
from tests.stripe_server.customers import billing_details
from tests.stripe_server.errors import Json
from tests.stripe_server.expansion import part
from tests.stripe_server.lists import page, whole
from tests.stripe_server.routes import Call, route
from tests.stripe_server.world import World

MESSAGES: Final = {
    "generic_decline": "Your card was declined.",
    "insufficient_funds": "Your card has insufficient funds.",
    "expired_card": "Your card has expired.",
    "authentication_required": "Your card was declined. This transaction requires authentication.",
    "bank_account_declined": "The customer's bank account could not be debited.",
}


def create(world: World, intent: Json, method: Json, status: str) -> Json:
    """Make the charge of an attempt to pay an intent: "succeeded", "failed" or "pending"."""
    card = method["type"] == "card"
    done = status == "succeeded"
    made = world.add(
        "charge",
        f"{'ch' if card else 'py'}_3{world.ids.letters(23)}",
        amount=intent["amount"],
        amount_captured=intent["amount"] if done else 0,
        amount_refunded=0,
        application=None,
        application_fee=None,
        application_fee_amount=None,
        balance_transaction=None,
        billing_details=method["billing_details"],
        calculated_statement_descriptor="COMPTROLLER",
        captured=status != "failed",
        currency=intent["currency"],
        customer=intent["customer"],
        description=intent["description"],
        disputed=False,
        failure_balance_transaction=None,
        failure_code=None,
        failure_message=None,
        fraud_details={},
        livemode=world.livemode,
        metadata=dict(intent["metadata"]),
        on_behalf_of=None,
        outcome=outcome(status, None),
        paid=done,
        payment_intent=intent["id"],
        payment_method=method["id"],
        payment_method_details=details(method),
        radar_options={},
        receipt_email=intent["receipt_email"],
        receipt_number=None,
        receipt_url=f"https://pay.stripe.com/receipts/payment/{world.ids.letters(40)}",
        refunded=False,
        review=None,
        shipping=None,
        source_transfer=None,
        statement_descriptor=None,
        statement_descriptor_suffix=None,
        status=status,
        transfer_data=None,
        transfer_group=None,
    )
    world.change(intent, latest_charge=made["id"])
    return made


def settle(world: World, charge: Json, fee: int | None) -> None:
    """Put the money of a charge into the balance, less the fee in minor units.

    It is a step of its own: under asynchronous capture, which is usual, `charge.succeeded` does
    not know its balance transaction yet, and `charge.updated` brings it.
    """
    currency = charge["currency"]
    kept = world.fees(charge["amount"], currency) if fee is None else fee
    kind = "charge" if charge["id"].startswith("ch_") else "payment"
    row = balance.record(
        world, kind, charge, charge["amount"], currency, fee=kept, category="charge"
    )
    world.update("charge.updated", charge, balance_transaction=row["id"])


def outcome(status: str, decline: str | None) -> Json:
    declined = status == "failed"
    return {
        "advice_code": "try_again_later" if declined else None,
        "network_advice_code": None,
        "network_decline_code": "01" if declined else None,
        "network_status": "declined_by_network" if declined else "approved_by_network",
        "reason": decline,
        "risk_level": "normal",
        "risk_score": 12,
        "seller_message": "The bank declined the payment." if declined else "Payment complete.",
        "type": "issuer_declined" if declined else "authorized",
    }


def details(method: Json) -> Json:
    """The `payment_method_details` of a charge by this method."""
    if method["type"] != "card":
        return {"type": method["type"], method["type"]: dict(method[method["type"]])}
    face = method["card"]
    kept = ("brand", "checks", "country", "exp_month", "exp_year", "fingerprint", "funding")
    return {
        "type": "card",
        "card": {
            **{name: face[name] for name in kept},
            "installments": None,
            "last4": face["last4"],
            "mandate": None,
            "network": "visa",
            "network_token": {"used": False},
            "network_transaction_id": None,
            "regulated_status": face["regulated_status"],
            "three_d_secure": None,
            "wallet": None,
        },
    }


def create_bank_debit(world: World, email: str | None) -> Json:
    """A payment method whose money comes days later, or does not: a bank account in the US."""
    return world.add(
        "payment_method",
        f"pm_1{world.ids.letters(23)}",
        allow_redisplay="unspecified",
        billing_details=billing_details(email, None),
        customer=None,
        livemode=world.livemode,
        metadata={},
        type="us_bank_account",
        us_bank_account={
            "account_holder_type": "individual",
            "account_type": "checking",
            "bank_name": "STRIPE TEST BANK",
            "fingerprint": world.ids.letters(16),
            "last4": "6789",
            "routing_number": "110000000",
        },
    )


@route("POST", "/v1/charges/{charge}")
def update_charge(call: Call) -> Json:
    charge = call.world.get(call.id, "charge")
    fields: Json = {}
    if "description" in call.params:
        fields["description"] = call.params.text("description")
    if "metadata" in call.params:
        fields["metadata"] = call.params.metadata(charge["metadata"])
    return call.world.update("charge.updated", charge, **fields)


def refunds_of(world: World, charge: Json) -> list[Json]:
    return [each for each in world.every("refund") if each["charge"] == charge["id"]]


@part("charge", "refunds")
def refunds_part(world: World, charge: Json) -> Json:
    return whole(refunds_of(world, charge), f"/v1/charges/{charge['id']}/refunds")


@route("GET", "/v1/charges/{charge}/refunds")
def list_refunds_of_charge(call: Call) -> Json:
    charge = call.world.get(call.id, "charge")
    return page(refunds_of(call.world, charge), call.params, call.path)
