"""A host's database with our tables beside its own."""

from __future__ import annotations

import pytest

from policies.policy_set import PolicySet
from quota import Comptroller
from quota.testing import FakeClock
from tests.hosts.host import an_engine, migrate_host
from tests.world import POLICIES, START, World, discrepancies


@pytest.fixture
def database(tmp_path):
    return f"sqlite:///{tmp_path}/host.db"


@pytest.fixture
def engine(database, tmp_path):
    made = an_engine(database)
    migrate_host(made, tmp_path)
    yield made
    made.dispose()


@pytest.fixture
def world(engine):
    """A Comptroller on the host's own engine."""
    clock = FakeClock(START)
    with Comptroller.open(PolicySet.parse(POLICIES), engine, clock=clock) as comptroller:
        yield World(comptroller, clock)
        assert discrepancies(comptroller) == []
