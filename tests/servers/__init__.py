"""Real servers for the tests, brought by wheels: nothing to install by hand, nothing left behind.

A test asks for a fixture (`database_url`, `redis_url`, `cluster_url`; or `lone_redis`, where it needs
more than a database of a server that may be named by hand); code outside a test calls
`shared_postgres()`, `shared_redis()` or `shared_cluster()`. A test that stops or kills its server
starts one of its own: `with Postgres() as server: ...`.

PostgreSQL is one server per run, with a database for every test. Redis and the cluster are one per
worker of pytest-xdist, so that a test may flush them.
"""

from __future__ import annotations

from tests.servers.cluster import Cluster, ClusterAt, shared_cluster
from tests.servers.postgres import Databases, Postgres, shared_postgres
from tests.servers.process import ServerError
from tests.servers.redis import Redis, RedisAt, shared_redis

__all__ = [
    "Cluster",
    "ClusterAt",
    "Databases",
    "Postgres",
    "Redis",
    "RedisAt",
    "ServerError",
    "shared_cluster",
    "shared_postgres",
    "shared_redis",
]
