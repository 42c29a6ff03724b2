"""What one process writes, another finds in Redis: settings, credits, grants and ends."""

from __future__ import annotations

from datetime import timedelta

import pytest

from policies.policy_set import PolicySet
from quota.redis import open_sync
from tests.prefilter.behind import two_processes
from tests.world import SECTIONS, START

NOBODY_THERE = "redis://127.0.0.1:1"
DENIED = ("allowance_exhausted", "redis")
PLANS = """
default_plan: standard
plans:
  standard: {sources: [{kind: daily_allowance, units: 3, window: calendar}]}
  pro:      {sources: [{kind: daily_allowance, units: 9, window: calendar}]}
  paid:     {paid_use: ask, sources: [{kind: credits}]}
"""


@pytest.fixture
def processes(redis_url, tmp_path):
    with two_processes(redis_url, tmp_path, SECTIONS + PLANS) as pair:
        one, other = pair
        one.comptroller.settle(one.grant(3).id)
        one.learn()
        assert one.said() == other.said() == DENIED
        yield pair


def test_a_plan_that_one_process_sets_is_in_force_in_the_other_at_once(processes):
    one, other = processes
    one.comptroller.set_plan("u", "pro")
    one.tell()
    assert other.said(6)[0] == "granted"
    other.learn()
    assert one.said() == other.said() == DENIED
    one.comptroller.set_plan("u", "standard")
    one.tell()
    one.learn()
    denial = other.ask()
    assert (denial.decided_by, denial.plan, denial.findings[0].limit) == ("redis", "standard", 3)


def test_facts_are_learnt_by_one_more_command_and_remembered(processes):
    one, other = processes
    one.comptroller.set_plan("u", "pro")
    one.grant(6)
    one.learn()
    seen = other.verdicts()
    other.said()
    other.said()
    assert [verdict.name for verdict in seen] == ["FACTS", "DENIED", "DENIED"]


def test_a_frozen_account_is_denied_by_redis_to_every_process(processes):
    one, other = processes
    one.comptroller.freeze("u", reason="chargeback")
    one.tell()
    one.learn()
    assert other.said() == one.said() == ("account_frozen", "redis")
    one.comptroller.unfreeze("u")
    one.tell()
    assert other.said()[0] == "allowance_exhausted"


def test_a_new_time_zone_moves_the_window_in_both(processes):
    one, other = processes
    one.comptroller.set_account("u", timezone="Asia/Tokyo")
    one.tell()
    one.learn()
    denial = other.ask()
    assert denial.decided_by == "redis"
    assert denial.retry_at == other.comptroller.estimate(account="u", operation="clip").retry_at
    assert denial.retry_at == START.replace(hour=0) + timedelta(days=1)


def test_paid_use_and_credits_of_one_process_are_those_of_the_other(processes):
    one, other = processes
    assert one.said(plan="paid") == ("credits_exhausted", "redis")
    one.buy("three")
    one.tell()
    assert other.said(2, plan="paid") == ("consent_needed", "sql")
    assert other.said(2, plan="paid") == ("consent_needed", "redis")
    one.comptroller.set_paid_use("u", "never")
    one.tell()
    one.learn()
    assert other.said(2, plan="paid", consent=True) == ("paid_use_off", "redis")
    one.comptroller.set_paid_use("u", "auto", spend_cap_minor=50, spend_cap_per="day")
    one.tell()
    one.learn()
    assert other.said(2, plan="paid") == ("spend_exceeded", "redis")


def test_units_that_one_process_gives_back_the_other_can_use(processes):
    one, other = processes
    one.clock.advance(timedelta(days=1))
    grant = one.ask(3)
    assert other.said()[0] == "allowance_exhausted"
    one.comptroller.release(grant.id, reason="failed")
    one.tell()
    assert other.said(3)[0] == "granted"


def test_a_process_believes_no_denial_that_knows_less_than_it_has_written_itself(processes):
    one, other = processes
    one.comptroller.set_plan("u", "pro")  # and Redis has not heard of it
    assert other.said() == DENIED, "for as long as that may take, the others do not know"
    assert one.said(6) == ("granted", "sql")


def test_that_holds_where_redis_was_being_asked_when_it_heard(processes):
    one, _ = processes
    one.comptroller.set_plan("u", "pro")
    heard = one.front.heard

    def too_late(reply):
        one.front.news.flush()
        return heard(reply)

    one.front.heard = too_late
    assert one.said(6) == ("granted", "sql")


def test_news_that_were_lost_are_told_again(processes):
    one, other = processes
    redis, one.front.news._redis = one.front.news._redis, open_sync(NOBODY_THERE)
    one.comptroller.set_plan("u", "pro")
    one.tell()
    assert one.said(2) == ("granted", "sql"), "this process knows what it could not tell"
    one.front.news._redis.close()
    one.front.news._redis = redis
    one.tell()
    assert other.said(4)[0] == "granted"


def test_what_redis_was_told_too_long_ago_denies_nothing(processes):
    _, other = processes
    other.clock.advance(timedelta(seconds=30))
    assert other.said() == DENIED
    other.clock.advance(timedelta(microseconds=1))
    assert other.said() == ("allowance_exhausted", "sql")


def test_a_denial_that_credits_could_prevent_is_told_within_two_seconds(processes):
    one, other = processes
    one.learn()
    other.clock.advance(timedelta(seconds=2))
    assert other.said(plan="paid") == ("credits_exhausted", "redis")
    other.clock.advance(timedelta(microseconds=1))
    assert other.said(plan="paid") == ("credits_exhausted", "sql")


def test_a_clock_that_is_far_ahead_makes_nothing_seem_new(processes):
    one, other = processes
    one.clock.advance(timedelta(hours=1))
    one.learn()
    one.clock.set(START)
    assert other.said() == ("allowance_exhausted", "sql")


def test_a_policy_that_looks_further_back_than_redis_knows_is_decided_in_sql(redis_url, tmp_path):
    named = "kind: allowance, name: daily_allowance, per: 1y, units: 3"
    longer = PolicySet.parse(SECTIONS + PLANS.replace("kind: daily_allowance, units: 3", named))
    with two_processes(redis_url, tmp_path, SECTIONS + PLANS) as (one, other):
        one.grant(3)
        one.learn()
        other.comptroller._policy_file._on_change(longer)
        other.comptroller._policy_file.current = longer
        assert other.said() == ("allowance_exhausted", "sql")
        assert other.said() == DENIED
        assert one.said() == DENIED, "who looks less far back can use it too"
