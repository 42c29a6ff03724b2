"""A grant's record holds the numbers that each policy read, so that it can be decided again."""

from __future__ import annotations

import json
from typing import Any

import pytest

from policies.instants import from_micros
from policies.policy_set import PolicySet
from policies.request import Circumstances, Request, SpendCap
from policies.state import LotView, Readings, burn_order
from policies.waterfall import decide
from policies.window import Zones
from quota import Grant
from tests.world import DAY, HOUR, World, a_world, plan

EVERYTHING = (
    "{paid_use: auto, limits: [{kind: rate, limit: 50, per: 1h}, {kind: concurrency, limit: 9},"
    " {kind: usage, units: 60, per: 7d}, {kind: spend, limit: 300, per: 7d, window: calendar}],"
    " sources: [{kind: daily_allowance, units: 8, split: true, window: calendar},"
    " {kind: credits}]}"
)
BUDGETS = "budgets: {free: {usd_per_day: 2, sources: [daily_allowance]}}"


def decided_again(world: World, grant: Grant) -> list[Any]:
    """Decide a grant again from its record alone: no usage, lot or setting is read from elsewhere."""
    _, book, number = grant.id.split("_")
    ((body, content, member),) = world.rows(
        "SELECT record.body, version.content, taken.member FROM comptroller_grant AS taken"
        " JOIN comptroller_record AS record"
        " ON record.book_id = taken.book_id AND record.seq = taken.seq"
        " JOIN comptroller_policy_version AS version ON version.version = taken.policy_version"
        " WHERE taken.book_id = ? AND taken.number = ?",
        int(book),
        int(number),
    )
    facts = json.loads(body)["facts"]
    policy_set = PolicySet.from_canonical(content)
    rules = policy_set.rules(grant.plan, grant.operation)
    first, *changes = facts["zones"]
    zones = Zones(first, tuple((from_micros(at), zone) for at, zone in changes))
    cap = None if facts["spend_cap"] is None else SpendCap(*facts["spend_cap"])
    circumstances = Circumstances(grant.plan, zones, facts["paid_use"], cap)
    request = Request(grant.operation, grant.attributes, member or None, facts["consent"])
    reads = rules.reads(request, circumstances)
    lots = tuple(lot_of(world, int(book), *pair) for pair in facts["lots"])
    state = Readings(dict(zip(reads, facts["numbers"], strict=True)), lots)
    decision = decide(request, rules, circumstances, state, grant.at)
    assert lots == tuple(sorted(lots, key=burn_order))
    return [decision.granted, decision.allocations, decision.findings, decision.gpu_cost_micro_usd]


def lot_of(world: World, book: int, number: int, available: int) -> LotView:
    ((units, price, currency, priority, expires_at, created_at),) = world.rows(
        "SELECT units, price_minor, currency, priority, expires_at, created_at"
        " FROM comptroller_lot WHERE book_id = ? AND number = ?",
        book,
        number,
    )
    expiry = None if expires_at is None else from_micros(expires_at)
    name, created = f"lot_{book}_{number}", from_micros(created_at)
    return LotView(name, units, price, currency, available, priority, expiry, created, number)


@pytest.fixture
def grants():
    with a_world(plan(EVERYTHING, more=BUDGETS)) as world:
        world.comptroller.set_account("u", timezone="Asia/Tokyo")
        made = [world.grant(3)]
        world.buy("three")
        world.buy("ten")
        world.comptroller.set_paid_use("u", "auto", spend_cap_minor=900, spend_cap_per="week")
        made.append(world.grant(9, member="ann"))
        world.clock.advance(2 * HOUR)
        made.append(world.grant(2))
        world.comptroller.set_account("u", timezone="Europe/Berlin")
        world.clock.advance(2 * DAY)
        made.append(world.grant(9, consent=3))
        yield world, made


def test_guarantee_explainable_each_grant_is_decided_again_from_its_record_alone(grants):
    world, made = grants
    for grant in made:
        assert decided_again(world, grant) == [
            True,
            grant.allocations,
            grant.findings,
            grant.gpu_cost_micro_usd,
        ]


def test_guarantee_explainable_the_engine_explains_each_grant_the_same(grants):
    world, made = grants
    if not hasattr(world.comptroller, "explain"):
        pytest.skip("this version has no `explain`")
    for grant in made:
        assert world.comptroller.explain(grant.id).same


def test_guarantee_explainable_the_record_names_the_policy_version_and_the_engines(grants):
    world, made = grants
    for (body,) in world.rows("SELECT body FROM comptroller_record WHERE kind = 'grant'"):
        facts = json.loads(body)["facts"]
        assert facts["policy"] == made[0].policy_version == world.comptroller.policies.version
        assert facts["engine"]


def test_guarantee_explainable_a_grant_and_a_denial_say_what_each_policy_found(world):
    world.grant(25)
    denial = world.deny(9)
    assert [
        (each.policy, each.outcome, each.used, each.limit, each.asked, each.reason)
        for each in denial.findings
    ] == [
        ("daily_allowance", "passed_over", 25, 30, 9, "allowance_exhausted"),
        ("credits", "passed_over", 0, 0, 9, "credits_exhausted"),
    ]
