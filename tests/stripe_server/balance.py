"""The account's balance: every movement of money, its fee, and the payouts that empty it."""

from __future__ import annotations

from collections import defaultdict
from fractions import Fraction
from typing import Final

from tests.stripe_server.errors import Json
from tests.stripe_server.routes import Call, route
from tests.stripe_server.world import World

DAY_SECONDS: Final = 86_400
AVAILABLE_SECONDS: Final = 2 * DAY_SECONDS


def record(
    world: World,
    kind: str,
    source: Json,
    amount: int,
    currency: str,
    *,
    fee: int = 0,
    category: str | None = None,
    description: str | None = None,
) -> Json:
    """Record a movement: `amount` and `fee` in minor units of the currency that was charged.

    Where the account settles that currency in another, both are converted first, as Stripe does.
    """
    settled, rate = world.settlement.get(currency, (currency, None))
    if rate is not None:
        amount, fee = _converted(amount, rate), _converted(fee, rate)
    made = world.add(
        "balance_transaction",
        f"txn_1{world.ids.letters(23)}",
        amount=amount,
        available_on=world.now() + AVAILABLE_SECONDS,
        balance_type="payments",
        currency=settled,
        description=description,
        exchange_rate=float(rate) if rate is not None else None,
        fee=fee,
        fee_details=_details(fee, settled, kind),
        net=amount - fee,
        reporting_category=category or kind,
        source=source["id"],
        status="pending",
        type=kind,
    )
    mature(world)
    return made


def mature(world: World) -> None:
    """Let what has waited long enough become available."""
    for each in world.every("balance_transaction"):
        if each["status"] == "pending" and each["available_on"] <= world.now():
            each["status"] = "available"


def pay_out(world: World, currency: str | None = None) -> Json:
    """Send what is available in a currency to the bank, and return the Payout.

    Raises:
        ValueError: nothing is available: the clock has to pass what is pending.
    """
    mature(world)
    rows = [
        each
        for each in world.every("balance_transaction")
        if each["status"] == "available"
        and each["type"] != "payout"
        and "payout" not in world.note(each["id"])
        and currency in {None, each["currency"]}
    ]
    if not rows:
        raise ValueError("nothing is available to pay out: step the clock past `available_on`")
    paid = rows[0]["currency"]
    rows = [each for each in rows if each["currency"] == paid]
    amount = sum(each["net"] for each in rows)
    made = world.add(
        "payout",
        f"po_1{world.ids.letters(23)}",
        amount=amount,
        application_fee=None,
        application_fee_amount=None,
        arrival_date=world.now() // DAY_SECONDS * DAY_SECONDS + DAY_SECONDS,
        automatic=True,
        balance_transaction=None,
        currency=paid,
        description="STRIPE PAYOUT",
        destination=f"ba_1{world.ids.letters(23)}",
        failure_balance_transaction=None,
        failure_code=None,
        failure_message=None,
        livemode=world.livemode,
        metadata={},
        method="standard",
        original_payout=None,
        payout_method=None,
        reconciliation_status="in_progress",
        reversed_by=None,
        source_type="card",
        statement_descriptor=None,
        status="in_transit",
        trace_id=None,
        type="bank_account",
    )
    # Already in the currency of the balance: it is not converted once more.
    row = _record_payout(world, made)
    world.change(made, balance_transaction=row["id"])
    for each in [*rows, row]:
        world.note(each["id"])["payout"] = made["id"]
    world.emit("payout.created", made)
    world.update("payout.paid", made, status="paid")
    world.update("payout.reconciliation_completed", made, reconciliation_status="completed")
    return made


def fail_payout(world: World, made: Json) -> None:
    """Let the bank send a payout back: the money is in the balance again."""
    if made["status"] not in {"in_transit", "paid"}:
        raise ValueError(f"payout {made['id']} is {made['status']}: it cannot fail")
    settlement, world.settlement = world.settlement, {}
    try:
        row = record(world, "payout_failure", made, made["amount"], made["currency"])
    finally:
        world.settlement = settlement
    previous = world.change(
        made,
        failure_balance_transaction=row["id"],
        failure_code="account_closed",
        failure_message="The bank account has been closed.",
        status="failed",
    )
    world.emit("payout.failed", made, previous)


def _record_payout(world: World, payout: Json) -> Json:
    settlement, world.settlement = world.settlement, {}
    try:
        row = record(world, "payout", payout, -payout["amount"], payout["currency"])
    finally:
        world.settlement = settlement
    world.change(row, available_on=payout["arrival_date"], description="STRIPE PAYOUT")
    return row


@route("GET", "/v1/balance")
def get_balance(call: Call) -> Json:
    sums: dict[str, dict[str, int]] = {"available": defaultdict(int), "pending": defaultdict(int)}
    for each in call.world.every("balance_transaction"):
        status = "available" if each["type"] == "payout" else each["status"]
        sums[status][each["currency"]] += each["net"]
    currencies = sorted({*sums["available"], *sums["pending"]}) or [call.world.currency]
    parts = {
        status: [
            {
                "amount": held.get(currency, 0),
                "currency": currency,
                "source_types": {"card": held.get(currency, 0)},
            }
            for currency in currencies
        ]
        for status, held in sums.items()
    }
    return {"object": "balance", "livemode": call.world.livemode, **parts}


def _converted(amount: int, rate: Fraction) -> int:
    return round(amount * rate)


def _details(fee: int, currency: str, kind: str) -> list[Json]:
    if not fee:
        return []
    description = "Dispute fee" if kind == "adjustment" else "Stripe processing fees"
    row = {"amount": fee, "application": None, "currency": currency, "type": "stripe_fee"}
    return [{**row, "description": description}]
