"""The trace of edges gives the contract's answers on every database, behind Redis or a Cluster or nothing."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from policies import PolicySet
from quota.prefilter.front import Front
from quota.replay import replay
from quota.traces import read_trace

PLANS = ["rolling", "berlin", "new_york", "by_image"]


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request):
    return None if request.param == "sqlite" else request.getfixturevalue("database_url")


@pytest.fixture(params=["nothing", "redis", "cluster"])
def redis(request):
    fixtures = {"redis": "redis_server", "cluster": "redis_cluster"}
    return request.getfixturevalue(fixtures[request.param]) if request.param in fixtures else None


@pytest.fixture
def answered(monkeypatch) -> Counter[str]:
    """What Redis has answered."""
    counted: Counter[str] = Counter()
    answer = Front.answer

    def watched(*values, **named):
        told = answer(*values, **named)
        counted[type(told).__name__] += 1
        return told

    monkeypatch.setattr(Front, "answer", watched)
    return counted


@pytest.mark.parametrize("plan", PLANS)
def test_the_trace_of_edges_agrees(shared, plan, database, redis, answered):
    policy_set = PolicySet.load(shared / "examples" / "edge.yaml")
    expected = json.loads((shared / "data" / f"edge-cases.{plan}.json").read_text())
    url = None if redis is None else redis.url
    with (shared / "data" / "edge-cases.csv").open(newline="") as lines:
        trace = read_trace(lines, "csv", policy_set, name="edge-cases.csv")
        found = replay(trace, policy_set, plan=plan, database=database, redis=url).as_dict()
    for name, value in expected.items():
        assert found[name] == value, name
    assert redis is None or (answered["Denial"] and answered["Passed"])


def test_a_replay_leaves_nothing_in_redis_and_touches_nothing(shared, redis_server):
    redis_server.flush()
    redis_server.run("SET", "comptroller:{ann}", "somebody else's")
    policy_set = PolicySet.load(shared / "examples" / "edge.yaml")
    with (shared / "data" / "edge-cases.csv").open(newline="") as lines:
        trace = read_trace(lines, "csv", policy_set, name="edge-cases.csv")
        replay(trace, policy_set, plan="rolling", redis=redis_server.url)
    assert redis_server.run("KEYS", "*") == ["comptroller:{ann}"]
    assert redis_server.run("GET", "comptroller:{ann}") == "somebody else's"
