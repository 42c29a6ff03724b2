"""A webhook whose process dies, or loses the database, at any statement ends in the same books once it is retried."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.processes.webhooks import COURSES
from tests.processes.workers import PROJECT


@pytest.mark.parametrize(
    ("kind", "how", "course"),
    [
        *(("sqlite", "killed", course) for course in COURSES),
        ("postgresql", "killed", "paid"),
        ("postgresql", "cut", "refunded"),
        ("postgresql", "cut", "invoiced"),
    ],
)
def test_guarantee_order_free_a_webhook_that_fails_at_any_statement_is_worked_off_once(
    kind, how, course, tmp_path
):
    done = subprocess.run(
        [sys.executable, "-m", "tests.processes.webhooks", course, how, kind, str(tmp_path)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    tried = [json.loads(line) for line in done.stdout.splitlines()]
    print(f"{course}: {how} at each of n = 1 to {len(tried)}")
    for each in tried:
        assert each["swept"], each
        assert each["same"], each
        assert each["wrong"] == [], each
    assert len(tried) > 20
    assert {each["kept"] for each in tried} == {0, 1}, "also between the inbox and the effect"
