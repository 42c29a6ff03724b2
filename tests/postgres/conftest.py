"""Books on PostgreSQL, and a second connection that looks at them from outside."""

from __future__ import annotations

import psycopg
import pytest
from sqlalchemy import create_engine

from policies.policy_set import PolicySet
from quota import Comptroller
from quota.testing import FakeClock
from tests.databases import a_database
from tests.hosts.host import on_driver
from tests.world import POLICIES, START, World, discrepancies


@pytest.fixture
def database(tmp_path):
    with a_database("postgresql", tmp_path) as url:
        yield url


@pytest.fixture
def world(database):
    clock = FakeClock(START)
    with Comptroller.open(PolicySet.parse(POLICIES), database, clock=clock) as comptroller:
        yield World(comptroller, clock)
        assert discrepancies(comptroller) == []


@pytest.fixture
def outside(database):
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


@pytest.fixture
def host_of():
    """Make a host's own engine on a database, with its driver's defaults."""
    engines = []

    def make(database):
        engines.append(create_engine(on_driver(database, "psycopg")))
        return engines[-1]

    yield make
    for engine in engines:
        engine.dispose()


@pytest.fixture
def host(database, host_of):
    return host_of(database)


def opened(database, policies=POLICIES, clock=lambda: START, **more):
    """Open books by URL, with a clock that stands still."""
    return Comptroller.open(PolicySet.parse(policies), database, clock=clock, **more)


WAITING = """
SELECT count(*) FROM pg_stat_activity
WHERE wait_event_type = 'Lock' AND datname = current_database()
"""


def wait_until_somebody_waits(outside) -> None:
    """Come back once somebody waits for a lock."""
    while outside.execute(WAITING).fetchone() == (0,):
        pass
