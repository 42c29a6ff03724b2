"""SQLite files under several processes, some of which are killed, with a Redis in front that comes and goes."""

from __future__ import annotations

from pathlib import Path

from tests.faults.faults import WORKERS
from tests.faults.outcomes import Outcome
from tests.faults.scenario import survive

MUST = frozenset({Outcome.DENIED_BY_SQL, Outcome.DENIED_BY_REDIS, Outcome.LOST_REPLY})


def test_guarantee_exact_workers_are_killed_while_they_race_on_sqlite(tmp_path: Path):
    survive(
        "SQLite, workers killed",
        tmp_path,
        database="sqlite",
        faults=[WORKERS, ["redis flushed", "redis killed, empty again", "redis hangs"]],
        must=MUST,
    )
