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
def host(database):
    """A host's own engine, with its driver's defaults."""
    engine = create_engine(on_driver(database, "psycopg"))
    yield engine
    engine.dispose()
