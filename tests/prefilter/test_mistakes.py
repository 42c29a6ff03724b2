"""Where Redis refuses what it is asked, users are answered by SQL all the same, and it is said aloud."""

from __future__ import annotations

import logging

from policies import PolicySet
from quota import Comptroller
from quota.prefilter.front import Front
from quota.redis import Script

POLICIES = PolicySet.parse("""
schema: 1
operations: {make: {gpu_cost: {usd: 0.01}}}
plans: {p: {sources: [{kind: daily_allowance, units: 1}]}}
default_plan: p
""")


def test_a_script_that_redis_refuses_costs_no_request(redis_url, monkeypatch, caplog):
    monkeypatch.setattr(Front, "raises_mistakes", False)
    with Comptroller.open(POLICIES, "sqlite://", redis=redis_url) as comptroller:
        front = comptroller._front
        assert front is not None
        monkeypatch.setattr(front, "script", Script.of("return nothing.at.all"))
        with caplog.at_level(logging.ERROR, "comptroller.redis"):
            granted = comptroller.admit(account="u", operation="make", key="1")
            denied = comptroller.admit(account="u", operation="make", key="2")
    assert (granted.granted, denied.granted) == (True, False)
    assert {granted.decided_by, denied.decided_by} == {"sql"}
    assert "redis refuses our script" in caplog.text


def test_a_cluster_that_is_none_is_said_by_health(lone_redis):
    url = lone_redis.url.replace("redis://", "redis+cluster://")
    with Comptroller.open(POLICIES, "sqlite://", redis=url) as comptroller:
        assert comptroller.health().redis not in ("up", "not configured")
