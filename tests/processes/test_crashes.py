"""A process that dies at any SQL statement leaves all or nothing, and the same call again has one effect."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.processes.crashes import OPERATIONS
from tests.processes.workers import PROJECT


@pytest.mark.parametrize("operation", OPERATIONS)
def test_guarantee_once_a_crash_at_any_statement_leaves_all_or_nothing(operation, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tests.processes.crashes", operation, str(tmp_path)],
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
        assert each["one_effect"], each
        assert each["wrong"] == [], each
    assert [each["n"] for each in tried] == list(range(1, len(tried) + 1))
    assert len(tried) > 10
    assert tried[0]["left"] == "nothing"
    assert tried[-1]["left"] == "all"
