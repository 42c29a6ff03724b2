"""Random lives under policies that change: books stay sound, grants come out the same, sums agree."""

from __future__ import annotations

import random
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest

from policies import PolicySet
from policies.errors import GrantEnded, IdempotencyConflict, InvalidRequest, UnknownGrant
from policies.request import PaidUse
from quota import Comptroller, Grant
from quota.testing import FakeClock, assert_books_sound
from quota.versions import store

PAID_USES: tuple[PaidUse, ...] = ("auto", "ask", "never")
START = datetime(2026, 1, 30, 20, tzinfo=UTC)
LATE = datetime(2026, 12, 31, tzinfo=UTC)
POLICIES = """
schema: 1
gpus:
  h100: {usd_per_hour: 2.50}
  a100: {usd_per_hour: 1.10}
operations:
  video:
    attributes:
      seconds: {type: integer, choices: [10, 15, 25]}
      prompt: {type: string, default: ""}
      scale: {type: decimal, default: 1.5}
    weight:
      daily_allowance: {by: seconds, table: {10: 1, 15: 2, 25: 4}}
      credits: {by: seconds, table: {10: 1, 15: 2, 25: 3}}
      weekly: 2
    gpu_cost: {gpu: h100, gpu_seconds: {by: seconds, table: {10: 140, 15: 210, 25: 350}}}
    hold_for: {queued: 2h, running: 30m}
  image:
    attributes: {images: {type: integer, min: 1, max: 8}}
    weight: {each: {images: 1}}
    gpu_cost: {gpu: a100, gpu_seconds: {base: 2, each: {images: 5}}}
    hold_for: 10m
packs:
  ten: {units: 10, price: {usd: 4.00, eur: 4.50}, valid_for: 12h}
  seven: {units: 7, price: {usd: 1.00, eur: 3.01}, valid_for: 3mo}
plans:
  standard:
    paid_use: auto
    limits:
      - {kind: rate, limit: 50, per: 1m}
      - {kind: rate, limit: 30, per: 1m, scope: member, name: each}
      - {kind: concurrency, limit: 6}
      - {kind: usage, units: 60, per: 1mo, name: monthly}
      - {kind: spend, limit: {usd: 900, eur: 900}, per: 24h}
    sources:
      - {kind: daily_allowance, units: 8, split: true}
      - {kind: allowance, per: 7d, units: 4, window: calendar, name: weekly, scope: member}
      - {kind: credits}
  pro:
    extends: standard
    sources: [{kind: daily_allowance, units: 20, window: calendar}, {kind: credits}]
default_plan: standard
budgets:
  free_gpu: {usd_per_day: 5, sources: [daily_allowance], when_exhausted: next_source}
on_release:
  failed: {units: return, ours: true, grace: 2h}
  user: {units: charge}
on_late_settle: charge_if_available
"""
VERSIONS = [
    PolicySet.parse(POLICIES),
    PolicySet.parse(
        POLICIES.replace("units: 8, split: true", "units: 3, window: calendar")
        .replace("on_late_settle: charge_if_available", "on_expire: charge")
        .replace("usd_per_hour: 2.50", "usd_per_hour: 3.333")
    ),
    PolicySet.parse(POLICIES.replace("per: 1mo,", "per: 5h, sources: [daily_allowance],")),
]


class Life:
    """Three accounts that do whatever comes to their minds."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.clock = FakeClock(START)
        self.comptroller = Comptroller.open(VERSIONS[0], "sqlite://", clock=self.clock)
        self.grants: list[Grant] = []
        self.lots: list[str] = []
        self.numbers = count()

    def step(self) -> None:
        self.clock.advance(timedelta(seconds=self.random.choice([0, 1, 30, 300, 1800, 7200])))
        deeds = [self.admit] * 9 + [self.work] * 4 + [self.end] * 7 + [self.buy] * 2
        deed = self.random.choice([*deeds, self.refund, self.settings, self.operate])
        # What cannot be done now is refused, and changes nothing.
        with suppress(GrantEnded, IdempotencyConflict, InvalidRequest, IndexError):
            deed(self.random.choice(["a", "b", "=c"]))

    def admit(self, account: str) -> None:
        attributes: dict[str, Any] = {"images": self.random.randint(1, 8)}
        operation = self.random.choice(["video", "image"])
        if operation == "video":
            attributes = {
                "seconds": self.random.choice([10, 15, 25]),
                "prompt": self.random.choice(["", "hello", "=1"]),
            }
        decision = self.comptroller.admit(
            account=account,
            operation=operation,
            attributes=attributes,
            key=f"k{next(self.numbers)}",
            member=self.random.choice([None, "m", "n"]),
            consent=self.random.choice([False, True, 2]),
        )
        self.grants.extend([decision] if isinstance(decision, Grant) else [])

    def work(self, _: str) -> None:
        grant = self.random.choice(self.grants)
        match self.random.randint(0, 2):
            case 0:
                self.comptroller.start(grant.id)
            case 1:
                self.comptroller.extend(grant.id, timedelta(minutes=self.random.choice([5, 90])))
            case _:
                spent, attempt = self.random.randint(0, 99), str(self.random.randint(1, 3))
                self.comptroller.add_gpu_cost(grant.id, gpu_seconds=spent, attempt=attempt)

    def end(self, _: str) -> None:
        grant = self.random.choice(self.grants[-6:])
        seconds = self.random.choice([None, 0, 3, 250, 4000])
        if self.random.random() < 0.4:
            reason = self.random.choice(["failed", "user", "other"])
            self.comptroller.release(grant.id, reason=reason, gpu_seconds=seconds)
            return
        less = grant.operation == "image" and self.random.random() < 0.4
        gpu = None if seconds is None else self.random.choice([None, "a100"])
        delivered = {"images": 1} if less else None
        self.comptroller.settle(grant.id, gpu_seconds=seconds, gpu=gpu, delivered=delivered)

    def buy(self, account: str) -> None:
        reference = f"r{next(self.numbers)}"
        if self.random.random() < 0.2:
            expiry = self.clock() + timedelta(hours=5)
            lot = self.comptroller.add_credits(
                account, units=self.random.randint(1, 9), reference=reference, expires_at=expiry
            )
        else:
            pack, currency = (
                self.random.choice(["ten", "seven"]),
                self.random.choice(["usd", "eur"]),
            )
            lot = self.comptroller.record_purchase(
                account, pack=pack, reference=reference, currency=currency
            )
        self.lots.append(lot.id)

    def refund(self, _: str) -> None:
        self.comptroller.refund_lot(
            self.random.choice(self.lots), reference=f"r{next(self.numbers)}"
        )

    def settings(self, account: str) -> None:
        match self.random.randint(0, 4):
            case 0:
                self.comptroller.set_plan(account, self.random.choice(["standard", "pro"]))
            case 1:
                zone = self.random.choice(["Europe/Berlin", "UTC", "America/New_York"])
                self.comptroller.set_account(account, timezone=zone)
            case 2:
                use = self.random.choice(PAID_USES)
                cap = self.random.choice([None, 500])
                self.comptroller.set_paid_use(account, use, spend_cap_minor=cap)
            case 3:
                self.comptroller.freeze(account, reason="abuse")
            case _:
                self.comptroller.unfreeze(account)

    def operate(self, account: str) -> None:
        match self.random.randint(0, 4):
            case 0:
                self.comptroller.forget(account)
            case 1:
                self.comptroller.sweep()
            case _:
                version = self.random.choice(VERSIONS)
                self.comptroller._policy_file.current = version
                with self.comptroller._db.writing() as db:
                    store(db, version)


@pytest.mark.parametrize("seed", range(8))
def test_a_random_life_leaves_sound_books(seed):
    life = Life(seed)
    with life.comptroller as comptroller:
        for _ in range(250):
            life.step()
        assert_books_sound(comptroller)
        for grant in life.grants:
            told = comptroller.explain(grant.id)
            assert told.same, told.differences
        for by in (["plan", "operation", "source"], ["member", "day"], ["month", "currency"]):
            assert comptroller.report(START, LATE, by, "Europe/Berlin").check.ok
        middle = START + (life.clock() - START) / 2
        for account in ("a", "b", "=c"):
            for period in ((START, middle), (middle, LATE)):
                assert comptroller.statement(account, *period).check.ok
        with pytest.raises(UnknownGrant):
            comptroller.explain("gr_1_9999")
