"""A PostgreSQL that is killed in mid-transaction, away for a while, and whose replies are lost after it committed."""

from __future__ import annotations

from pathlib import Path

from tests.faults.faults import DATABASE, DATABASE_WAY
from tests.faults.outcomes import Outcome
from tests.faults.scenario import survive

AWAY = frozenset({Outcome.UNAVAILABLE, Outcome.UNDONE, Outcome.EXPIRED, Outcome.DENIED_BY_REDIS})
LOST = frozenset({Outcome.LOST_REPLY, Outcome.HOST_LOST, Outcome.ROLLED_BACK, Outcome.REPLAYED})
MUST = AWAY | LOST


def test_guarantee_once_postgresql_is_killed_in_mid_transaction_and_away(tmp_path: Path):
    survive(
        "PostgreSQL killed and away",
        tmp_path,
        database="postgresql",
        faults=[DATABASE, ["redis flushed", "worker killed", "scripts flushed"]],
        must=AWAY,
    )


def test_guarantee_once_replies_of_postgresql_are_lost_after_it_has_committed(tmp_path: Path):
    survive(
        "PostgreSQL's replies lost",
        tmp_path,
        database="postgresql",
        faults=[DATABASE_WAY],
        must=LOST,
        budget=True,
    )
