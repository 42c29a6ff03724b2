"""What an admit costs after 10 grants of history, and after 100,000: a long history must not make it dearer.

Both accounts ask 30 times a day. The windows of the policy reach back a week at most, so that both are measured with
windows that are full: what differs is what lies behind them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import timedelta

from policies import PolicySet
from quota import Comptroller
from quota.testing import FakeClock
from tests.bench.decision import POLICIES
from tests.bench.rounds import Block, Ratio, Side, compare

SHORT, LONG = 10, 100_000
BLOCK = 30
ROUNDS = 15
STEP = timedelta(minutes=48)
DAILY_POLICIES = POLICIES.replace("per: 7d", "per: 6h")
"""Windows that ten grants fill: 1 h, 6 h and, for the allowance, what there is of 24 h."""


def _side(grants: int) -> Side:
    clock, numbers = FakeClock(), itertools.count()
    engine = Comptroller.open(PolicySet.parse(DAILY_POLICIES), "sqlite://", clock=clock)
    open_grants: list[str] = []

    def admit() -> None:
        clock.advance(STEP)
        decision = engine.admit(
            account="u",
            operation="video.generate",
            attributes={"seconds": 10},
            key=f"k{next(numbers)}",
        )
        if not decision:
            raise AssertionError(f"the benchmark must measure grants: {decision}")
        open_grants.append(decision.id)

    def settle_all() -> None:
        while open_grants:
            engine.settle(open_grants.pop(), gpu_seconds=130)

    for _ in range(grants):
        admit()
        settle_all()

    def prepare() -> Block:
        settle_all()

        def block() -> int:
            for _ in range(BLOCK):
                admit()
            return BLOCK

        return block

    return prepare


def run() -> Iterator[Ratio]:
    """Compare an account with a long history to one with a short one, in memory: nothing hides behind the disk."""
    yield compare(
        f"admit after {LONG:,} grants",
        "at least 0.77 (1.3 times the cost)",
        (f"{LONG:,} grants of history", _side(LONG)),
        (f"{SHORT} grants of history", _side(SHORT)),
        rounds=ROUNDS,
    )
