"""What an admit costs after 10 grants of history, and after 100,000: the history must not make it dearer."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import timedelta

from policies import PolicySet
from quota import Comptroller
from quota.testing import FakeClock
from tests.bench.decision import POLICIES
from tests.bench.rounds import Ratio, Side, compare

SHORT, LONG = 10, 100_000
BLOCK = 100
ROUNDS = 11
STEP = timedelta(minutes=48)
"""30 grants a day: windows stay as full as they are, while the history grows."""


def _engine(grants: int) -> Side:
    clock, numbers = FakeClock(), itertools.count()
    engine = Comptroller.open(PolicySet.parse(POLICIES), "sqlite://", clock=clock)

    def one() -> None:
        clock.advance(STEP)
        decision = engine.admit(
            account="u",
            operation="video.generate",
            attributes={"seconds": 10},
            key=f"k{next(numbers)}",
        )
        if not decision:
            raise AssertionError(f"the benchmark must measure grants: {decision}")
        engine.settle(decision.id, gpu_seconds=130)

    for _ in range(grants):
        one()

    def block() -> int:
        for _ in range(BLOCK):
            one()
        return BLOCK

    return lambda: block


def run() -> Iterator[Ratio]:
    """Compare an account with a long history to one with a short one, in memory: nothing hides behind the disk."""
    yield compare(
        f"admit and settle after {LONG:,} grants",
        "at least 0.77 (1.3 times the cost)",
        (f"{LONG:,} grants of history", _engine(LONG)),
        # Windows of a week hold 210 grants: the short history is that long too, or it would be compared with nothing.
        (f"{SHORT} grants of history", _engine(SHORT)),
        rounds=ROUNDS,
    )
