"""A PostgreSQL that is killed in mid-transaction, away for a while, and whose replies are lost after it committed."""

from __future__ import annotations

from pathlib import Path

from tests.faults.faults import DATABASE
from tests.faults.outcomes import Outcome
from tests.faults.scenario import survive

MUST = frozenset(
    {
        Outcome.UNAVAILABLE,
        Outcome.LOST_REPLY,
        Outcome.ROLLED_BACK,
        Outcome.HOST_LOST,
        Outcome.UNDONE,
        Outcome.REPLAYED,
        Outcome.EXPIRED,
        Outcome.DENIED_BY_REDIS,
        Outcome.DENIED_BY_SQL,
    }
)


def test_guarantee_once_postgresql_is_killed_and_its_replies_are_lost_in_mid_load(tmp_path: Path):
    survive(
        "PostgreSQL coming and going, Redis in front",
        tmp_path,
        database="postgresql",
        faults=[*DATABASE, "redis flushed"],
        must=MUST,
    )
