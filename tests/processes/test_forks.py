"""A server that forks its workers after it has opened the books."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.processes.forks import ASKED, CHILDREN
from tests.processes.workers import PROJECT


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/books.db"
    return request.getfixturevalue("database_url")


@pytest.fixture(params=["nothing", "redis", "cluster"])
def redis(request):
    if request.param == "nothing":
        return ()
    return (request.getfixturevalue("redis_url" if request.param == "redis" else "cluster_url"),)


def test_a_parent_and_its_forked_children_share_the_books_and_no_connection(database, redis):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.processes.forks", database, *redis],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    told = json.loads(done.stdout)
    by_redis, by_sql = told.get("denied by redis", 0), told.get("denied by sql", 0)
    assert told["granted"] == 30
    assert by_redis + by_sql >= ASKED * (1 + 2 * CHILDREN) - 30
    assert [bool(each) for each in told["by redis"]] == [bool(redis)] * (1 + CHILDREN)
    assert told["recorded"] == by_redis + by_sql  # each by the process that denied, and once
    assert told["ended"] == [0] * CHILDREN
    assert told["after"]
    assert told["wrong"] == []
