"""`verify`, all checks on, against the least that verification can be: SHA-256 and JSON of the same records.

By one process, and by two that share the books of a file. These were started before: that takes a
second or two, however much there is to verify.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from policies import PolicySet
from quota import Comptroller
from quota.audit.state import BudgetSums
from quota.audit.workers import Workers
from quota.testing import FakeClock
from tests.bench.decision import POLICIES
from tests.bench.rounds import Ratio, Side, compare

GRANTS, ACCOUNTS, ROUNDS, WORKERS = 3000, 30, 7, 2
WANTED = "at least 0.3"
FLOOR = "SHA-256 and JSON of the same records"


def run() -> Iterator[Ratio]:
    """Compare both over the books of some thousand grants and ends."""
    engine = _filled()
    with engine._db.reading() as db:
        cursor = db.driver.cursor()
        cursor.execute("SELECT body FROM comptroller_record")
        bodies = [bytes(body) for (body,) in cursor.fetchall()]

    def verify() -> int:
        if engine.verify():
            raise AssertionError("the benchmark must verify sound books")
        return len(bodies)

    def floor() -> int:
        for body in bodies:
            hashlib.sha256(body).digest()
            json.loads(body)
        return len(bodies)

    ours: Side = lambda: verify  # noqa: E731 - nothing to prepare
    least: Side = lambda: floor  # noqa: E731
    name = "verify, per record"
    yield compare(name, WANTED, ("all checks", ours), (FLOOR, least), rounds=ROUNDS)
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(_in_file(engine, Path(folder) / "books.db")) as shared,
        Workers(shared._db, WORKERS) as workers,
    ):

        def share() -> int:
            steps = list(workers.verify([*range(1, ACCOUNTS + 1)], BudgetSums()))
            if sum(records for records, _ in steps) != len(bodies) or any(f for _, f in steps):
                raise AssertionError("the benchmark must verify all books, and sound ones")
            return len(bodies)

        both: Side = lambda: share  # noqa: E731
        name = f"verify, {WORKERS} workers"
        yield compare(name, WANTED, ("all checks", both), (FLOOR, least), rounds=ROUNDS)
    engine.close()


def _filled() -> Comptroller:
    clock = FakeClock()
    engine = Comptroller.open(PolicySet.parse(POLICIES), "sqlite://", clock=clock)
    for number in range(GRANTS):
        clock.advance(seconds=30)
        grant = engine.admit(
            account=f"u{number % ACCOUNTS}",
            operation="video.generate",
            attributes={"seconds": 10},
            key=f"k{number}",
        )
        engine.settle(grant.id, gpu_seconds=100 + number % 97)
    return engine


def _in_file(engine: Comptroller, path: Path) -> Comptroller:
    """Copy the books to a file, which other processes can open."""
    with engine._db.reading() as db, closing(sqlite3.connect(path)) as copy:
        driver: Any = db.driver.driver_connection
        driver.backup(copy)
    return Comptroller.open(PolicySet.parse(POLICIES), f"sqlite:///{path}")
