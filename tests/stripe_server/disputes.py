"""Disputes: the customer's bank takes the money, and returns it if the account wins."""

from __future__ import annotations

from typing import Final

from tests.stripe_server import balance
from tests.stripe_server.errors import Json, invalid
from tests.stripe_server.routes import Call, route
from tests.stripe_server.world import World

FEE: Final = 1500
ANSWER_SECONDS: Final = 9 * balance.DAY_SECONDS
_OPEN: Final = frozenset({"needs_response", "under_review"})
_INQUIRY: Final = frozenset({"warning_needs_response", "warning_under_review"})
_EVIDENCE: Final = (
    "access_activity_log billing_address cancellation_policy cancellation_policy_disclosure "
    "cancellation_rebuttal customer_communication customer_email_address customer_name "
    "customer_purchase_ip customer_signature duplicate_charge_documentation "
    "duplicate_charge_explanation duplicate_charge_id product_description receipt refund_policy "
    "refund_policy_disclosure refund_refusal_explanation service_date service_documentation "
    "shipping_address shipping_carrier shipping_date shipping_documentation "
    "shipping_tracking_number uncategorized_file uncategorized_text"
).split()


def dispute(
    world: World,
    charge: Json,
    amount: int | None = None,
    *,
    reason: str = "fraudulent",
    fee: int = FEE,
    inquiry: bool = False,
) -> Json:
    """Let the customer's bank dispute a charge, whole or so many minor units of it.

    An inquiry asks first: no money moves until it becomes a dispute.
    """
    if charge["status"] != "succeeded":
        raise ValueError(f"charge {charge['id']} is {charge['status']}: nobody disputes it")
    left = charge["amount"] - charge["amount_refunded"]
    amount = left if amount is None else amount
    made = world.add(
        "dispute",
        f"du_1{world.ids.letters(23)}",
        amount=amount,
        balance_transactions=[],
        charge=charge["id"],
        currency=charge["currency"],
        enhanced_eligibility_types=[],
        evidence={**dict.fromkeys(_EVIDENCE), "enhanced_evidence": {}},
        evidence_details={
            "due_by": world.now() + ANSWER_SECONDS,
            "enhanced_eligibility": {},
            "has_evidence": False,
            "past_due": False,
            "submission_count": 0,
        },
        is_charge_refundable=inquiry,
        livemode=world.livemode,
        metadata={},
        payment_intent=charge["payment_intent"],
        payment_method_details={
            "card": {
                "brand": "visa",
                "case_type": "inquiry" if inquiry else "chargeback",
                "network": "visa",
                "network_reason_code": "10.4",
            },
            "type": "card",
        },
        reason=reason,
        status="warning_needs_response" if inquiry else "needs_response",
    )
    world.note(made["id"])["fee"] = fee
    world.change(charge, disputed=True)
    if not inquiry:
        _withdraw(world, made)
    world.emit("charge.dispute.created", made)
    if not inquiry:
        world.emit("charge.dispute.funds_withdrawn", made)
    return made


def escalate(world: World, made: Json) -> None:
    """Let an inquiry become a dispute: now the money goes."""
    _demand(made, _INQUIRY)
    _withdraw(world, made)
    card = {**made["payment_method_details"]["card"], "case_type": "chargeback"}
    world.update(
        "charge.dispute.updated",
        made,
        is_charge_refundable=False,
        payment_method_details={"card": card, "type": "card"},
        status="needs_response",
    )
    world.emit("charge.dispute.funds_withdrawn", made)


def win(world: World, made: Json, *, fee_returned: bool = False) -> None:
    """Close a dispute in the account's favour: the money returns, the fee where asked."""
    if made["status"] in _INQUIRY:
        _close(world, made, "warning_closed")
        return
    _demand(made, _OPEN)
    fee = -world.note(made["id"])["fee"] if fee_returned else 0
    row = balance.record(
        world,
        "adjustment",
        made,
        made["amount"],
        made["currency"],
        fee=fee,
        category="dispute_reversal",
        description=f"Chargeback reversal for {made['charge']}",
    )
    made["balance_transactions"].append(dict(row))
    _close(world, made, "won")
    world.emit("charge.dispute.funds_reinstated", made)


def lose(world: World, made: Json) -> None:
    """Close a dispute in the customer's favour: the money stays where it went."""
    _demand(made, _OPEN)
    _close(world, made, "lost")


def _withdraw(world: World, made: Json) -> None:
    row = balance.record(
        world,
        "adjustment",
        made,
        -made["amount"],
        made["currency"],
        fee=world.note(made["id"])["fee"],
        category="dispute",
        description=f"Chargeback withdrawal for {made['charge']}",
    )
    made["balance_transactions"] = [*made["balance_transactions"], dict(row)]


def _close(world: World, made: Json, status: str) -> None:
    previous = world.change(made, status=status)
    world.emit("charge.dispute.closed", made, previous)


def _demand(made: Json, wanted: frozenset[str]) -> None:
    if made["status"] not in wanted:
        raise ValueError(f"dispute {made['id']} is {made['status']} already")


@route("POST", "/v1/disputes/{dispute}")
def update_dispute(call: Call) -> Json:
    made, params = call.world.get(call.id, "dispute"), call.params
    if made["status"] not in _OPEN | _INQUIRY:
        raise invalid("This dispute is already closed.")
    fields: Json = {}
    if "metadata" in params:
        fields["metadata"] = params.metadata(made["metadata"])
    evidence = params.branch("evidence")
    if evidence:
        given = {name: evidence.text(name) for name in _EVIDENCE if name in evidence}
        fields["evidence"] = {**made["evidence"], **given}
        fields["evidence_details"] = {**made["evidence_details"], "has_evidence": True}
    if evidence and params.flag("submit") is not False:
        count = made["evidence_details"]["submission_count"] + 1
        fields["evidence_details"]["submission_count"] = count
        inquiry = made["status"] in _INQUIRY
        fields["status"] = "warning_under_review" if inquiry else "under_review"
    return call.world.update("charge.dispute.updated", made, **fields)


@route("POST", "/v1/disputes/{dispute}/close")
def close_dispute(call: Call) -> Json:
    """Accept a dispute: it is lost."""
    made = call.world.get(call.id, "dispute")
    if made["status"] not in _OPEN:
        raise invalid("This dispute is already closed.")
    lose(call.world, made)
    return made
