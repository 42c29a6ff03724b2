"""Refunds: money that goes back, at once or later, and now and then comes back again."""

from __future__ import annotations

from tests.stripe_server import balance
from tests.stripe_server.errors import Json, invalid, missing_parameter
from tests.stripe_server.routes import Call, route
from tests.stripe_server.world import World


def refund(
    world: World,
    charge: Json,
    amount: int | None = None,
    *,
    pending: bool = False,
    reason: str | None = None,
    metadata: dict[str, str] | None = None,
) -> Json:
    """Give back so many minor units of a charge, or all that is left of it.

    Raises:
        Refusal: it did not succeed, is lost to a dispute, or has less left.
    """
    identity, left = charge["id"], charge["amount"] - charge["amount_refunded"]
    if charge["status"] != "succeeded":
        raise invalid(
            f"Charge {identity} cannot be refunded: it has not succeeded.", param="charge"
        )
    if _is_charged_back(world, identity):
        message = f"Charge {identity} has been charged back; cannot issue a refund."
        raise invalid(message, code="charge_disputed", param="charge")
    if left == 0:
        message = f"Charge {identity} has already been refunded."
        raise invalid(message, code="charge_already_refunded")
    amount = left if amount is None else amount
    if not 0 < amount <= left:
        message = (
            f"Refund amount ({amount}) is greater than unrefunded amount on charge ({left})"
            if amount > 0
            else "Invalid positive integer"
        )
        raise invalid(message, param="amount")
    card = identity.startswith("ch_")
    made = world.add(
        "refund",
        f"{'re' if card else 'pyr'}_3{world.ids.letters(23)}",
        amount=amount,
        balance_transaction=None,
        charge=identity,
        currency=charge["currency"],
        destination_details=_destination(charge),
        metadata=metadata or {},
        payment_intent=charge["payment_intent"],
        reason=reason,
        receipt_number=None,
        source_transfer_reversal=None,
        status="pending" if pending else "succeeded",
        transfer_reversal=None,
    )
    kind = "refund" if card else "payment_refund"
    row = balance.record(world, kind, made, -amount, charge["currency"], category="refund")
    world.change(made, balance_transaction=row["id"])
    total = charge["amount_refunded"] + amount
    previous = world.change(charge, amount_refunded=total, refunded=total == charge["amount"])
    world.emit("refund.created", made)
    world.emit("charge.refunded", charge, previous)
    return made


def settle(world: World, made: Json) -> None:
    """Let a refund that was pending reach the customer."""
    _demand_pending(made, "settled", {"pending"})
    _say_updated(world, made, world.change(made, status="succeeded"))


def fail(world: World, made: Json, reason: str) -> None:
    """Let a refund come back: the money is the account's again, and the charge's to refund.

    A card's refund may fail long after it succeeded, when the bank returns it.
    """
    _demand_pending(made, "failed", {"pending", "succeeded"})
    charge = world.get(made["charge"], "charge")
    row = balance.record(
        world, "refund_failure", made, made["amount"], made["currency"], category="refund_failure"
    )
    previous = world.change(
        made, failure_balance_transaction=row["id"], failure_reason=reason, status="failed"
    )
    _give_back(world, charge, made)
    _say_updated(world, made, previous)
    world.emit("refund.failed", made)


def cancel(world: World, made: Json) -> None:
    """Stop a refund that has not been sent: the money is the account's again."""
    _demand_pending(made, "cancelled", {"pending"})
    row = balance.record(
        world, "refund_failure", made, made["amount"], made["currency"], category="refund_failure"
    )
    previous = world.change(
        made,
        failure_balance_transaction=row["id"],
        failure_reason="merchant_request",
        status="canceled",
    )
    _give_back(world, world.get(made["charge"], "charge"), made)
    _say_updated(world, made, previous)


def _demand_pending(made: Json, done: str, wanted: set[str]) -> None:
    if made["status"] not in wanted:
        raise ValueError(f"refund {made['id']} is {made['status']}: it cannot be {done}")


def _give_back(world: World, charge: Json, made: Json) -> None:
    left = charge["amount_refunded"] - made["amount"]
    world.change(charge, amount_refunded=left, refunded=False)


def _say_updated(world: World, made: Json, previous: Json) -> None:
    world.emit("refund.updated", made, previous)
    world.emit("charge.refund.updated", made, previous)


def _destination(charge: Json) -> Json:
    kind = charge["payment_method_details"]["type"]
    return (
        {"type": "card", "card": {"type": "refund"}}
        if kind == "card"
        else {
            "type": "us_bank_transfer",
            "us_bank_transfer": {"reference": None, "reference_status": "pending"},
        }
    )


def _is_charged_back(world: World, charge: str) -> bool:
    return any(
        each["charge"] == charge and not each["is_charge_refundable"] and each["status"] != "won"
        for each in world.every("dispute")
    )


@route("POST", "/v1/refunds")
def post_refund(call: Call) -> Json:
    params, world = call.params, call.world
    if named := params.text("payment_intent"):
        intent = world.get(named, "payment_intent", param="payment_intent")
        charge = world.find(intent["latest_charge"], "charge")
        if charge is None or charge["status"] != "succeeded":
            message = f"This PaymentIntent ({named}) does not have a successful charge to refund."
            raise invalid(message, code="payment_intent_unexpected_state", param="payment_intent")
    elif named := params.text("charge"):
        charge = world.get(named, "charge", param="charge")
    else:
        raise missing_parameter("payment_intent")
    return refund(
        world,
        charge,
        params.integer("amount"),
        pending=charge["id"].startswith("py_"),
        reason=params.text("reason"),
        metadata=params.metadata(),
    )


@route("POST", "/v1/refunds/{refund}")
def update_refund(call: Call) -> Json:
    made = call.world.get(call.id, "refund")
    if "metadata" in call.params:
        previous = call.world.change(made, metadata=call.params.metadata(made["metadata"]))
        if previous:
            _say_updated(call.world, made, previous)
    return made
