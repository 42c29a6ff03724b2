"""The news: told off the caller's path, never failing it, bounded, and the parent's alone after a fork."""

from __future__ import annotations

import os
import threading
from datetime import timedelta

import pytest

from quota.forks import _in_child
from quota.prefilter import news as news_module
from quota.prefilter.news import News
from quota.prefilter.prefilter import Passed
from quota.prefilter.untold import Untold
from quota.redis import open_sync
from tests.prefilter.behind import behind
from tests.world import SECTIONS

PLANS = "default_plan: own\nplans:\n  own: {sources: [{kind: daily_allowance, units: 3}]}\n"
NOBODY_THERE = "redis://127.0.0.1:1"
DENIED = ("allowance_exhausted", "redis")


@pytest.fixture
def world(redis_url):
    with behind(redis_url, SECTIONS + PLANS) as opened:
        yield opened


def test_news_are_told_by_a_thread_of_their_own(world):
    news = world.front.news
    news.by_hand = False
    heard = threading.Event()
    send = news._send

    def watched(messages):
        send(messages)
        heard.set()

    news._send = watched
    world.admit(1)
    assert heard.wait(10)
    assert news._thread.name == "comptroller-news"
    assert news._thread.daemon


def test_nobody_waits_for_what_is_being_told(world):
    news = world.front.news
    with news._telling:  # as while SQL or Redis is slow
        assert world.admit(3)
        assert not world.admit(1)
        world.comptroller.set_plan("u", "own")
    assert len(news._events) == 1
    assert "u" in news._unknown


def test_a_clock_that_fails_after_the_commit_fails_nobody(world, monkeypatch):
    news = world.front.news

    def broken():
        raise ZeroDivisionError

    monkeypatch.setattr(news._reporter, "_now", broken)
    grant = world.admit(3)
    assert grant.granted
    monkeypatch.undo()
    world.tell()
    world.learn()
    assert world.said() == DENIED


def test_a_failure_in_the_thread_is_logged_and_the_thread_goes_on(world, caplog):
    news = world.front.news
    news.by_hand = False
    send, called = news._send, threading.Semaphore(0)

    def fails(messages):
        called.release()
        raise ZeroDivisionError

    news._send = fails
    world.admit(1)
    assert called.acquire(timeout=10)
    news._send = send
    world.admit(1)
    news._wake.set()
    assert news._thread.is_alive()
    news.close()
    assert "the news could not be told" in caplog.text
    assert world.known().seq == 2


def test_more_news_than_may_wait_are_dropped_and_nothing_is_believed_meanwhile(world, monkeypatch):
    world.ask(3)
    assert world.said() == DENIED
    monkeypatch.setattr(news_module, "WAITING_MOST", 0)
    world.comptroller.set_plan("v", "own")
    monkeypatch.undo()
    assert world.front.news._written == {}
    assert world.said() == ("allowance_exhausted", "sql"), "it may have been any account"


def test_while_redis_is_away_nothing_is_read_for_it(world, monkeypatch):
    world.ask(3)
    news = world.front.news
    away = open_sync(NOBODY_THERE)
    monkeypatch.setattr(news, "_redis", away)
    world.comptroller.set_plan("u", "own")
    world.tell()
    assert set(away.states.values()) == {"open"}
    reads: list[object] = []
    monkeypatch.setattr(news._reporter, "states", reads.append)
    world.front.news.unknown("u")
    world.tell()
    assert reads == []
    assert list(news._written) == [1], "that its book has gone on is told again"
    away.close()


def test_what_waits_is_told_when_it_closes(redis_url):
    with behind(redis_url, SECTIONS + PLANS) as world:
        world.learn()
        world.admit(2)
        assert sum(lease.flags & 1 for lease in world.known().leases) == 1
        front = world.front
    with behind(redis_url, SECTIONS + PLANS) as after:
        assert [lease.flags & 1 for lease in after.known().leases] == [0]
        assert front.news._closed


def test_a_child_begins_with_nothing_to_tell(world):
    world.ask(1)
    world.admit(1)
    world.comptroller.set_plan("u", "own")
    world.front.news.unknown("v")
    child = os.fork()
    if child == 0:
        news = world.front.news
        empty = not (news._events or news._written or news._unknown or news._thread)
        os._exit(0 if empty and not news.untold.has(1, 0) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert world.front.news._events
    world.tell()
    world.learn()


def test_no_lock_of_the_parent_is_held_in_a_child(world):
    front = world.front
    with front.news._guard, front.news._telling, front._budgets._guard, front.local._guard:
        held = (front.news._guard, front.news._telling, front._budgets._guard, front.local._guard)
        _in_child()
        assert all(lock.locked() for lock in held)
        for lock in (front.news._guard, front._budgets._guard, front.local._guard):
            assert not lock.locked()
    assert not front.news._telling.locked()


def test_what_sql_did_not_grant_is_undone(world):
    world.ask(3)
    world.learn()
    world.front.redis.command("DEL", b"comptroller:{u}")
    world.learn()
    decision = world.front.decide(world.comptroller.policies, asked("k"))
    assert not isinstance(decision, Passed), "nothing is left"
    world.clock.advance(timedelta(hours=25))
    passed = world.front.decide(world.comptroller.policies, asked("k"))
    assert isinstance(passed, Passed)
    assert len(world.known().leases) == 2
    world.front.news.undone("u", passed.print)
    world.tell()
    assert len(world.known().leases) == 1
    world.front.news.undone("u", passed.print)
    world.tell()


def asked(key):
    from quota.ask import Ask

    return Ask("u", "clip", {"n": 1}, key, None, None, consent=False, not_after=None)


def test_untold_remembers_when_redis_has_heard_only_of_so_many_books(monkeypatch):
    monkeypatch.setattr("quota.prefilter.untold.REMEMBERED_MOST", 4)
    untold = Untold()
    before = untold.epoch
    for book in range(1, 7):
        untold.expect(book, 1, 2)
        assert untold.has(book, untold.epoch)
        untold.heard(book, 1)
        assert untold.has(book, untold.epoch), "that was an older record"
        untold.heard(book, 2)
        assert not untold.has(book, untold.epoch)
        assert untold.has(book, before)
    assert untold.has(99, before), "what is forgotten may have been of any book"
    assert not untold.has(99, untold.epoch)


def test_a_book_that_redis_has_never_heard_of_may_be_any_that_was_opened():
    untold = Untold()
    before = untold.epoch
    untold.expect(7, 0, 1)
    assert untold.has(0, untold.epoch)
    untold.heard(7, 1)
    assert not untold.has(0, untold.epoch)
    assert untold.has(0, before)


def test_a_database_in_memory_that_is_the_hosts_own_is_left_alone(redis_url, world):
    with behind(redis_url, SECTIONS + PLANS, database=world.comptroller._db.engine) as joined:
        assert News(
            joined.comptroller._db,
            joined.front.redis,
            joined.front.script,
            lambda: joined.front.prefilter.compiler(joined.comptroller.policies),
            joined.front.now,
            joined.front._budgets,
            joined.front.keys,
        ).by_hand
