"""Keys of requests and names of accounts: a grant is found again however old, and no two accounts share anything."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quota import IdempotencyConflict
from quota.ask import Ask
from quota.prefilter import snapshot
from quota.prefilter.answers import Verdict
from quota.prefilter.prints import Keys, key_print, redis_key
from tests.prefilter.behind import behind
from tests.world import SECTIONS

PLANS = """
default_plan: own
plans:
  own: {sources: [{kind: allowance, per: 1h, units: 2}]}
  team:
    limits: [{kind: rate, limit: 1, per: 10m, scope: member}]
    sources: [{kind: daily_allowance, units: 2, scope: member}]
"""
NAMES = [
    "{",
    "}",
    "{}",
    "{a}b",
    "%",
    "%7B",
    "%25",
    "ä",
    "日本",
    "a:b",
    "a/b",
    "{a",
    "a}",
    "e" * 200,
]


@pytest.fixture
def world(redis_url):
    with behind(redis_url, SECTIONS + PLANS) as opened:
        yield opened


def test_a_retry_gets_its_grant_where_a_new_request_would_be_denied(world):
    first = world.ask(2, key="job")
    assert world.said() == ("allowance_exhausted", "redis")
    again = world.ask(2, key="job")
    assert (again.id, again.replayed) == (first.id, True)


def test_a_key_that_brought_a_grant_conflicts_with_another_request(world):
    world.ask(2, key="job")
    with pytest.raises(IdempotencyConflict):
        world.ask(1, key="job")


@pytest.mark.parametrize("learns", [True, False])
def test_a_key_is_replayed_long_after_its_window(world, learns):
    first = world.ask(2, key="job")
    world.comptroller.settle(first.id)
    world.clock.advance(timedelta(days=400))
    world.ask(2)
    if learns:
        world.learn()
    again = world.ask(2, key="job")
    assert (again.id, again.replayed) == (first.id, True)


def test_of_a_key_older_than_those_that_redis_knows_sql_is_asked(world, monkeypatch):
    monkeypatch.setattr(snapshot, "KEYS_KNOWN", 3)
    first = world.ask(2, key="job")
    world.clock.advance(timedelta(days=40))
    for _ in range(5):
        world.clock.advance(timedelta(hours=2))
        world.ask(2)
    world.learn()
    known = world.known()
    assert known.partial
    assert not known.may_know(key_print("u", "job"))
    assert world.said() == ("allowance_exhausted", "redis")
    again = world.ask(2, key="job")
    assert (again.id, again.replayed) == (first.id, True)


def test_the_same_key_of_another_account_is_another_request(world):
    mine, theirs = world.ask(2, key="job"), world.ask(2, key="job", account="v")
    assert mine.id != theirs.id
    assert not theirs.replayed


def test_a_key_that_has_passed_once_is_asked_of_sql_even_after_its_note_has_died(world):
    world.learn()
    world.ask(1)
    world.front.decide(world.comptroller.policies, asked("lost"))
    world.clock.advance(timedelta(seconds=6))
    seen = world.verdicts()
    world.ask(1, key="lost")
    assert seen == [Verdict.MAYBE_REPLAYED]


def asked(key):
    return Ask("u", "clip", {"n": 1}, key, None, None, consent=False, not_after=None)


@pytest.mark.parametrize("name", NAMES)
def test_an_account_may_be_called_whatever_it_likes(world, name):
    world.ask(2, account=name)
    assert world.said(account=name) == ("allowance_exhausted", "redis")
    assert world.said(2, account=f"{name}."[-200:])[0] == "granted"


@pytest.mark.parametrize("name", ["{", "}", "{a}b", "%", "ä", "a:b"])
def test_a_cluster_keeps_them_apart_too(redis_cluster, name):
    redis_cluster.flush()
    with behind(redis_cluster.url, SECTIONS + PLANS) as world:
        world.ask(2, account=name)
        assert world.said(account=name) == ("allowance_exhausted", "redis")
        assert world.said(2, account=f"{name}.")[0] == "granted"


@given(st.sets(st.text("{}%7BbDd:a", min_size=1, max_size=6), min_size=2, max_size=30))
def test_no_two_accounts_share_a_key_and_each_is_one_hash_tag(names):
    keys = {name: redis_key(name) for name in names}
    assert len(set(keys.values())) == len(names)
    for key in keys.values():
        assert (key.count(b"{"), key.count(b"}"), key[-1:]) == (1, 1, b"}")
    assert {Keys("other").of(name) for name in names}.isdisjoint(keys.values())


def test_members_of_one_account_have_limits_of_their_own(world):
    for member in ("ann", "bob"):
        assert world.said(1, plan="team", member=member)[0] == "granted"
        world.learn()
    assert world.said(1, plan="team", member="ann") == ("rate_exceeded", "redis")
    assert world.said(1, plan="team", member="bob") == ("rate_exceeded", "redis")
    assert world.said(1, plan="team", member="cy")[0] == "granted"
    world.clock.advance(timedelta(minutes=10))
    assert world.said(2, plan="team", member="ann")[0] == "allowance_exhausted"
    assert world.said(2, plan="team", member="ann") == ("allowance_exhausted", "redis")
    assert world.said(2, plan="team", member="di")[0] == "granted"
    assert world.said(1, plan="team")[0] == "granted"
    world.learn()
    assert world.said(1, plan="team") == ("rate_exceeded", "redis"), "nobody is a member too"


def test_a_member_of_one_account_is_none_of_another(world):
    assert world.said(2, plan="team", member="ann")[0] == "granted"
    assert world.said(2, plan="team", member="ann", account="v")[0] == "granted"
