"""Joining the host's AsyncSession: on aiosqlite, on asyncpg and on psycopg's async connections."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.pool import NullPool

from quota import AsyncComptroller, InvalidRequest, UnknownGrant
from quota.testing import FakeClock
from tests.databases import a_database
from tests.hosts.host import Account, migrate_both, on_driver
from tests.world import START, plan

Story = Callable[[AsyncComptroller, AsyncEngine], Awaitable[Any]]


@pytest.fixture(params=["aiosqlite", "asyncpg", "psycopg"])
def driver(request):
    return request.param


@pytest.fixture
def database(driver, tmp_path):
    kind = "sqlite" if driver == "aiosqlite" else "postgresql"
    with a_database(kind, tmp_path, migrate_both) as url:
        yield url


def run(database: str, driver: str, story: Story) -> None:
    """Tell a story on the host's database, in an event loop of its own."""

    async def told() -> None:
        host = create_async_engine(on_driver(database, driver), poolclass=NullPool)
        clock = FakeClock(START)
        parsed = plan("{sources: [{kind: daily_allowance, units: 30}]}")
        async with AsyncComptroller.open(parsed, database, clock=clock) as comptroller:
            await story(comptroller, host)
        await host.dispose()

    asyncio.run(told())


def test_the_hosts_commit_keeps_both(database, driver):
    async def story(comptroller, host):
        async with AsyncSession(host) as session:
            session.add(Account(name="u"))
            grant = await comptroller.admit(
                account="u", operation="clip", key="job", session=session
            )
            await comptroller.start(grant.id, session=session)
            await session.commit()
        assert (await comptroller.get(grant.id)).status == "held"
        async with AsyncSession(host) as session:
            assert await session.scalar(select(func.count()).select_from(Account)) == 1

    run(database, driver, story)


def test_the_hosts_rollback_undoes_both(database, driver):
    async def story(comptroller, host):
        async with AsyncSession(host) as session:
            session.add(Account(name="u"))
            await session.flush()
            grant = await comptroller.admit(
                account="u", operation="clip", key="job", session=session
            )
            assert session.in_transaction()
            await session.rollback()
        with pytest.raises(UnknownGrant):
            await comptroller.get(grant.id)
        async with AsyncSession(host) as session:
            assert await session.scalar(select(func.count()).select_from(Account)) == 0

    run(database, driver, story)


def test_an_error_of_ours_leaves_the_hosts_transaction_as_it_was(database, driver):
    async def story(comptroller, host):
        async with AsyncSession(host) as session:
            session.add(Account(name="u"))
            await session.flush()
            with pytest.raises(InvalidRequest):
                await comptroller.set_plan("u", "none", session=session)
            with pytest.raises(UnknownGrant):
                await comptroller.extend("gr_9_9", timedelta(hours=1), session=session)
            await session.commit()
        async with AsyncSession(host) as session:
            assert await session.scalar(select(func.count()).select_from(Account)) == 1

    run(database, driver, story)


def test_tasks_that_ask_at_once_are_granted_30_of_30(database, driver):
    async def story(comptroller, host):
        asked = [
            comptroller.admit(account="u", operation="clip", key=f"job-{number}")
            for number in range(40)
        ]
        assert sum(map(bool, await asyncio.gather(*asked))) == 30

    run(database, driver, story)


def test_a_job_settles_at_its_end_and_is_released_where_its_body_raises(database, driver):
    async def story(comptroller, host):
        async with comptroller.job(account="u", operation="clip", key="good") as job:
            job.gpu_seconds = 3
        assert (job.ending.status, job.ending.gpu_cost_micro_usd) == ("settled", 3000)
        with pytest.raises(ZeroDivisionError):
            async with comptroller.job(account="u", operation="clip", key="bad") as job:
                raise ZeroDivisionError
        assert (job.ending.status, job.ending.reason) == ("released", "failed")

    run(database, driver, story)
