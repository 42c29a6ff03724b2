"""The servers as fixtures, for every test below tests/ (tests/conftest.py imports them)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers import run
from tests.servers.postgres import Databases, drop_external, shared_postgres


def pytest_configure() -> None:
    """Name the run before pytest-xdist starts its workers: pytest's main process owns the servers."""
    run.begin_run()


def pytest_unconfigure() -> None:
    """End the run's servers. In a worker there is nothing to do."""
    if run.is_owner():
        drop_external()
        run.end_run()


@pytest.fixture(scope="session")
def postgres() -> Databases:
    """The PostgreSQL server of this run, which all tests share."""
    return shared_postgres()


@pytest.fixture
def database_url(postgres: Databases) -> Iterator[str]:
    """The URL of an empty database of this test's own: postgresql://..."""
    with postgres.database() as url:
        yield url
