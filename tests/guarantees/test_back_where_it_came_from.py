"""Units return to the very windows and lots they came from, dated to the original grant."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.world import DAY, HOUR, START, a_world, plan

PAID = "{paid_use: auto, sources: [{kind: credits}]}"
YEAR = START.replace(year=2027)
"""When a pack that was bought at START expires."""


@pytest.fixture
def paid():
    with a_world(plan(PAID)) as world:
        yield world


def test_guarantee_back_where_it_came_from_each_source_gets_its_own_units(world):
    world.comptroller.set_plan("u", "split")
    world.buy()
    grant = world.grant(33)
    assert grant.units_by_source == {"daily_allowance": 30, "credits": 3}
    assert (world.used(), world.credits()) == (30, 7)
    world.comptroller.release(grant.id, reason="cancelled")
    assert (world.used(), world.credits()) == (0, 10)


def test_guarantee_back_where_it_came_from_a_unit_that_aged_out_adds_nothing():
    policies = plan("{sources: [{kind: daily_allowance, units: 30}]}")
    with a_world(policies) as world:
        old = world.grant(10)
        for _ in range(3):  # kept alive by heartbeats for longer than its window
            world.clock.advance(0.4 * HOUR)
            world.comptroller.extend(old.id, 2 * DAY)
        world.clock.set(old.at + DAY)
        world.grant(30)
        world.comptroller.release(old.id, reason="cancelled")
        assert world.used() == 30
        world.deny()


def test_guarantee_back_where_it_came_from_a_return_frees_the_window_of_the_grants_own_day():
    policies = plan("{sources: [{kind: daily_allowance, units: 30, window: calendar}]}")
    with a_world(policies, start=START.replace(hour=23, minute=30)) as world:
        grant = world.grant(30)
        world.clock.advance(timedelta(minutes=45))
        assert world.used() == 0  # a new day
        world.grant(20)
        world.comptroller.release(grant.id, reason="cancelled")
        assert world.used() == 20


def test_guarantee_back_where_it_came_from_units_go_back_to_each_of_several_lots(paid):
    first, second = paid.buy("three"), paid.buy("ten")
    grant = paid.grant(8)
    assert [(part.lot_id, part.units) for part in grant.allocations] == [
        (first.id, 3),
        (second.id, 5),
    ]
    paid.comptroller.release(grant.id, reason="cancelled")
    lots = {lot.id: lot.available for lot in paid.comptroller.balance("u").lots}
    assert lots == {first.id: 3, second.id: 10}


def test_guarantee_back_where_it_came_from_partial_delivery_keeps_the_first_units(paid):
    first, second = paid.buy("three"), paid.buy("ten")
    grant = paid.grant(8)
    ending = paid.comptroller.settle(grant.id, delivered={"n": 4})
    assert ending.units_charged == 4
    lots = {lot.id: lot.available for lot in paid.comptroller.balance("u").lots}
    assert lots == {second.id: 9}
    assert first.id not in lots


def test_guarantee_back_where_it_came_from_a_lot_stays_good_for_a_hold_that_outlives_it(paid):
    paid.buy()
    paid.clock.set(YEAR - timedelta(minutes=10))
    grant = paid.grant(6)
    paid.clock.set(YEAR + timedelta(minutes=10))
    ending = paid.comptroller.settle(grant.id)
    assert (ending.status, ending.units_charged) == ("settled", 6)
    assert paid.sums("revenue_minor", "breakage_minor") == (240, 160)


def test_guarantee_back_where_it_came_from_units_of_an_expired_lot_become_breakage(paid):
    paid.buy()
    paid.clock.set(YEAR - timedelta(minutes=10))
    grant = paid.grant(6)
    paid.clock.set(YEAR)
    paid.comptroller.release(grant.id, reason="cancelled")
    assert paid.credits() == 0
    assert paid.sums("revenue_minor", "breakage_minor", "refunded_minor") == (0, 400, 0)


def test_guarantee_back_where_it_came_from_units_of_an_expired_lot_live_on_if_it_was_our_failure(
    paid,
):
    lot = paid.buy()
    paid.clock.set(YEAR - timedelta(minutes=10))
    grant = paid.grant(6)
    paid.clock.set(YEAR)
    paid.comptroller.release(grant.id, reason="failed")
    (carried,) = paid.comptroller.balance("u").lots
    assert carried.id != lot.id
    assert (carried.available, carried.price_minor) == (6, 240)
    assert carried.expires_at == YEAR + timedelta(days=7)
    assert paid.sums("breakage_minor") == (160,)
    paid.comptroller.settle(paid.grant(5).id)
    paid.clock.set(carried.expires_at)
    paid.comptroller.sweep()
    assert paid.sums("revenue_minor", "breakage_minor") == (200, 200)


def test_guarantee_back_where_it_came_from_units_of_a_refunded_lot_are_refunded(paid):
    lot = paid.buy()
    grant = paid.grant(6)
    paid.comptroller.refund_lot(lot.id, reference="refund")
    ending = paid.comptroller.release(grant.id, reason="failed")
    assert ending.refunded_minor == 240
    assert paid.credits() == 0
    assert paid.sums("refunded_minor", "revenue_minor") == (400, 0)


def test_guarantee_back_where_it_came_from_what_expires_returns_to_its_lot(paid):
    paid.buy()
    grant = paid.grant(6)
    paid.clock.set(grant.expires_at)
    assert paid.credits() == 10
    paid.grant(10)


def test_guarantee_back_where_it_came_from_spend_returns_with_the_units():
    policies = plan(
        "{paid_use: auto, limits: [{kind: spend, limit: 200, per: 7d}], sources: [{kind: credits}]}"
    )
    with a_world(policies) as world:
        world.buy()
        grant = world.grant(5)
        assert world.deny(1).reason == "spend_exceeded"
        world.comptroller.settle(grant.id, delivered={"n": 3})
        world.grant(2)
        assert world.deny(1).reason == "spend_exceeded"
