"""A Redis Cluster whose primaries are killed, and whose replicas take over without the last writes."""

from __future__ import annotations

from pathlib import Path

from tests.faults.faults import CLUSTER
from tests.faults.outcomes import Outcome
from tests.faults.scenario import survive

MUST = frozenset(
    {
        Outcome.DENIED_BY_REDIS,
        Outcome.LOST_WRITES,
        Outcome.REBUILT,
        Outcome.BREAKER_OPEN,
        Outcome.UNDONE,
    }
)


def test_guarantee_exact_a_cluster_fails_over_and_loses_writes_in_mid_load(tmp_path: Path):
    survive(
        "SQLite, a Redis Cluster failing over",
        tmp_path,
        database="sqlite",
        cluster=True,
        faults=[CLUSTER],
        must=MUST,
    )
