"""An account that is forgotten leaves Redis too, and one that comes back under its name is another."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from quota import StoreUnavailable
from quota.prefilter.events import Message
from quota.redis import open_sync
from tests.prefilter.behind import behind
from tests.world import SECTIONS

PLANS = "default_plan: own\nplans:\n  own: {sources: [{kind: daily_allowance, units: 2}]}\n"
NOBODY_THERE = "redis://127.0.0.1:1"
DENIED = ("allowance_exhausted", "redis")


@pytest.fixture
def world(redis_url, tmp_path):
    database = f"sqlite:///{tmp_path}/books.db"
    with behind(redis_url, SECTIONS + PLANS, database=database) as opened:
        opened.ask(2)
        assert opened.said() == DENIED
        yield opened


def test_an_account_that_is_forgotten_leaves_redis(world):
    assert world.comptroller.forget("u")
    assert world.known() is None
    world.tell()
    assert world.known() is None, "no news bring it back"
    assert "u" not in world.front.news._reporter._names.values()


def test_a_state_that_was_read_before_is_not_put_back(world):
    news, sent = world.front.news, list[Message]()
    send, news._send = news._send, sent.extend
    news.unknown("u")
    news.flush()
    news._send = send
    world.comptroller.forget("u")
    assert [message.args[0] for message in sent] == ["p"]
    assert world.said(2)[0] == "granted", "SQL has never heard of it"
    world.learn()
    news._send(sent)
    assert world.known().book_id == 2
    assert world.said() == DENIED


def test_an_old_state_that_was_put_back_gives_way_to_that_of_the_later_book(world):
    news, sent = world.front.news, list[Message]()
    send, news._send = news._send, sent.extend
    news.unknown("u")
    news.flush()
    news._send = send
    world.comptroller.forget("u")
    world.tell()
    news._send([message for message in sent if message.args[0] == "p"])
    assert world.known().book_id == 1
    assert world.said() == DENIED, "for half a minute at most"
    world.clock.advance(timedelta(seconds=31))
    assert world.said(2)[0] == "granted"
    world.learn()
    assert world.known().book_id == 2
    news._send([message for message in sent if message.args[0] == "p"])
    assert world.known().book_id == 2, "nor does it take the place of that"


def test_within_a_hosts_session_it_leaves_when_the_host_has_committed(world, tmp_path):
    host = create_engine(f"sqlite:///{tmp_path}/books.db", poolclass=NullPool)
    with Session(host) as session:
        world.comptroller.forget("u", session=session)
        session.rollback()
        world.tell()
        assert world.known() is not None
        world.comptroller.forget("u", session=session)
        session.commit()
    world.tell()
    assert world.known() is None
    host.dispose()


def test_where_redis_is_away_the_caller_hears_that_it_is_not_erased_there(world, redis_url):
    world.front.redis.close()
    with pytest.raises(StoreUnavailable) as caught:
        world.comptroller.forget("u")
    assert caught.value.retryable
    with behind(redis_url, SECTIONS + PLANS, database=world.comptroller._db.engine) as again:
        assert again.known() is not None
        assert not again.comptroller.forget("u"), "in SQL it is gone"
        assert again.known() is None


def test_a_hosts_forgetting_is_done_as_soon_as_redis_answers(world, tmp_path):
    host, news = (
        create_engine(f"sqlite:///{tmp_path}/books.db", poolclass=NullPool),
        world.front.news,
    )
    redis, news._redis = news._redis, open_sync(NOBODY_THERE)
    with Session(host) as session:
        world.comptroller.forget("u", session=session)
        session.commit()
    world.tell()
    news._redis = redis
    assert world.known() is not None
    world.tell()
    assert world.known() is None
    host.dispose()


def test_the_account_that_comes_back_is_another(world):
    world.comptroller.forget("u")
    assert world.said(2) == ("granted", "sql")
    world.learn()
    assert world.said() == DENIED
    assert world.known().book_id == 2
