"""A host's database with our tables beside its own, of each kind."""

from __future__ import annotations

import pytest

from policies.policy_set import PolicySet
from quota import Comptroller
from quota.testing import FakeClock
from tests.databases import KINDS, a_database
from tests.hosts.host import an_engine, migrate_both
from tests.world import POLICIES, START, World, discrepancies


@pytest.fixture(params=KINDS)
def database(request, tmp_path):
    with a_database(request.param, tmp_path, migrate_both) as url:
        yield url


@pytest.fixture
def engine(database):
    made = an_engine(database)
    yield made
    made.dispose()


@pytest.fixture
def world(engine):
    """A Comptroller on the host's own engine."""
    clock = FakeClock(START)
    with Comptroller.open(PolicySet.parse(POLICIES), engine, clock=clock) as comptroller:
        yield World(comptroller, clock)
        assert discrepancies(comptroller) == []
