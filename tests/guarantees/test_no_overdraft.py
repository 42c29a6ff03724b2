"""Neither the available credits of a lot nor its deferred money fall below zero."""

from __future__ import annotations

import pytest

from tests.databases import REFUSED
from tests.world import HOUR, World, a_world, plan


def lots(world: World) -> list[tuple[int, int, int, int, int, int]]:
    return world.rows(
        "SELECT units_in, units_used, units_gone, units_held, money_in_minor, money_out_minor"
        " FROM comptroller_lot_balance ORDER BY lot_no"
    )


@pytest.fixture
def paid():
    with a_world(plan("{paid_use: auto, sources: [{kind: credits}]}")) as world:
        yield world


def test_guarantee_no_overdraft_what_is_held_cannot_be_granted_again(paid):
    paid.buy()
    paid.grant(6)
    assert paid.credits() == 4
    assert paid.deny(5).reason == "credits_exhausted"
    paid.grant(4)
    assert paid.credits() == 0
    assert paid.deny(1).reason == "credits_exhausted"


def test_guarantee_no_overdraft_a_refund_leaves_what_is_held_alone(paid):
    lot = paid.buy()
    grant = paid.grant(6)
    refund = paid.comptroller.refund_lot(lot.id, reference="refund-1")
    assert (refund.units, refund.amount_minor) == (4, 160)
    assert paid.credits() == 0
    paid.comptroller.settle(grant.id)
    assert lots(paid) == [(10, 6, 4, 0, 400, 400)]


def test_guarantee_no_overdraft_late_work_is_not_charged_to_credits_that_are_gone():
    policies = plan(
        "{paid_use: auto, sources: [{kind: credits}]}", more="on_late_settle: charge_if_available"
    )
    with a_world(policies) as world:
        world.buy()
        late = world.grant(6)
        world.clock.advance(2 * HOUR)
        world.grant(6)
        assert world.comptroller.settle(late.id).units_charged == 0
        assert world.credits() == 4


def test_guarantee_no_overdraft_late_work_is_charged_to_credits_that_are_there():
    policies = plan(
        "{paid_use: auto, sources: [{kind: credits}]}", more="on_late_settle: charge_if_available"
    )
    with a_world(policies) as world:
        world.buy()
        late = world.grant(6)
        world.clock.advance(2 * HOUR)
        assert world.comptroller.settle(late.id).units_charged == 6
        assert world.credits() == 4
        assert world.deny(5).reason == "credits_exhausted"


@pytest.mark.parametrize(
    "change",
    [
        "units_held = units_held + 5",
        "units_used = units_used + 5",
        "units_gone = units_gone + 5",
        "units_in = units_in - 5",
        "units_held = -1",
        "money_out_minor = money_out_minor + 401",
        "money_in_minor = money_in_minor - 401",
    ],
)
def test_guarantee_no_overdraft_the_database_refuses_it(paid, change):
    paid.buy()
    paid.grant(6)
    before = lots(paid)
    with pytest.raises(REFUSED, match=r"(?i)check constraint"):
        paid.write(f"UPDATE comptroller_lot_balance SET {change}")
    assert lots(paid) == before
