"""Real servers for the tests, brought by wheels: nothing to install by hand, nothing left behind.

A test asks for a fixture (`database_url`, `redis_url`, `cluster_url`); code outside a test calls
`shared_postgres()`, `shared_redis()` or `shared_cluster()`. A test that stops or kills its server
starts one of its own: `with Postgres() as server: ...`.
"""

from __future__ import annotations

from tests.servers.postgres import Databases, Postgres, shared_postgres

__all__ = ["Databases", "Postgres", "shared_postgres"]
