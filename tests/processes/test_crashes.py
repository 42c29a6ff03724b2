"""A process that dies at any SQL statement leaves all or nothing, and the same call again has one effect."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.databases import KINDS
from tests.processes.operations import OPERATIONS
from tests.processes.workers import PROJECT


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_guarantee_once_a_crash_at_any_statement_leaves_all_or_nothing(kind, operation, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tests.processes.crashes", operation, kind, str(tmp_path)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    tried = [json.loads(line) for line in done.stdout.splitlines()]
    print(f"{operation}: died at each of n = 1 to {len(tried)}")
    for each in tried:
        assert each["left"] in ("nothing", "all"), each
        if "one_effect" in each:  # the books were not as before: the same call was made again
            assert each["one_effect"], each
            assert each["wrong"] == [], each
    assert [each["n"] for each in tried] == list(range(1, len(tried) + 1))
    assert len(tried) > 10
    assert tried[0]["left"] == "nothing"
    assert tried[-1]["left"] == "all"
    assert "one_effect" in tried[0]
    assert "one_effect" in tried[-1]
