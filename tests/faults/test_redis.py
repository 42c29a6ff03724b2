"""PostgreSQL behind a Redis to which everything happens that can happen to one server and the way to it."""

from __future__ import annotations

from pathlib import Path

from tests.faults.faults import REDIS, REDIS_WAY
from tests.faults.outcomes import Outcome
from tests.faults.scenario import survive

MUST = frozenset(Outcome) - {
    Outcome.UNAVAILABLE,
    Outcome.LOST_REPLY,
    Outcome.HOST_LOST,
    Outcome.LOST_WRITES,
}


def test_guarantee_exact_redis_hangs_forgets_and_is_unreachable_in_mid_load(tmp_path: Path):
    survive(
        "PostgreSQL, Redis coming and going",
        tmp_path,
        database="postgresql",
        faults=[REDIS, [*REDIS_WAY, "worker killed"]],
        must=MUST,
    )
