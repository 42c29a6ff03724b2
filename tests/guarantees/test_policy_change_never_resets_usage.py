"""Usage is timestamped units by source name: whatever the window is from now on, it counts in it."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

from tests.world import DAY, START, a_world, plan

ROLLING = "{sources: [{kind: daily_allowance, name: free, units: 30}]}"


@contextmanager
def changed(tmp_path, before, after, use):
    """Use one policy set, then go on under another on the same books."""
    database = f"sqlite:///{tmp_path}/books.db"
    with a_world(before, database=database) as world:
        used = use(world)
    with a_world(after, database=database, start=world.clock()) as world:
        world.keys = iter(range(1000, 2000))
        yield world, used


@pytest.mark.parametrize(
    "window",
    [
        "kind: daily_allowance, units: 40",
        "kind: daily_allowance, units: 40, window: calendar",
        "kind: daily_allowance, units: 40, window: calendar, timezone: Asia/Tokyo",
        "kind: allowance, per: 7d, units: 40",
        "kind: allowance, per: 1mo, units: 40",
        "kind: allowance, per: 1mo, units: 40, window: calendar",
        "kind: daily_allowance, units: 40, scope: member",
    ],
)
def test_guarantee_policy_change_never_resets_usage_of_a_source_of_the_same_name(tmp_path, window):
    after = plan(f"{{sources: [{{name: free, {window}}}]}}")
    with changed(tmp_path, plan(ROLLING), after, lambda world: world.grant(30)) as (world, _):
        assert world.used(source="free") == 30
        world.grant(10)
        world.deny(1)


def test_guarantee_policy_change_never_resets_usage_when_a_limit_falls_below_it(tmp_path):
    after = plan(ROLLING.replace("30", "20"))
    with changed(tmp_path, plan(ROLLING), after, lambda world: world.grant(25)) as (world, grant):
        assert world.used(source="free") == 25
        (allowance,) = world.comptroller.balance("u").allowances
        assert allowance.remaining == 0
        assert world.deny(1).retry_at == grant.expires_at  # the hold's, which gives them back


def test_guarantee_policy_change_never_resets_usage_when_an_account_changes_its_plan(world):
    world.comptroller.settle(world.grant(30).id)
    world.comptroller.set_plan("u", "pro")
    assert world.used() == 30
    world.grant(70)
    world.comptroller.set_plan("u", "standard")
    assert world.used() == 100
    assert world.deny(1).retry_at == START + DAY
    world.comptroller.set_plan("u", "daily")
    assert world.used() == 100


def test_guarantee_policy_change_never_resets_usage_of_grants_in_flight(tmp_path):
    """They end under the version they were made under."""
    after = plan(
        "{sources: [{kind: daily_allowance, name: free, units: 30}],"
        " operations: {clip: {weight: {each: {n: 2}}}}}"
    )
    with changed(tmp_path, plan(ROLLING), after, lambda world: world.grant(10)) as (world, grant):
        ending = world.comptroller.settle(grant.id, delivered={"n": 4})
        assert ending.units_charged == 4
        assert world.used(source="free") == 4
        assert world.grant(1).units_by_source == {"free": 2}
        assert world.comptroller.get(grant.id).policy_version == grant.policy_version


def test_guarantee_policy_change_never_resets_usage_nor_a_rate(tmp_path):
    slow = "{limits: [{kind: rate, limit: 2, per: 1h}], sources: [{kind: credits}]}"
    slow = slow.replace("{kind: credits}", "{kind: daily_allowance, units: 30}")
    fast = plan(slow.replace("limit: 2, per: 1h", "limit: 3, per: 1h"))

    def use(world):
        world.grant()
        return world.grant()

    with changed(tmp_path, plan(slow), fast, use) as (world, _):
        assert world.deny().reason == "rate_exceeded"
        world.clock.advance(DAY)
        world.grant()


def test_guarantee_policy_change_never_resets_usage_nor_bought_credits(tmp_path):
    def use(world):
        return world.buy()

    paid = "{paid_use: auto, sources: [{kind: credits}]}"
    with changed(tmp_path, plan(ROLLING), plan(paid), use) as (world, lot):
        grant = world.grant(10)
        assert [part.lot_id for part in grant.allocations] == [lot.id]
