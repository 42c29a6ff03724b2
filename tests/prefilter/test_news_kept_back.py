"""News that cannot be told: bounded in memory and work, and what can be told is told all the same."""

from __future__ import annotations

import threading

import pytest

from quota.prefilter import news as news_module
from quota.prefilter import prefilter as prefilter_module
from quota.prefilter import reporter as reporter_module
from quota.prefilter.facts import Facts
from quota.prefilter.prints import redis_key
from quota.redis import ScriptFailed, open_sync
from tests.prefilter.behind import behind
from tests.world import SECTIONS

PLANS = "default_plan: own\nplans:\n  own: {sources: [{kind: daily_allowance, units: 3}]}\n"
NOBODY_THERE = "redis://127.0.0.1:1"


@pytest.fixture
def world(redis_url):
    with behind(redis_url, SECTIONS + PLANS) as opened:
        yield opened


@pytest.fixture
def away(world):
    """The world, whose news reach nobody."""
    redis, world.front.news._redis = world.front.news._redis, open_sync(NOBODY_THERE)
    yield world
    world.front.news._redis.close()
    world.front.news._redis = redis


def test_while_redis_is_away_no_more_is_remembered_of_accounts_than_may_wait(away, monkeypatch):
    monkeypatch.setattr(news_module, "WAITING_MOST", 3)
    for number in range(20):
        away.ask(account=f"u{number}")
    untold = away.front.news.untold
    assert len(untold._waiting) <= 3
    assert len(untold._opened) <= 3
    assert untold.has(20, untold.epoch), "what was dropped is not believed either"


def test_while_redis_is_away_sql_is_not_asked_again_and_again_what_to_tell_it(away, monkeypatch):
    for number in range(5):
        away.ask(account=f"u{number}")
    reading, reads = away.comptroller._db.reading, []

    def counted(**how):
        reads.append(how)
        return reading(**how)

    monkeypatch.setattr(away.comptroller._db, "reading", counted)
    for _ in range(10):
        away.tell()
    assert reads == []
    assert len(away.front.news._written) == 5, "they are told when it is back"


def test_what_cannot_be_told_is_not_tried_again_at_each_commit(away, monkeypatch):
    monkeypatch.setattr(news_module, "AGAIN_SECONDS", 1000)
    news = away.front.news
    flush, flushed, flushes = news.flush, threading.Event(), []

    def counted():
        flush()
        flushes.append(threading.current_thread())
        flushed.set()

    news.by_hand, news.flush = False, counted
    away.admit(1)
    assert flushed.wait(30)
    for number in range(10):
        away.admit(1, account=f"u{number}")
    news.close()
    assert not news._thread.is_alive(), "who closes does not wait for that"
    assert flushes == [news._thread, threading.current_thread()]


def test_after_it_was_away_redis_hears_of_all_that_was_written_meanwhile(world, redis_url):
    world.ask(3)
    world.learn()
    redis, world.front.news._redis = world.front.news._redis, open_sync(NOBODY_THERE)
    world.comptroller.set_plan("u", "own")
    world.ask(1, account="v")
    for _ in range(3):
        world.tell()
    world.front.news._redis.close()
    world.front.news._redis = redis
    world.tell()
    assert world.front.news._written == {}
    assert world.known().told == 0, "nothing is denied on what was known before"
    assert world.said() == ("allowance_exhausted", "sql")


def test_an_account_that_redis_refuses_keeps_no_other_from_being_told(world):
    world.ask(1)
    world.front.redis.command("DEL", redis_key("u"))
    world.front.redis.command("SADD", redis_key("u"), "not ours")
    world.comptroller.set_plan("u", "own")
    for number in range(3):
        world.comptroller.set_plan(f"other-{number}", "own")
    with pytest.raises(ScriptFailed):
        world.tell()
    assert list(world.front.news._written) == [1], "the others have been told"
    with pytest.raises(ScriptFailed):
        world.tell()
    world.front.redis.command("DEL", redis_key("u"))
    world.tell()
    assert world.front.news._written == {}


def test_names_that_are_forgotten_while_news_are_written_do_not_misdirect_them(world, monkeypatch):
    for account in "abcd":
        world.ask(3, account=account)
        world.learn(account)
        assert world.said(account=account)[1] == "redis"
    monkeypatch.setattr(reporter_module, "NAMES_MOST", 2)
    world.front.news._reporter._names.clear()
    for account in "abcd":
        world.comptroller.set_plan(account, "own")
    world.tell()
    assert [world.known(account).told for account in "abcd"] == [0, 0, 0, 0]
    assert world.front.redis.command("EXISTS", redis_key("")) == 0


def test_only_accounts_of_which_much_was_told_singly_are_looked_through(world, monkeypatch):
    monkeypatch.setattr(reporter_module, "SINGLY_MOST", 2)
    reporter = world.front.news._reporter
    for account in ("little", "much"):
        world.learn(account)
        world.ask(1, account=account)
    assert list(reporter.grown()) == []
    world.admit(1, account="much")
    reporter.messages(world.front.news._events)
    assert list(reporter.grown()) == ["much"]
    assert len(reporter._grown) == 1, "and not all that were ever told of"
    world.learn("much")
    assert reporter._grown == set(), "it was told as a whole"


def test_closing_does_not_wait_for_ever_for_what_is_being_told(world, monkeypatch, caplog):
    monkeypatch.setattr(news_module, "CLOSING_SECONDS", 0.05)
    news = world.front.news
    news.by_hand = False
    send, is_told, may_go_on = news._send, threading.Event(), threading.Event()

    def hangs(messages):
        is_told.set()
        assert may_go_on.wait(30)
        return send(messages)

    news._send = hangs
    world.admit(1)
    assert is_told.wait(30)
    closing = threading.Thread(target=news.close)
    closing.start()
    closing.join(30)
    is_closed = not closing.is_alive()
    may_go_on.set()
    closing.join()
    news._thread.join()
    assert is_closed
    assert "not all news were told" in caplog.text


def test_where_no_thread_can_be_started_a_commit_is_a_commit_all_the_same(world, monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    news, denials = world.front.news, world.comptroller._denials
    news.by_hand = False
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        assert world.admit(3)
        assert not world.admit(1)
    assert (news._thread, denials._thread) == (None, None)
    world.tell()
    assert world.said() == ("allowance_exhausted", "redis")
    world.comptroller.set_plan("u", "own")
    assert news._thread is not None
    denials.flush()
    assert [record.count for record in world.comptroller.denials("u")] == [2]


def test_two_threads_that_let_go_of_old_facts_at_one_time_do_not_trip(world, monkeypatch):
    class Raced(dict[str, Facts]):
        """Another thread is quicker, between the look at all names and what follows from it."""

        def __iter__(self):
            names = list(super().__iter__())
            self.clear()
            return iter(names)

    monkeypatch.setattr(prefilter_module, "FACTS_MOST", 2)
    prefilter = world.front.prefilter
    prefilter._facts = Raced(a=Facts(), b=Facts())
    assert prefilter.remember("c", b"") == Facts()
    assert prefilter.facts("c") == Facts()
