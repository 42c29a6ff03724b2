"""Per asset, debits are credits, and a transfer cannot cross assets."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.databases import REFUSED
from tests.world import HOUR, World

INSERT = (
    "INSERT INTO comptroller_transfer"
    " (book_id, seq, idx, debit, credit, asset, amount, phase) VALUES (1, 1, 99, ?, ?, ?, ?, 0)"
)


def balances(world: World) -> dict[str, Counter[str]]:
    """Add up what each ledger account was debited and credited, by asset."""
    found: dict[str, Counter[str]] = {}
    for debit, credit, asset, amount, phase in world.rows(
        "SELECT debit, credit, asset, amount, phase FROM comptroller_transfer"
    ):
        if phase in (0, 2):
            sums = found.setdefault(asset, Counter())
            sums[debit] -= amount
            sums[credit] += amount
    return found


def a_busy_day(world: World) -> None:
    lot = world.buy("three")
    world.buy("ten")
    world.comptroller.settle(world.grant(31).id, gpu_seconds=41)
    world.comptroller.release(world.grant(4).id, reason="failed", gpu_seconds=3)
    world.grant(2)
    world.comptroller.refund_lot(lot.id, reference="refund")
    world.clock.advance(2 * HOUR)
    world.comptroller.sweep()


def test_guarantee_balanced_each_asset_adds_up_to_zero(world):
    world.comptroller.set_plan("u", "split")
    a_busy_day(world)
    found = balances(world)
    assert set(found) == {"CREDIT", "usd", "USD.micro"}
    for asset, sums in found.items():
        assert sum(sums.values()) == 0, asset


def test_guarantee_balanced_the_money_of_all_lots_is_somewhere(world):
    world.comptroller.set_plan("u", "split")
    a_busy_day(world)
    money = balances(world)["usd"]
    deferred = sum(amount for account, amount in money.items() if account.startswith("deferred:"))
    ended = sum(money[f"{account}:usd"] for account in ("revenue", "breakage", "refunded"))
    assert -money["cash:usd"] == 500 == deferred + ended


def test_guarantee_balanced_the_units_of_all_lots_are_somewhere(world):
    world.comptroller.set_plan("u", "split")
    a_busy_day(world)
    units = balances(world)["CREDIT"]
    left = sum(amount for account, amount in units.items() if account.startswith("lot:"))
    ended = sum(units[account] for account in ("consumed", "expired", "revoked"))
    assert -units["issued"] == 13 == left + ended


@pytest.mark.parametrize(
    ("debit", "credit", "asset", "amount"),
    [
        ("lot:1", "cash:usd", "CREDIT", 1),
        ("lot:1", "cash:usd", "usd", 1),
        ("lot:1", "consumed", "usd", 1),
        ("deferred:1", "revenue:usd", "USD.micro", 1),
        ("gpu_accrued", "consumed", "USD.micro", 1),
        ("lot:1", "nowhere", "CREDIT", 1),
        ("lot:1", "lot:1", "CREDIT", 1),
        ("lot:1", "consumed", "CREDIT", 0),
        ("lot:1", "consumed", "CREDIT", -1),
    ],
)
def test_guarantee_balanced_the_database_refuses_a_transfer_that_is_none(
    world, debit, credit, asset, amount
):
    world.buy()
    with pytest.raises(REFUSED, match="constraint"):
        world.write(INSERT, debit, credit, asset, amount)
