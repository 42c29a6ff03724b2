"""Every used unit names its lot, and every cent of a lot ends in revenue, breakage or a refund."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.policy_set import PolicySet
from quota import Grant
from tests.world import SECTIONS, START, World, a_world, plan

PAID = "{paid_use: auto, sources: [{kind: credits}]}"


def test_guarantee_traceable_every_used_unit_names_its_lot_and_its_payment(world):
    world.comptroller.set_plan("u", "split")
    world.buy("three", "order-1")
    world.buy("ten", "order-2")
    world.comptroller.settle(world.grant(38).id)
    used = world.rows(
        "SELECT line.source, lot.reference, line.units FROM comptroller_line AS line"
        " LEFT JOIN comptroller_lot AS lot"
        " ON lot.book_id = line.book_id AND lot.number = line.lot_no"
        " WHERE line.kind = 'grant' ORDER BY line.idx"
    )
    assert used == [
        ("daily_allowance", None, 30),
        ("credits", "order-1", 3),
        ("credits", "order-2", 5),
    ]


def test_guarantee_traceable_units_at_a_third_of_a_dollar_close_to_the_cent():
    with a_world(plan(PAID)) as world:
        world.buy("three")
        earned = []
        for _ in range(3):
            world.comptroller.settle(world.grant(1).id)
            earned.append(world.sums("revenue_minor")[0])
        assert earned == [33, 66, 100]


def test_guarantee_traceable_slices_are_taken_from_both_ends():
    """Used from one end, removed from the other: 33 earned, 67 back, whichever comes first."""
    for refund_first in (True, False):
        with a_world(plan(PAID)) as world:
            lot = world.buy("three")
            grant = world.grant(1)
            if not refund_first:
                world.comptroller.settle(grant.id)
            assert world.comptroller.refund_lot(lot.id, reference="refund").amount_minor == 67
            world.comptroller.settle(grant.id)
            assert world.sums("revenue_minor", "refunded_minor") == (33, 67)


def priced(units: int, dollars: int, cents: int) -> PolicySet:
    sections = SECTIONS.replace(
        "units: 3, price: 1.00", f"units: {units}, price: {dollars}.{cents:02}"
    )
    return PolicySet.parse(f"{sections}\ndefault_plan: own\nplans:\n  own: {PAID}\n")


STEP = st.tuples(
    st.sampled_from(["use", "cancel", "fail", "hold", "partly", "refund"]),
    st.integers(1, 9),
    st.integers(0, 20).map(lambda days: timedelta(days=days)),
)


@given(st.integers(1, 17), st.integers(0, 3), st.integers(0, 99), st.lists(STEP, max_size=12))
def test_guarantee_traceable_any_order_of_use_expiry_and_refund_closes_to_the_cent(
    units, dollars, cents, steps
):
    price = 100 * dollars + cents
    with a_world(priced(units, dollars, cents)) as world:
        lot = world.buy("three")
        for action, n, wait in steps:
            take(world, lot.id, action, n)
            world.clock.advance(wait)
            assert sum(money(world)) <= price
        world.clock.set(START + timedelta(days=3650))
        world.comptroller.sweep()
        assert sum(money(world)) == price
        (left,) = world.rows(
            "SELECT sum(money_in_minor - money_out_minor) FROM comptroller_lot_balance"
        )
        assert left == (0,)


def money(world: World) -> tuple[int, ...]:
    return world.sums("revenue_minor", "breakage_minor", "refunded_minor")


def take(world: World, lot_id: str, action: str, n: int) -> None:
    if action == "refund":
        world.comptroller.refund_lot(lot_id, reference="refund")
        return
    grant = world.admit(n)
    if not isinstance(grant, Grant):
        return
    if action == "use":
        world.comptroller.settle(grant.id)
    elif action == "partly":
        world.comptroller.settle(grant.id, delivered={"n": max(1, n // 2)})
    elif action != "hold":
        world.clock.advance(timedelta(minutes=59))
        reason = {"cancel": "cancelled", "fail": "failed"}[action]
        world.comptroller.release(grant.id, reason=reason)


@pytest.mark.parametrize("pack", ["ten", "three"])
def test_guarantee_traceable_no_lot_changes_hands_between_accounts(world, pack):
    world.buy(pack, account="u")
    world.comptroller.set_plan("v", "paid")
    world.deny(account="v")
