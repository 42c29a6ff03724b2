"""At each grant, the units not returned in its window never pass the limit in force."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quota import Grant
from tests.world import DAY, HOUR, MICROSECOND, START, a_world, plan


def test_guarantee_exact_thirty_are_granted_and_the_next_is_not(world):
    for _ in range(30):
        world.grant()
    denial = world.deny()
    assert denial.reason == "allowance_exhausted"
    assert world.used() == 30


def test_guarantee_exact_a_request_that_would_pass_the_limit_takes_nothing(world):
    world.grant(29)
    world.deny(2)
    assert world.used() == 29
    world.grant(1)


def test_guarantee_exact_a_unit_counts_until_the_very_instant_its_window_ends(world):
    world.comptroller.settle(world.grant(30).id)
    world.clock.set(START + DAY - MICROSECOND)
    assert world.deny().reason == "allowance_exhausted"
    world.clock.set(START + DAY)
    world.grant(30)
    world.deny()


def test_guarantee_exact_a_returned_unit_can_be_granted_again_and_no_second_one(world):
    first, _ = world.grant(10), world.grant(20)
    world.deny()
    world.comptroller.release(first.id, reason="cancelled")
    world.grant(10)
    world.deny()


def test_guarantee_exact_an_expired_hold_gives_back_at_its_very_instant(world):
    grant = world.grant(30)
    world.clock.set(grant.expires_at - MICROSECOND)
    world.deny()
    world.clock.set(grant.expires_at)
    world.grant(30)


def test_guarantee_exact_members_of_one_account_do_not_share_what_is_each_members():
    policies = plan("{sources: [{kind: daily_allowance, units: 3, scope: member}]}")
    with a_world(policies) as world:
        world.grant(3, member="ann")
        world.deny(1, member="ann")
        world.grant(3, member="bob")
        world.grant(3)  # who names no member counts as one of their own
        world.deny(1)


def test_guarantee_exact_the_first_request_of_an_account_counts_in_its_members_rate():
    policies = plan(
        "{limits: [{kind: rate, limit: 1, per: 1h, scope: member}],"
        " sources: [{kind: daily_allowance, units: 30}]}"
    )
    with a_world(policies) as world:
        world.grant(member="ann")
        assert world.deny(member="ann").reason == "rate_exceeded"
        world.grant(member="bob")
        world.clock.advance(HOUR)
        world.grant(member="ann")


def test_guarantee_exact_a_limit_on_two_sources_holds_for_their_sum_when_they_share_a_request():
    policies = plan(
        "{limits: [{kind: usage, units: 5, per: 24h, sources: [a, b],"
        " when_exhausted: next_source}],"
        " sources: [{kind: daily_allowance, name: a, units: 3, split: true},"
        " {kind: daily_allowance, name: b, units: 10, split: true},"
        " {kind: daily_allowance, name: c, units: 100}]}"
    )
    with a_world(policies) as world:
        grant = world.grant(8)
        guarded = grant.units_by_source.get("a", 0) + grant.units_by_source.get("b", 0)
        assert guarded <= 5
        assert sum(grant.units_by_source.values()) == 8


def test_guarantee_exact_consent_does_not_lift_the_limit_on_the_sources_it_guards():
    policies = plan(
        "{paid_use: ask, limits: [{kind: usage, units: 5, per: 24h, sources: [a, b]}],"
        " sources: [{kind: daily_allowance, name: a, units: 3, split: true},"
        " {kind: daily_allowance, name: b, units: 10}]}"
    )
    with a_world(policies) as world:
        world.deny(8, consent=True)
        world.grant(5)


@pytest.mark.parametrize("per", ["24h", "1mo", "7d"])
def test_guarantee_exact_a_usage_limit_holds_over_all_sources(per):
    policies = plan(
        f"{{paid_use: auto, limits: [{{kind: usage, units: 12, per: {per}}}],"
        " sources: [{kind: daily_allowance, units: 10, split: true}, {kind: credits}]}"
    )
    with a_world(policies) as world:
        world.buy()
        world.grant(11)
        assert world.deny(2).reason == "usage_exceeded"
        world.grant(1)
        assert world.deny(1).reason == "usage_exceeded"


STEP = st.tuples(
    st.integers(1, 5),
    st.sampled_from(["keep", "release", "settle", "wait"]),
    st.integers(0, 30).map(lambda hours: timedelta(hours=hours)),
)


@given(st.lists(STEP, max_size=25))
def test_guarantee_exact_whatever_is_asked_and_given_back(steps):
    """Each window that ends at a grant is added up from the answers alone."""
    with a_world(plan("{sources: [{kind: daily_allowance, units: 8}]}")) as world:
        kept: list[Grant] = []
        for n, then, wait in steps:
            world.clock.advance(wait)
            now = world.clock()
            kept = [
                grant
                for grant in kept
                if now < grant.expires_at or world.comptroller.get(grant.id).status == "settled"
            ]
            decision = world.admit(n)
            used = sum(
                sum(grant.units_by_source.values()) for grant in kept if now < grant.at + DAY
            )
            assert bool(decision) == (used + n <= 8)
            if not isinstance(decision, Grant):
                continue
            if then == "release":
                world.comptroller.release(decision.id, reason="cancelled")
                continue
            kept.append(decision)
            if then == "settle":
                world.comptroller.settle(decision.id)
