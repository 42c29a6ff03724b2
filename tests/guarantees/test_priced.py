"""Unknown is never zero: every grant has an estimate, and every end books the truth or the estimate."""

from __future__ import annotations

from decimal import Decimal

import pytest

from policies.errors import PolicyError
from policies.policy_set import PolicySet
from quota import InvalidRequest
from tests.world import HOUR, POLICIES, SECTIONS, World, a_world, plan

SECOND = 1_000
"""Micro-dollars of a second on an h100."""


def booked(world: World) -> dict[str, int]:
    """Return what each account of GPU cost was debited, less what was taken back."""
    found: dict[str, int] = {}
    for debit, credit, amount in world.rows(
        "SELECT debit, credit, amount FROM comptroller_transfer WHERE asset = 'USD.micro'"
    ):
        found[debit] = found.get(debit, 0) + amount
        found[credit] = found.get(credit, 0) - amount
    found.pop("gpu_accrued", None)
    return {account: amount for account, amount in found.items() if amount}


def test_guarantee_priced_every_grant_carries_its_estimate(world):
    assert world.grant(3).gpu_cost_micro_usd == 30 * SECOND


def test_guarantee_priced_a_settled_grant_books_its_time(world):
    ending = world.comptroller.settle(world.grant(3).id, gpu_seconds=Decimal("41.2"))
    assert (ending.gpu_cost_micro_usd, ending.gpu_reported) == (41_200, True)
    assert booked(world) == {"gpu_delivered": 41_200}


def test_guarantee_priced_an_end_that_states_no_time_books_the_estimate_and_says_so(world):
    ending = world.comptroller.settle(world.grant(3).id)
    assert (ending.gpu_cost_micro_usd, ending.gpu_reported) == (30 * SECOND, False)
    assert booked(world) == {"gpu_delivered": 30 * SECOND}


def test_guarantee_priced_zero_seconds_are_a_statement(world):
    ending = world.comptroller.release(world.grant(3).id, reason="cancelled", gpu_seconds=0)
    assert (ending.gpu_cost_micro_usd, ending.gpu_reported) == (0, True)
    assert booked(world) == {}


def test_guarantee_priced_failed_work_costs_as_well(world):
    world.comptroller.release(world.grant(3).id, reason="failed", gpu_seconds=7)
    assert booked(world) == {"gpu_failed": 7 * SECOND}


def test_guarantee_priced_another_gpu_has_another_price(world):
    world.comptroller.settle(world.grant(3).id, gpu_seconds=7, gpu="a10")
    assert booked(world) == {"gpu_delivered": 7 * SECOND // 2}


def test_guarantee_priced_an_expired_grant_books_its_estimate_until_the_truth_arrives(world):
    grant = world.grant(3)
    world.clock.set(grant.expires_at)
    world.comptroller.sweep()
    assert booked(world) == {"gpu_unreported": 30 * SECOND}
    ending = world.comptroller.settle(grant.id, gpu_seconds=7)
    assert (ending.late, ending.gpu_cost_micro_usd, ending.gpu_reported) == (True, 7 * SECOND, True)
    assert booked(world) == {"gpu_late": 7 * SECOND}
    assert world.sums("gpu_micro_usd", "gpu_unreported_micro_usd") == (7 * SECOND, 0)


def test_guarantee_priced_a_late_end_without_a_time_leaves_room_for_the_truth(world):
    grant = world.grant(3)
    world.clock.set(grant.expires_at)
    world.comptroller.settle(grant.id)
    assert booked(world) == {"gpu_unreported": 30 * SECOND}
    world.comptroller.settle(grant.id, gpu_seconds=7)
    assert booked(world) == {"gpu_late": 7 * SECOND}


def test_guarantee_priced_a_late_end_that_is_charged_without_a_time_says_that_it_is_an_estimate():
    policies = plan(
        "{sources: [{kind: daily_allowance, units: 30}]}",
        more="on_late_settle: charge_if_available",
    )
    with a_world(policies) as world:
        grant = world.grant(3)
        world.clock.set(grant.expires_at)
        ending = world.comptroller.settle(grant.id)
        assert (ending.units_charged, ending.gpu_cost_micro_usd) == (3, 30 * SECOND)
        assert not ending.gpu_reported
        assert not world.comptroller.settle(grant.id).gpu_reported


def test_guarantee_priced_crashed_attempts_are_booked_beside_the_end(world):
    grant = world.grant(3)
    world.comptroller.add_gpu_cost(grant.id, gpu_seconds=4, attempt="1")
    world.comptroller.add_gpu_cost(grant.id, gpu_seconds=5, attempt="2")
    world.comptroller.settle(grant.id, gpu_seconds=30)
    assert booked(world) == {"gpu_crashed": 9 * SECOND, "gpu_delivered": 30 * SECOND}


def test_guarantee_priced_a_cost_is_rounded_up_once_at_the_end():
    sections = SECTIONS.replace("usd_per_hour: 3.60", "usd_per_hour: 0.01")
    policies = PolicySet.parse(
        f"{sections}\ndefault_plan: own\nplans:\n"
        "  own: {sources: [{kind: daily_allowance, units: 9}]}\n"
    )
    with a_world(policies) as world:
        grant = world.grant(1)
        assert grant.gpu_cost_micro_usd == 28  # 27.7...
        ending = world.comptroller.settle(grant.id, gpu_seconds=Decimal("0.000001"))
        assert ending.gpu_cost_micro_usd == 1


def test_guarantee_priced_what_cannot_be_estimated_is_refused():
    table = "gpu_seconds: {by: n, table: {1: 10}}"
    unknown = POLICIES.replace("gpu_seconds: {each: {n: 10}}", table)
    with pytest.raises(PolicyError):
        PolicySet.parse(unknown)
    capped = unknown.replace(table, f"{table}, ceiling_gpu_seconds: 99")
    with a_world(capped) as world:
        assert world.grant(1).gpu_cost_micro_usd == 10 * SECOND
        assert world.grant(2).gpu_cost_micro_usd == 99 * SECOND


@pytest.mark.parametrize("seconds", [-1, Decimal("NaN"), float("inf"), True, "7", 10**12])
def test_guarantee_priced_a_time_that_is_none_is_refused_and_books_nothing(world, seconds):
    grant = world.grant(3)
    with pytest.raises(InvalidRequest):
        world.comptroller.settle(grant.id, gpu_seconds=seconds)
    assert booked(world) == {}
    assert world.comptroller.get(grant.id).live


def test_guarantee_priced_a_budget_is_debited_what_a_grant_cost_more_than_it_was_estimated_at():
    policies = plan(
        "{sources: [{kind: daily_allowance, units: 30}]}",
        more="budgets: {all: {usd_per_day: 0.1}}",
    )
    with a_world(policies) as world:
        cheap, dear = world.grant(3), world.grant(3)
        world.comptroller.settle(cheap.id, gpu_seconds=1)
        world.comptroller.settle(dear.id, gpu_seconds=61)
        assert world.rows("SELECT spent_micro_usd FROM comptroller_budget_day") == [(91_000,)]
        assert world.deny(1).reason == "budget_exhausted"
        world.clock.advance(12 * HOUR)
        world.grant(1)
