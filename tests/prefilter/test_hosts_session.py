"""Within a host's own session: Redis is told when the host has committed, and a note of what was not is undone."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from sqlalchemy.pool import NullPool

from quota import AsyncComptroller
from tests.prefilter.behind import behind
from tests.world import SECTIONS

PLANS = "default_plan: own\nplans:\n  own: {sources: [{kind: daily_allowance, units: 3}]}\n"
ASK: dict[str, Any] = {"account": "u", "operation": "clip"}


@pytest.fixture
def world(redis_url, tmp_path):
    database = f"sqlite:///{tmp_path}/books.db"
    with behind(redis_url, SECTIONS + PLANS, database=database) as opened:
        opened.ask(1)
        opened.learn()
        yield opened


@pytest.fixture
def host(tmp_path):
    engine = create_engine(f"sqlite:///{tmp_path}/books.db", poolclass=NullPool)
    yield engine
    engine.dispose()


def pending(world) -> int:
    known = world.known()
    return sum(lease.flags & 1 for lease in known.leases)


def test_what_the_host_commits_is_told(world, host):
    with Session(host) as session:
        assert world.admit(2, session=session)
        world.tell()
        assert pending(world) == 1, "not before"
        session.commit()
    world.tell()
    assert world.known().told == 0, "nothing is denied on what was known"
    world.learn()
    assert pending(world) == 0
    assert world.said() == ("allowance_exhausted", "redis")


@pytest.mark.parametrize("how", ["rollback", "close", "error"])
def test_what_the_host_does_not_commit_is_undone(world, host, how):
    told = world.known().told
    session = Session(host)
    assert world.admit(2, session=session)
    assert pending(world) == 1
    if how == "rollback":
        session.rollback()
    elif how == "close":
        session.close()
    else:
        event.listen(session, "before_commit", fails)
        with pytest.raises(ZeroDivisionError):
            session.commit()
    session.close()
    world.tell()
    assert pending(world) == 0
    assert world.known().told == told, "what is known is still all"
    assert world.said(2)[0] == "granted"


def fails(_):
    raise ZeroDivisionError


def test_a_session_that_is_used_again_tells_each_time(world, host):
    with Session(host) as session:
        for committed in (True, False, True):
            assert world.admit(1, session=session, account="v")
            session.commit() if committed else session.rollback()
        world.tell()
        world.learn("v")
    assert len(world.known("v").uses) == 2
    assert world.said(2, account="v") == ("allowance_exhausted", "redis")


def test_several_calls_of_one_transaction_are_told_together(world, host):
    with Session(host) as session:
        first = world.admit(1, session=session)
        world.comptroller.settle(first.id, session=session)
        assert world.admit(1, session=session)
        session.commit()
    world.tell()
    world.learn()
    assert world.said() == ("allowance_exhausted", "redis")


def test_a_host_may_undo_a_call_at_a_savepoint_of_its_own(world, host):
    with Session(host) as session:
        session.execute(text("CREATE TABLE jobs (id INTEGER)"))
        nested = session.begin_nested()
        assert world.admit(2, session=session)
        nested.rollback()
        session.commit()
    world.tell()
    world.clock.advance(timedelta(seconds=6))  # by then the note has died
    world.learn()
    known = world.known()
    assert (known.seq, known.seen) == (1, 1), "nobody waits for a record that never came"
    assert world.said(3) == ("allowance_exhausted", "redis")
    assert world.said(2)[0] == "granted"


def test_a_savepoint_that_the_host_keeps_is_not_the_end(world, host):
    with Session(host) as session:
        with session.begin_nested():
            assert world.admit(2, session=session)
        world.tell()
        assert pending(world) == 1
        session.rollback()
    world.tell()
    assert pending(world) == 0


def test_a_scoped_session_is_told_of_as_any_other(world, host):
    sessions = scoped_session(sessionmaker(host))
    assert world.admit(1, session=sessions)
    sessions.commit()
    assert world.admit(1, session=sessions)
    sessions.rollback()
    sessions.remove()
    world.tell()
    assert pending(world) == 1, "which is the first one's: that it was kept is told with the rest"
    world.learn()
    assert (pending(world), len(world.known().uses)) == (0, 2)


def test_a_commit_of_the_host_never_fails_for_redis(world, host):
    with Session(host) as session:
        assert world.admit(1, session=session)
        world.front.redis.close()
        session.commit()
    with Session(host) as session:
        assert world.admit(1, session=session).decided_by == "sql"
        world.comptroller.forget("u", session=session)
        session.commit()


def test_an_async_session_is_told_of_as_any_other(world, tmp_path, redis_url):
    ours, hosts = f"sqlite:///{tmp_path}/books.db", f"sqlite+aiosqlite:///{tmp_path}/books.db"

    async def calls() -> None:
        policies = world.comptroller.policies
        engine = create_async_engine(hosts, poolclass=NullPool)
        async with AsyncComptroller.open(policies, ours, redis_url, world.clock) as awaited:
            async with AsyncSession(engine) as session:
                assert await awaited.admit(**ASK, key="kept", session=session)
                await session.commit()
            async with AsyncSession(engine) as session:
                assert await awaited.admit(**ASK, key="not", session=session)
                await session.rollback()
        await engine.dispose()

    asyncio.run(calls())
    assert pending(world) == 1, "which is the first one's"
    world.learn()
    assert (pending(world), len(world.known().uses)) == (0, 2)
    assert world.said(2) == ("allowance_exhausted", "redis")


def test_a_denial_inside_a_hosts_transaction_touches_neither(world, host):
    world.ask(2)
    with Session(host) as session:
        denial = world.admit(1, session=session)
        assert (denial.granted, denial.decided_by) == (False, "redis")
        assert not session.in_transaction()
