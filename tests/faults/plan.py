"""What each lane does as its n-th operation: a pure function of the seed, so that a new worker goes on where one died.

Few accounts, small limits, and policies that differ in what can go wrong: `free` has the plain 30 a day, `paid` splits
requests over an allowance and lots that expire, `fast` has a rate, a limit on usage and few places, and `probe` asks
for what is limits only.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from fractions import Fraction
from functools import lru_cache
from typing import Final, Literal, NamedTuple

from policies.policy_set import PolicySet

POLICIES: Final = """
schema: 1
currency: usd
gpus: {h100: {usd_per_hour: 3.60}}
operations:
  clip:
    attributes: {n: {type: integer, default: 1, min: 1, max: 30}}
    weight: {each: {n: 1}}
    gpu_cost: {gpu: h100, gpu_seconds: {each: {n: 10}}}
    hold_for: {queued: 50s, running: 90s}
  ping: {limits_only: true, hold_for: 5s}
packs:
  three: {units: 3, price: 1.00, valid_for: 20m}
  seven: {units: 7, price: 2.00, valid_for: 6h}
default_plan: free
plans:
  free:
    limits: [{kind: concurrency, limit: 8}]
    sources: [{kind: daily_allowance, units: 30}]
  paid:
    paid_use: auto
    sources: [{kind: allowance, per: 10m, units: 8, split: true}, {kind: credits}]
  fast:
    limits:
      - {kind: rate, limit: 6, per: 30s, burst: 4}
      - {kind: concurrency, limit: 5}
      - {kind: usage, units: 24, per: 1h}
    sources: [{kind: allowance, per: 5m, units: 12}]
  probe:
    limits: [{kind: rate, limit: 20, per: 10s}]
    sources: [{kind: daily_allowance, units: 30}]
on_release:
  failed: {units: return, ours: true, grace: 1h}
  moderated: {units: charge}
"""

BUDGET: Final = """
budgets: {all: {usd_per_day: 1000}}
"""
"""More than can be spent: it is there to be charged by each grant, from blocks that are leased while all goes wrong."""
CAP_MICRO_USD: Final = 1000 * 1_000_000


def policies(*, budget: bool) -> PolicySet:
    """Return the policies, with a budget that all grants are charged to or without."""
    return PolicySet.parse(POLICIES + BUDGET if budget else POLICIES)


class Window(NamedTuple):
    """Units that an account may take within a length of time, from one source, or from all where none is named."""

    length: timedelta
    units: int
    source: str | None


@dataclass(frozen=True)
class Limits:
    """What the policies above say, in the checks' own words. `rate`: (interval, burst)."""

    windows: tuple[Window, ...]
    concurrency: int | None = None
    rate: tuple[Fraction, int] | None = None


LIMITS: Final[Mapping[str, Limits]] = {
    "free": Limits((Window(timedelta(hours=24), 30, "daily_allowance"),), concurrency=8),
    "paid": Limits((Window(timedelta(minutes=10), 8, "allowance"),)),
    "fast": Limits(
        (Window(timedelta(minutes=5), 12, "allowance"), Window(timedelta(hours=1), 24, None)),
        concurrency=5,
        rate=(Fraction(30_000_000, 6), 4),
    ),
}
UNITS: Final = {"free": 6, "paid": 9, "fast": 3}
"""The most that one request asks for."""

Kind = Literal[
    "admit", "replay", "conflict", "settle", "release", "start", "extend",
    "buy", "give", "refund", "commit", "rollback", "ping", "look",
]  # fmt: skip
MIX: Final[Mapping[Kind, int]] = {
    "admit": 44, "replay": 8, "conflict": 1, "settle": 12, "release": 8, "start": 5, "extend": 4,
    "buy": 5, "give": 2, "refund": 1, "commit": 8, "rollback": 4, "ping": 7, "look": 2,
}  # fmt: skip
ADMITS: Final = frozenset({"admit", "commit", "rollback"})
ENDS: Final = frozenset({"settle", "release", "start", "extend"})
BACK: Final = 14
"""How many operations back a lane looks for a grant to end or to ask for again."""
BOUGHT_BACK: Final = 60


@dataclass(frozen=True)
class Operation:
    """One thing that a lane does. `key`: of the request, or the reference of a purchase."""

    kind: Kind
    account: str
    key: str
    shared: bool = False
    """Whether other lanes use the same key."""


def units_of(account: str, key: str) -> int:
    """How many units a key asks for: whoever uses it asks for the same."""
    return random.Random(f"{account}/{key}").randint(1, UNITS[account])


def pack_of(reference: str) -> str:
    return random.Random(reference).choice(("three", "seven"))


class Plan:
    """What one lane does."""

    def __init__(self, seed: int, lane: str) -> None:
        self.seed, self.lane = seed, lane
        self._drawn = lru_cache(maxsize=256)(self._draw)

    def operation(self, number: int) -> Operation:
        """Return the operation with this number."""
        drawn, rng = self._drawn(number), random.Random(f"{self.seed}/{self.lane}/{number}/back")
        if drawn.kind in ENDS or drawn.kind in ("replay", "conflict"):
            earlier = self._earlier(number - rng.randint(1, BACK), number - BACK, ADMITS)
            if earlier is None:
                return Operation("admit", drawn.account, drawn.key, drawn.shared)
            return Operation(drawn.kind, earlier.account, earlier.key, earlier.shared)
        if drawn.kind == "refund":
            bought = self._earlier(number, number - BOUGHT_BACK, frozenset({"buy"}))
            return Operation("look", "paid", "") if bought is None else _refund(bought)
        return drawn

    def _earlier(self, last: int, first: int, kinds: frozenset[str]) -> Operation | None:
        for number in range(last, max(first, 0) - 1, -1):
            if number >= 0 and self._drawn(number).kind in kinds:
                return self._drawn(number)
        return None

    def _draw(self, number: int) -> Operation:
        rng = random.Random(f"{self.seed}/{self.lane}/{number}")
        (kind,) = rng.choices(list(MIX), list(MIX.values()))
        account = rng.choice(("free", "free", "paid", "paid", "paid", "fast", "fast"))
        shared = rng.random() < 0.2 and kind in ("admit", "buy", "give", "replay")
        # Lanes come by a shared key at about the same time.
        key = f"shared-{number // 12}" if shared else f"{self.lane}-{number}"
        if kind in ("buy", "give", "refund"):
            return Operation(kind, "paid", f"{kind}-{key}", shared)
        if kind == "ping":
            return Operation(kind, "probe", f"ping-{key}")
        return Operation(kind, account, key, shared)


def _refund(bought: Operation) -> Operation:
    return Operation("refund", bought.account, bought.key, bought.shared)
