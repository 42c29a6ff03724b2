"""`verify`, all checks on, against the least that verification can be: SHA-256 and JSON of the same records."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

from policies import PolicySet
from quota import Comptroller
from quota.testing import FakeClock
from tests.bench.decision import POLICIES
from tests.bench.rounds import Ratio, Side, compare

GRANTS, ACCOUNTS, ROUNDS = 3000, 30, 7


def run() -> Iterator[Ratio]:
    """Compare both over the books of some thousand grants and ends."""
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
        engine.settle(grant.id, gpu_seconds=130)
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
    yield compare(
        "verify, per record",
        "at least 0.3",
        ("all checks", ours),
        ("SHA-256 and JSON of the same records", least),
        rounds=ROUNDS,
    )
    engine.close()
