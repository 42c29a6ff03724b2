"""Expiry is a fact of time: when a sweep runs changes no answer."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quota import Grant
from tests.world import DAY, HOUR, START, World, a_world, instant_of, plan

MIXED = (
    "{paid_use: auto,"
    " limits: [{kind: concurrency, limit: 3}, {kind: spend, limit: 500, per: 7d}],"
    " sources: [{kind: daily_allowance, units: 8, split: true}, {kind: credits}]}"
)


def test_guarantee_dues_first_a_read_folds_what_nobody_has_written_yet(world):
    grant = world.grant(30)
    world.clock.set(grant.expires_at)
    assert world.comptroller.get(grant.id).status == "expired"
    assert (world.used(), world.comptroller.balance("u").open_grants) == (0, 0)
    assert world.rows("SELECT * FROM comptroller_ending") == []


def test_guarantee_dues_first_every_write_posts_what_has_fallen_due(world):
    grant = world.grant(30)
    world.clock.set(grant.expires_at + 2 * HOUR)
    world.comptroller.set_plan("u", "pro")
    ((status, at),) = world.rows("SELECT status, at FROM comptroller_ending")
    assert (status, instant_of(at)) == ("expired", grant.expires_at)


def test_guarantee_dues_first_dues_are_dated_to_their_own_instants_in_order(world):
    world.comptroller.set_plan("u", "split")
    world.buy("three")  # expires in a month
    grants = [world.grant(n) for n in (1, 2)]
    world.comptroller.extend(grants[0].id, timedelta(days=40))
    world.clock.advance(timedelta(days=60))
    assert world.comptroller.sweep() == 3
    kinds = world.rows(
        "SELECT kind, at FROM comptroller_record WHERE kind LIKE '%expir%' ORDER BY seq"
    )
    assert [(kind, instant_of(at)) for kind, at in kinds] == [
        ("expired", START + HOUR),
        ("lot_expiry", START.replace(month=4)),
        ("expired", START + timedelta(days=40)),
    ]


def test_guarantee_dues_first_holds_come_before_lots_at_the_same_instant():
    policies = plan("{paid_use: auto, sources: [{kind: credits}]}")
    with a_world(policies) as world:
        world.buy("three")
        expiry = START.replace(month=4)
        world.clock.set(expiry - HOUR)
        assert world.grant(2).expires_at == expiry
        world.clock.set(expiry + DAY)
        world.comptroller.sweep()
        kinds = [kind for (kind,) in world.rows("SELECT kind FROM comptroller_record ORDER BY seq")]
        assert kinds[-2:] == ["expired", "lot_expiry"]
        assert world.sums("breakage_minor") == (100,)


def test_guarantee_dues_first_a_refunded_lot_does_not_come_back_before_the_sweep_either():
    policies = plan("{paid_use: auto, sources: [{kind: credits}]}")
    with a_world(policies) as world:
        lot = world.buy()
        grant = world.grant(4)
        world.comptroller.refund_lot(lot.id, reference="refund")
        assert world.deny(4).retry_at is None
        world.clock.set(grant.expires_at)
        before = world.comptroller.balance("u")
        world.comptroller.sweep()
        assert world.comptroller.balance("u") == before
        assert before.credits == 0


def test_guarantee_dues_first_a_sweep_writes_once_and_then_has_nothing_to_do(world):
    for account in ("u", "v", "w"):
        world.grant(3, account=account)
    world.clock.advance(DAY)
    assert world.comptroller.health().overdue_holds == 3
    assert world.comptroller.sweep() == 3
    assert world.comptroller.sweep() == 0
    assert world.comptroller.health().overdue_holds == 0


STEP = st.tuples(
    st.sampled_from(["ask", "ask", "buy", "settle", "release", "refund", "extend"]),
    st.integers(1, 9),
    st.sampled_from([0, 1, 20, 59, 60, 61, 60 * 24, 60 * 24 * 20]).map(
        lambda minutes: timedelta(minutes=minutes)
    ),
)


@given(st.lists(STEP, max_size=15), st.sets(st.integers(0, 14)))
def test_guarantee_dues_first_two_worlds_that_differ_only_in_sweeps_give_the_same_answers(
    steps, sweeps
):
    with a_world(plan(MIXED)) as swept, a_world(plan(MIXED)) as quiet:
        for place, (action, n, wait) in enumerate(steps):
            for world in (swept, quiet):
                world.clock.advance(wait)
            if place in sweeps:
                swept.comptroller.sweep()
            assert answer(swept, action, n) == answer(quiet, action, n)
            assert swept.comptroller.balance("u") == quiet.comptroller.balance("u")
        for world in (swept, quiet):
            world.comptroller.sweep()
        lines = "SELECT kind, at, source, lot_no, units, lot_units, revenue_minor, breakage_minor"
        order = " FROM comptroller_line ORDER BY at, kind, lot_no, idx"
        assert swept.rows(lines + order) == quiet.rows(lines + order)


def answer(world: World, action: str, n: int) -> object:
    """Return what a call answers, apart from what is random."""
    if action == "ask":
        decision = world.admit(n)
        if isinstance(decision, Grant):
            return decision.id, decision.allocations, decision.findings
        return decision.reason, decision.retry_at, decision.offers, decision.findings
    if action == "buy":
        return world.buy("three" if n % 2 else "ten").id
    if action == "refund":
        lots = world.comptroller.balance("u").lots
        return lots and world.comptroller.refund_lot(lots[0].id, reference=f"refund-{lots[0].id}")
    grants = world.comptroller.grants("u", most=3)
    if not grants:
        return None
    grant = grants[n % len(grants)]
    if action == "settle":
        return world.comptroller.settle(grant.id, delivered={"n": 1})
    if action == "release":
        return world.comptroller.release(grant.id, reason="failed")
    return grant.live and world.comptroller.extend(grant.id, timedelta(days=n)).expires_at


@pytest.mark.parametrize("late", [timedelta(0), timedelta(microseconds=1), DAY, 400 * DAY])
def test_guarantee_dues_first_a_late_sweep_writes_what_a_prompt_one_would(late):
    written = []
    for waits in ((late,), (timedelta(0), late)):
        with a_world() as world:
            grant = world.grant(3)
            world.clock.set(grant.expires_at)
            for wait in waits:
                world.clock.set(grant.expires_at + wait)
                world.comptroller.sweep()
            written.append(world.rows("SELECT kind, at FROM comptroller_record"))
    assert written[0] == written[1]
