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


def test_a_parent_and_its_forked_children_share_the_books_and_no_connection(database):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.processes.forks", database],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    told = json.loads(done.stdout)
    asked = ASKED * (1 + 2 * CHILDREN)
    assert (told["granted"], told["denied"]) == (30, asked - 30)
    assert told["recorded"] == told["denied"]  # each by the process that denied, and once
    assert told["ended"] == [0] * CHILDREN
    assert told["after"]
    assert told["wrong"] == []
