"""The servers as fixtures, for every test below tests/ (tests/conftest.py imports them)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers import run
from tests.servers.cluster import ClusterAt, shared_cluster
from tests.servers.postgres import Databases, drop_external, shared_postgres
from tests.servers.redis import RedisAt, own_redis, shared_redis


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


@pytest.fixture(scope="session")
def redis_server() -> RedisAt:
    """The Redis server, or database, that this worker has for itself. It is as tests left it."""
    return shared_redis()


@pytest.fixture
def redis_url(redis_server: RedisAt) -> str:
    """The URL of this worker's Redis, empty: redis://..."""
    redis_server.flush()
    return redis_server.url


@pytest.fixture
def lone_redis() -> RedisAt:
    """A whole server that no other worker uses, without keys and scripts, its URL without a database.

    For tests of what all databases of a server have in common: scripts, connections, statistics.
    """
    server = own_redis()
    server.flush()
    return server


@pytest.fixture(scope="session")
def redis_cluster() -> ClusterAt:
    """The three-node cluster that this worker has for itself. It is as tests left it."""
    return shared_cluster()


@pytest.fixture
def cluster_url(redis_cluster: ClusterAt) -> Iterator[str]:
    """The URL of this worker's cluster, empty: redis+cluster://... Slots may lie anywhere."""
    redis_cluster.flush()
    yield redis_cluster.url
    redis_cluster.abandon_moves()
