"""The pure decision: four limits, an allowance and full findings, against the `limits` library doing four
limits in memory.

`limits` has three strategies; the moving window is the one that is exact, as ours are.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from limits.strategies import (
    FixedWindowRateLimiter,
    MovingWindowRateLimiter,
    RateLimiter,
    SlidingWindowCounterRateLimiter,
)

from policies import PolicySet, Readings, decide
from policies.request import Circumstances
from tests.bench.rounds import Ratio, Side, compare

BLOCK = 2_000
ROUNDS = 15
WANTED = "at least 1.0"
POLICIES = """
schema: 1
gpus: {h100: {usd_per_hour: 2.50}}
operations:
  video.generate:
    attributes: {seconds: {type: integer, choices: [10, 15, 25]}}
    weight: {by: seconds, table: {10: 1, 15: 2, 25: 4}}
    gpu_cost: {gpu: h100, gpu_seconds: {by: seconds, table: {10: 140, 15: 210, 25: 350}}}
    hold_for: 48h
plans:
  standard:
    limits:
      - {kind: rate, limit: 1000, per: 1m}
      - {kind: concurrency, limit: 1000}
      - {kind: usage, name: hourly, units: 100000, per: 1h}
      - {kind: usage, name: weekly, units: 1000000, per: 7d}
    sources: [{kind: daily_allowance, units: 100000}]
default_plan: standard
"""
PEER_LIMITS = ("100000/minute", "100000/hour", "1000000/day", "10000000/month")


def ours() -> Side:
    """A block of decisions over loaded numbers."""
    policy_set = PolicySet.parse(POLICIES)
    rules = policy_set.rules("standard", "video.generate")
    request = policy_set.request("video.generate", {"seconds": 10}, None, consent=False)
    circumstances = Circumstances("standard")
    now = datetime(2026, 1, 1, tzinfo=UTC)
    state = Readings(dict.fromkeys(rules.reads(request, circumstances), 3))

    def block() -> int:
        for _ in range(BLOCK):
            decision = decide(request, rules, circumstances, state, now)
            if not decision.granted or len(decision.findings) != 5:
                raise AssertionError(
                    f"the benchmark must measure grants with five findings: {decision}"
                )
        return BLOCK

    return lambda: block


def peer(strategy: type[RateLimiter]) -> Side:
    """A block of requests, each against four limits of the peer."""
    limiter = strategy(MemoryStorage())
    items: list[RateLimitItem] = [parse(text) for text in PEER_LIMITS]
    numbers = iter(range(10**9))

    def block() -> int:
        for _ in range(BLOCK):
            account = f"u{next(numbers) % 50}"
            if not all(limiter.hit(item, account) for item in items):
                raise AssertionError("the benchmark must measure requests that are admitted")
        return BLOCK

    return lambda: block


def run() -> Iterator[Ratio]:
    """Compare with each strategy of the peer."""
    for strategy, name in (
        (MovingWindowRateLimiter, "moving window, exact"),
        (SlidingWindowCounterRateLimiter, "sliding counter, approximate"),
        (FixedWindowRateLimiter, "fixed window, bursts at its edges"),
    ):
        wanted = WANTED if strategy is MovingWindowRateLimiter else "for comparison"
        yield compare(
            "pure decision",
            wanted,
            ("four limits, allowance, five findings", ours()),
            (f"limits in memory x 4: {name}", peer(strategy)),
            rounds=ROUNDS,
        )
