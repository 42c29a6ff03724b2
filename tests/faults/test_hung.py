"""A Redis that hangs costs a few timeouts, counted, and no more: the breaker opens, and SQL answers."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from policies.policy_set import PolicySet
from quota import Comptroller
from quota.redis import opening
from quota.redis.breaker import FAILURES, FIRST_WAIT_SECONDS
from quota.testing import FakeClock
from tests.faults import test_cluster, test_postgres, test_redis, test_sqlite
from tests.faults.outcomes import Outcome
from tests.faults.plan import POLICIES
from tests.servers import Redis
from tests.servers.proxy import Proxy

ASKED = 60


def granted_while_it_hangs(
    comptroller: Comptroller, redis: Redis, proxy: Proxy
) -> tuple[int, float]:
    """Ask while Redis hangs; the answer: how often Redis was asked, and how long all took, in seconds."""
    assert comptroller.admit(account="warm", operation="ping", plan="probe", key="k")
    redis.pause()
    before, began = len(proxy.exchanges), time.monotonic()
    for number in range(ASKED):
        decision = comptroller.admit(account=f"a{number}", operation="clip", plan="free", key="k")
        assert decision.decided_by == "sql"
    took = time.monotonic() - began
    silent = sum(not exchange.replied for exchange in proxy.exchanges[before:])
    redis.resume()
    return silent, took


def test_a_hung_redis_costs_at_most_five_timeouts_and_a_probe_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(opening, "TIMEOUT_SECONDS", 0.1)  # as users have it
    policies = PolicySet.parse(POLICIES)
    with Redis() as redis, Proxy(redis.url) as proxy:
        database = f"sqlite:///{tmp_path}/books.db"
        with Comptroller.open(policies, database, proxy.url, FakeClock()) as comptroller:
            silent, took = granted_while_it_hangs(comptroller, redis, proxy)
    # A wait is at least half as long as it is called, and each probe that fails doubles it.
    assert FAILURES <= silent <= FAILURES + 1 + took / (FIRST_WAIT_SECONDS / 2)
    assert silent < ASKED / 2


def test_every_outcome_is_one_that_some_scenario_fails_without():
    scenarios = (test_cluster, test_postgres, test_redis, test_sqlite)
    assert frozenset[Outcome]().union(*(each.MUST for each in scenarios)) == frozenset(Outcome)
