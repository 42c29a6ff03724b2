"""A denial keeps its word: at retry_at the request is granted, not a microsecond before; and offers get it through."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quota import Denial, Grant
from tests.world import DAY, HOUR, MICROSECOND, START, World, a_world, plan

SPLIT = "{kind: daily_allowance, units: 8, split: true}"
CREDITS = "{kind: credits}"
PLANS = {
    "rolling": "{sources: [{kind: daily_allowance, units: 8}]}",
    "calendar": "{sources: [{kind: daily_allowance, units: 8, window: calendar}]}",
    "two windows": "{sources: [{kind: allowance, per: 5h, units: 5},"
    " {kind: allowance, name: b, per: 1mo, units: 9}]}",
    "split": f"{{paid_use: auto, sources: [{SPLIT}, {CREDITS}]}}",
    "split, on consent": f"{{paid_use: ask, sources: [{SPLIT}, {CREDITS}]}}",
    "credits": f"{{paid_use: auto, sources: [{CREDITS}]}}",
    "rate": "{limits: [{kind: rate, limit: 3, per: 1h, burst: 2}],"
    " sources: [{kind: daily_allowance, units: 50}]}",
    "concurrency": "{limits: [{kind: concurrency, limit: 2}],"
    " sources: [{kind: daily_allowance, units: 50}]}",
    "usage": "{limits: [{kind: usage, units: 6, per: 5h}, {kind: usage, units: 14, per: 7d}],"
    f" paid_use: auto, sources: [{SPLIT}, {CREDITS}]}}",
    "guarded": "{limits: [{kind: usage, units: 6, per: 5h, sources: [daily_allowance]}],"
    f" paid_use: ask, sources: [{SPLIT}, {CREDITS}]}}",
    "spend": "{limits: [{kind: spend, limit: 150, per: 24h}], paid_use: auto,"
    f" sources: [{{kind: daily_allowance, units: 3}}, {CREDITS}]}}",
    "spend, calendar": "{limits: [{kind: spend, limit: 150, per: 7d, window: calendar}],"
    f" paid_use: auto, sources: [{CREDITS}]}}",
}
BUDGET = "budgets: {all: {usd_per_day: 0.1, sources: [daily_allowance]}}"
STEP = st.tuples(
    st.sampled_from(["ask", "ask", "ask", "settle", "release", "buy", "gift", "refund", "berlin"]),
    st.integers(1, 9),
    st.sampled_from([0, 1, 20, 60, 61, 300, 1440]).map(lambda minutes: timedelta(minutes=minutes)),
)


def step(world: World, action: str, n: int) -> Denial | None:
    comptroller = world.comptroller
    if action == "ask":
        decision = world.admit(n)
        return decision if isinstance(decision, Denial) else None
    if action in ("settle", "release"):
        for grant in comptroller.grants("u", most=1):
            if action == "settle":
                comptroller.settle(grant.id, delivered={"n": 1})
            else:
                comptroller.release(grant.id, reason="failed")
    elif action == "buy":
        world.buy("three" if n % 2 else "ten")
    elif action == "gift":
        expiry = world.clock() + n * HOUR if n % 2 else None
        comptroller.add_credits("u", units=n, reference=f"g{next(world.keys)}", expires_at=expiry)
    elif action == "refund":
        for lot in comptroller.balance("u").lots[:1]:
            comptroller.refund_lot(lot.id, reference=f"r{next(world.keys)}")
    else:
        comptroller.set_account("u", timezone="Europe/Berlin" if n % 2 else "Asia/Tokyo")
    return None


@pytest.mark.parametrize("more", ["", BUDGET], ids=["no budget", "budget"])
@pytest.mark.parametrize("policies", PLANS.values(), ids=PLANS)
@settings(max_examples=settings().max_examples // 4)
@given(steps=st.lists(STEP, min_size=1, max_size=12), asked=st.integers(1, 9))
def test_at_retry_at_it_is_granted_and_a_microsecond_before_it_is_not(policies, more, steps, asked):
    if more and "daily_allowance" not in policies:
        return
    with a_world(plan(policies, more=more)) as world:
        for action, n, wait in steps:
            world.clock.advance(wait)
            step(world, action, n)
        denial = world.admit(asked)
        if isinstance(denial, Grant):
            return
        now = denial.at
        if denial.retry_at is None:
            # Waiting does not help: neither now nor at any hour of the next days.
            for hours in (1, 5, 24, 24 * 7, 24 * 32):
                world.clock.set(now + hours * HOUR)
                assert not estimate(world, asked), hours
            return
        assert denial.retry_at > now
        world.clock.set(denial.retry_at - MICROSECOND)
        assert not estimate(world, asked)
        world.clock.set(now + (denial.retry_at - now) / 2)
        assert not estimate(world, asked)
        world.clock.set(denial.retry_at)
        world.grant(asked)


def estimate(world: World, n: int, **more: Any) -> bool:
    return world.comptroller.estimate(
        account="u", operation="clip", attributes={"n": n}, **more
    ).granted


@pytest.mark.parametrize("policies", PLANS.values(), ids=PLANS)
@settings(max_examples=settings().max_examples // 3)
@given(steps=st.lists(STEP, min_size=1, max_size=10), asked=st.integers(1, 9))
def test_every_offer_gets_the_request_through(policies, steps, asked):
    with a_world(plan(policies)) as world:
        for action, n, wait in steps:
            world.clock.advance(wait)
            step(world, action, n)
        denial = world.admit(asked)
        if isinstance(denial, Grant):
            return
        for offer in denial.offers:
            if offer.kind == "smaller":
                assert offer.attributes is not None
                assert estimate(world, int(offer.attributes["n"]))
            elif offer.kind == "consent":
                assert estimate(world, asked, consent=True)
                if offer.units is not None:
                    assert estimate(world, asked, consent=offer.units)
            elif offer.kind == "upgrade":
                assert estimate(world, asked, plan=offer.plan)
        bought = [offer for offer in denial.offers if offer.kind == "buy"]
        if bought:
            for _ in range(bought[0].quantity or 0):
                world.buy(str(bought[0].pack))
            world.grant(asked, consent=True)


def test_waiting_is_offered_however_many_uses_have_to_age_out():
    policies = plan(
        "{limits: [{kind: usage, units: 600, per: 24h}],"
        " sources: [{kind: daily_allowance, units: 1000}]}"
    )
    with a_world(policies) as world:
        for _ in range(600):
            world.comptroller.settle(world.grant(1).id)
            world.clock.advance(seconds=1)
        assert world.deny(550).retry_at == START + DAY + timedelta(seconds=549)


def test_waiting_is_offered_however_many_uses_of_a_source_that_splits_have_to_age_out():
    policies = plan(
        "{paid_use: auto,"
        " sources: [{kind: daily_allowance, units: 600, split: true}, {kind: credits}]}"
    )
    with a_world(policies) as world:
        for _ in range(600):
            world.comptroller.settle(world.grant(1).id)
            world.clock.advance(seconds=1)
        assert world.deny(550).retry_at == START + DAY + timedelta(seconds=549)


def test_a_lot_that_expires_is_a_chance_where_a_cheaper_one_comes_next():
    policies = plan(
        "{paid_use: auto, limits: [{kind: spend, limit: 40, per: 7d}], sources: [{kind: credits}]}"
    )
    with a_world(policies) as world:
        world.buy("ten")
        world.clock.set(START.replace(year=2027) - DAY)
        world.comptroller.settle(world.grant(1).id)
        world.comptroller.add_credits("u", units=5, reference="free")
        denial = world.deny(1)
        assert (denial.reason, denial.retry_at) == ("spend_exceeded", START.replace(year=2027))
        world.clock.set(START.replace(year=2027))
        world.grant(1)
