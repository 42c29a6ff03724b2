"""Operations that are limits only: whose plan and settings they go by, their ids, and that SQL has no part in them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from policies.policy_set import PolicySet
from quota import DeadlinePassed, Denial, Grant, IdempotencyConflict, UnknownGrant
from quota.prefilter import snapshot
from tests.prefilter.behind import behind
from tests.world import START

POLICIES = """
schema: 1
operations:
  peek: {attributes: {deep: {type: boolean, default: false}}, limits_only: true, hold_for: 10m}
  make: {attributes: {}, gpu_cost: {usd: 0.01}, hold_for: 1h}
plans:
  free:
    limits: [{kind: rate, limit: 100, per: 1h}, {kind: concurrency, limit: 2}]
    sources: [{kind: daily_allowance, units: 100}]
  pro:
    extends: free
    limits: [{kind: rate, limit: 100, per: 1h}, {kind: concurrency, limit: 4}]
default_plan: free
"""


@pytest.fixture
def world(redis_url):
    with behind(redis_url, POLICIES) as opened:
        yield opened


def peek(world, key=None, operation="peek", **more):
    key = key or f"key-{next(world.keys)}"
    more = {"account": "u", **more}
    decision = world.comptroller.admit(operation=operation, key=key, **more)
    world.tell()
    return decision


def said(decision):
    return decision.reason if isinstance(decision, Denial) else "granted"


def test_it_takes_one_command_and_no_sql(world, monkeypatch):
    peek(world)
    seen = world.verdicts()

    def refused(*_, **__):
        raise AssertionError("SQL was asked")

    for how in ("reading", "writing", "upgradable"):
        monkeypatch.setattr(world.comptroller._db, how, refused)
    grant = peek(world)
    assert isinstance(grant, Grant)
    denial = peek(world)
    assert isinstance(denial, Denial)
    assert (grant.decided_by, denial.decided_by) == ("redis", "redis")
    assert [verdict.name for verdict in seen] == ["PASSED", "DENIED"]
    monkeypatch.undo()
    assert world.comptroller.grants("u") == []


def test_an_account_that_redis_does_not_know_is_learnt_at_its_first_request(world):
    world.comptroller.set_plan("u", "pro")
    world.tell()
    assert said(peek(world)) == "granted"
    assert world.known().facts
    assert [said(peek(world)) for _ in range(4)] == ["granted"] * 3 + ["concurrency_exceeded"]


def test_a_new_plan_and_a_freeze_are_heard_of(world):
    peek(world)
    peek(world)
    assert said(peek(world)) == "concurrency_exceeded"
    world.comptroller.set_plan("u", "pro")
    world.tell()
    peek(world)
    assert said(peek(world)) == "granted"
    world.comptroller.freeze("u", reason="chargeback")
    world.tell()
    peek(world)
    assert said(peek(world)) == "account_frozen"


def test_news_of_a_plan_that_were_lost_are_asked_for_within_half_a_minute(world):
    peek(world)
    peek(world)
    world.comptroller.set_plan("u", "pro")
    world.front.news._written.clear()
    assert said(peek(world)) == "concurrency_exceeded"
    world.clock.advance(timedelta(seconds=31))
    assert said(peek(world)) == "concurrency_exceeded"
    assert said(peek(world)) == "granted"


def test_a_flush_forgets_what_was_taken_and_nothing_else(world):
    world.comptroller.set_plan("u", "pro")
    for _ in range(4):
        peek(world)
    world.front.redis.command("FLUSHDB")
    assert [said(peek(world)) for _ in range(5)] == ["granted"] * 4 + ["concurrency_exceeded"]


def test_a_deadline_that_has_passed_takes_nothing(world):
    with pytest.raises(DeadlinePassed):
        peek(world, not_after=START - timedelta(seconds=1))
    assert [said(peek(world)) for _ in range(3)] == ["granted", "granted", "concurrency_exceeded"]


def test_another_request_under_the_same_key_is_a_conflict(world):
    first = peek(world, "job")
    assert peek(world, "job").id == first.id
    for other in ({"attributes": {"deep": True}}, {"member": "ann"}):
        with pytest.raises(IdempotencyConflict):
            peek(world, "job", **other)


@pytest.mark.parametrize("name", ["a/b", "un_1", "ä/%{}", "a b", "x" * 200])
def test_the_id_of_a_grant_says_whose_it_is_whatever_the_name(world, name):
    grant = peek(world, account=name)
    got = world.comptroller.get(grant.id)
    assert (got.account, got.operation, got.live) == (name, "peek", True)
    assert world.comptroller.settle(grant.id).by_this_call
    assert not world.comptroller.settle(grant.id).by_this_call


def test_an_id_that_nobody_was_given_is_unknown(world):
    peek(world)
    for number in ("un_0123456789abcdef_peek/u", "un_0123456789abcdef_peek/nobody"):
        with pytest.raises(UnknownGrant):
            world.comptroller.get(number)


def test_old_keys_of_booked_grants_are_no_matter_for_sql(world, monkeypatch):
    monkeypatch.setattr(snapshot, "KEYS_KNOWN", 1)
    for _ in range(2):
        world.comptroller.settle(peek(world, operation="make").id)
        world.clock.advance(timedelta(days=60))
    world.learn()
    assert world.known().partial
    peek(world)
    peek(world)
    monkeypatch.setattr(world.comptroller._db, "reading", None)
    assert said(peek(world)) == "concurrency_exceeded"
    monkeypatch.undo()


def test_booked_requests_share_the_limits_as_far_as_redis_decides(world):
    peek(world)
    peek(world)
    world.learn()
    denial = peek(world, operation="make")
    assert (said(denial), denial.decided_by) == ("concurrency_exceeded", "redis")


def test_what_sql_says_of_rates_does_not_undo_what_redis_has_taken(redis_url):
    slow = POLICIES.replace("{kind: rate, limit: 100, per: 1h}", "{kind: rate, limit: 2, per: 1h}")
    with behind(redis_url, slow) as world:
        peek(world)
        peek(world)
        world.learn()
        world.learn()
        assert said(peek(world)) == "rate_exceeded"
        assert said(peek(world, operation="make")) == "rate_exceeded"
        peek(world, operation="make", account="v")
        world.learn("v")
        assert said(peek(world, account="v")) == "granted"
        assert said(peek(world, account="v")) == "rate_exceeded"


def test_a_policy_set_that_admits_whatever_is_asked_is_limits_only_for_all_of_it(redis_url):
    with behind(redis_url, PolicySet.unlimited()) as world:
        for name in ("a/b", "%2F", "%25", "*"):
            assert world.comptroller.get(peek(world, operation=name).id).operation == name
        first = peek(world, "job", operation="anything")
        assert (first.granted, first.decided_by, first.id[:3]) == (True, "redis", "un_")
        assert peek(world, "job", operation="anything").replayed
        assert world.comptroller.extend(first.id, timedelta(hours=1)).live
        assert world.comptroller.settle(first.id).by_this_call
