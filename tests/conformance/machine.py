"""Generated programs: each step is done by the model and by the engine, and every answer is compared."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from policies.policy_set import PolicySet
from quota.testing import FakeClock
from tests.conformance.driver import Driver
from tests.model import Model, Refused
from tests.world import MICROSECOND, START

POLICIES = """
schema: 1
gpus:
  h100: {usd_per_hour: 3.60}
  a10:  {usd_per_hour: 1.79}
operations:
  clip:
    attributes:
      n: {type: integer, default: 1, min: 1, max: 12}
      style: {type: string, default: plain}
    weight: {free: {each: {n: 1}}, credits: {each: {n: 0.7}}}
    gpu_cost: {gpu: h100, gpu_seconds: {base: 1, each: {n: 10}}}
    hold_for: {queued: 1h, running: 30m}
  peek: {attributes: {}, limits_only: true}
packs:
  three: {units: 3, price: 1.00, valid_for: 1mo}
  ten:   {units: 10, price: 4.00, valid_for: 12mo}
plans:
  standard:
    paid_use: ask
    limits: [{kind: rate, limit: 6, per: 1h, burst: 4}, {kind: concurrency, limit: 4}]
    sources: [{kind: daily_allowance, name: free, units: 8}, {kind: credits}]
  split:
    paid_use: auto
    limits: [{kind: usage, units: 40, per: 7d}, {kind: spend, limit: 500, per: 7d, window: calendar}]
    sources: [{kind: daily_allowance, name: free, units: 8, split: true}, {kind: credits}]
  calendar:
    price: {usd: 20.00, every: 1mo}
    paid_use: auto
    sources: [{kind: daily_allowance, name: free, units: 8, window: calendar}, {kind: credits}]
  team:
    paid_use: never
    limits: [{kind: concurrency, limit: 2, scope: member}, {kind: rate, limit: 3, per: 1h, scope: member}]
    sources: [{kind: allowance, name: free, per: 5h, units: 5, scope: member}, {kind: credits}]
  guarded:
    paid_use: auto
    limits:
      - {kind: usage, units: 5, per: 5h, sources: [free], when_exhausted: GUARD}
    sources: [{kind: allowance, name: free, per: 1mo, units: 20}, {kind: credits}]
  paid:
    paid_use: auto
    sources: [{kind: credits}]
default_plan: standard
budgets:
  clips: {usd_per_day: 0.8, sources: [free], when_exhausted: next_source}
  all:   {usd_per_day: 5}
on_release:
  failed: {units: return, ours: true, grace: 3d}
  moderated: {units: charge}
"""
BEFORE = PolicySet.parse(POLICIES.replace("GUARD", "deny"))
AFTER = PolicySet.parse(
    POLICIES.replace("GUARD", "next_source")
    .replace("units: 8", "units: 11")
    .replace("usd_per_day: 0.8", "usd_per_day: 0.4")
    .replace("limit: 6, per: 1h, burst: 4", "limit: 9, per: 1h")
    .replace("valid_for: 1mo", "valid_for: 2h")
    + "on_late_settle: charge_if_available\n"
)
CHARGING = PolicySet.parse(POLICIES.replace("GUARD", "deny") + "on_expire: charge\n")

POLICY_SETS = {"before": BEFORE, "after": AFTER, "charging": CHARGING}

ACCOUNTS = st.sampled_from(["ann", "ann", "ann", "bob"])
PLANS = st.sampled_from(["standard", "split", "calendar", "team", "guarded", "paid"])
MINUTES = st.sampled_from([0, 1, 10, 10, 30, 60, 90, 300, 1440, 1440 * 7, 1440 * 31, -25])
SECONDS = st.sampled_from([None, None, 0, 7, Decimal("41.2"), Decimal("0.001"), 500])


WHICH = st.integers(-3, 6)


def some_grant(function: Any) -> Any:
    """Let a rule apply once there is a grant."""
    return precondition(lambda self: bool(self.grants))(function)


class Machine(RuleBasedStateMachine):
    """One program. Subclasses say on which store."""

    store: ClassVar[Callable[[PolicySet, Path, FakeClock], Driver]]
    reached: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock(START)
        self.model = Model(BEFORE)
        self.folder = tempfile.TemporaryDirectory(prefix="comptroller-test-")
        self.driver = type(self).store(BEFORE, Path(self.folder.name), self.clock)
        self.references = 0
        self.grants: list[str] = []
        self.lots: list[str] = []
        self.last_retry_at: Any = None

    def both(self, name: str, *values: Any, **named: Any) -> Any:
        """Make one call on both sides, and compare the answers or the refusals."""
        try:
            expected = getattr(self.model, name)(self.clock(), *values, **named)
        except Refused as refused:
            expected = ("refused", str(refused))
        try:
            answer = self.driver.answer(name, *values, **named)
        except Refused as refused:
            answer = ("refused", str(refused))
        assert answer == expected, f"{name}\n  engine: {answer}\n  model:  {expected}"
        return answer

    def a_grant(self, which: int) -> str:
        """Return one of the grants: more often than not one that is open, the newest first."""
        live = [grant for grant in self.grants if self.model.is_live(self.clock(), grant)]
        chosen = live if live and which >= 0 else self.grants
        return chosen[-1 - abs(which) % len(chosen)]

    def reference(self) -> str:
        self.references += 1
        return f"reference-{self.references}"

    # --- time ---------------------------------------------------------------------------------

    @rule(minutes=MINUTES)
    def wait(self, minutes: int) -> None:
        """Let time pass; a clock may also be turned back, which an account's own time is not."""
        self.clock.set(self.clock() + timedelta(minutes=minutes))

    @rule(which=st.integers(-2, 9), tick=st.sampled_from([-1, 0, 0, 1]))
    def wait_for_an_edge(self, which: int, tick: int) -> None:
        """Go to the very instant at which something changes by itself, or a microsecond off."""
        edges = sorted({at for at in self.model.instants() if at > self.clock()})
        promised = self.last_retry_at
        if which < 0 and promised and promised > self.clock():
            self.clock.set(promised + min(tick, 0) * MICROSECOND)
        elif edges:
            self.clock.set(edges[max(which, 0) % len(edges)] + tick * MICROSECOND)

    # --- requests -----------------------------------------------------------------------------

    @rule(
        account=ACCOUNTS,
        n=st.integers(1, 12),
        plan=st.one_of(st.none(), st.none(), PLANS),
        member=st.sampled_from([None, None, "cy", "di"]),
        consent=st.sampled_from([False, False, True, 2]),
    )
    def admit(self, account, n, plan, member, consent) -> None:
        more = {"plan": plan, "member": member, "consent": consent}
        self.asked(account, n, "plain", self.reference(), more)

    @rule(account=ACCOUNTS, ns=st.lists(st.integers(1, 6), min_size=2, max_size=6))
    def admit_several(self, account, ns) -> None:
        for n in ns:
            self.asked(account, n, "plain", self.reference(), {})

    @rule(
        account=ACCOUNTS,
        n=st.integers(1, 2),
        key=st.sampled_from(["key-1", "key-2"]),
        style=st.sampled_from(["plain", "plain", "wild"]),
        plan=PLANS,
    )
    def admit_under_a_key_that_may_be_known(self, account, n, key, style, plan) -> None:
        self.asked(account, n, style, key, {"plan": plan, "consent": True})

    @rule(
        account=ACCOUNTS,
        plan=PLANS,
        n=st.integers(1, 6),
        paid=st.sampled_from([None, "gift", "packs"]),
        minutes=st.sampled_from([0, 59, 61, 119]),
        extended=st.booleans(),
        end=st.sampled_from(["settle", "failed", "cancelled", "refunded"]),
    )
    def do_a_job(self, account, plan, n, paid, minutes, extended, end) -> None:
        """One job from its request to its end, on credits that may expire meanwhile, asked for twice."""
        if paid == "gift":
            self.both("freeze", account, frozen=False)
            expires = self.clock() + timedelta(hours=1)
            lot = self.both("add_credits", account, 4, self.reference(), expires)[0]
        elif paid == "packs":
            self.both("purchase", account, "three", self.reference())
            lot = self.both("purchase", account, "three", self.reference())[0]
        plan = plan if paid is None else "paid"
        key, before = self.reference(), len(self.grants)
        self.asked(account, n, "plain", key, {"plan": plan, "consent": True})
        if len(self.grants) == before:
            return
        if extended:
            self.both("extend", self.grants[-1], timedelta(hours=30))
        self.clock.advance(timedelta(minutes=minutes))
        self.asked(account, n, "plain", key, {"plan": plan, "consent": True})
        if end == "refunded":
            if paid is not None:
                self.both("refund", lot, self.reference())
            end = "cancelled"
        if end == "settle":
            self.both("settle", self.grants[-1])
        else:
            self.both("release", self.grants[-1], end)
        self.asked(account, n, "plain", key, {"plan": plan, "consent": True})

    def asked(self, account: str, n: int, style: str, key: str, named: dict[str, Any]) -> None:
        answer = self.both("admit", account, "clip", {"n": n, "style": style}, key, **named)
        if answer[0] == "denial":
            self.last_retry_at = answer[5]
            if (
                self.driver.redis is not None
            ):  # which has heard of the denial by now, and denies itself
                again = ("clip", {"n": n, "style": style}, self.reference())
                self.both("admit", account, *again, **named)
        elif answer[0] == "grant" and answer[1] not in self.grants:
            self.grants.append(answer[1])

    @rule(account=ACCOUNTS, member=st.sampled_from([None, "cy"]))
    def admit_what_only_limits_apply_to(self, account, member) -> None:
        if self.driver.redis is not None:
            return  # in front of SQL they are not booked: tests/prefilter has a model of them
        self.both("admit", account, "peek", {}, self.reference(), member=member)

    @some_grant
    @rule(which=WHICH)
    def start(self, which) -> None:
        self.both("start", self.a_grant(which))

    @some_grant
    @rule(which=WHICH, minutes=st.sampled_from([1, 45, 60 * 24 * 40]))
    def extend(self, which, minutes) -> None:
        self.both("extend", self.a_grant(which), timedelta(minutes=minutes))

    @some_grant
    @rule(
        which=WHICH,
        gpu_seconds=SECONDS,
        gpu=st.sampled_from([None, "a10"]),
        delivered=st.one_of(st.none(), st.integers(1, 12)),
    )
    def settle(self, which, gpu_seconds, gpu, delivered) -> None:
        report = {"delivered": None if delivered is None else {"n": delivered}}
        if gpu_seconds is not None:
            report |= {"gpu_seconds": gpu_seconds, "gpu": gpu}
        self.both("settle", self.a_grant(which), **report)

    @some_grant
    @rule(
        which=WHICH,
        reason=st.sampled_from(["failed", "moderated", "cancelled"]),
        gpu_seconds=SECONDS,
    )
    def release(self, which, reason, gpu_seconds) -> None:
        self.both("release", self.a_grant(which), reason, gpu_seconds=gpu_seconds)

    @some_grant
    @rule(which=WHICH, gpu_seconds=st.sampled_from([3, 90]), attempt=st.sampled_from("12"))
    def book_a_crashed_attempt(self, which, gpu_seconds, attempt) -> None:
        self.both("add_gpu_cost", self.a_grant(which), gpu_seconds, attempt)

    # --- accounts and credits -----------------------------------------------------------------

    @rule(account=ACCOUNTS, plan=PLANS)
    def set_plan(self, account, plan) -> None:
        self.both("set_plan", account, plan)

    @rule(
        account=ACCOUNTS,
        zone=st.sampled_from([None, "UTC", "Asia/Tokyo", "America/New_York"]),
        frozen=st.sampled_from([True, False, False, False]),
    )
    def set_zone_or_freeze(self, account, zone, frozen) -> None:
        if zone is None:
            self.both("freeze", account, frozen)
        else:
            self.both("set_timezone", account, zone)

    @rule(
        account=ACCOUNTS,
        paid_use=st.sampled_from(["auto", "auto", "ask", "never"]),
        cap=st.sampled_from([None, 150, 900]),
        per=st.sampled_from(["day", "week", "month"]),
    )
    def set_paid_use(self, account, paid_use, cap, per) -> None:
        self.both("set_paid_use", account, paid_use, cap, per)

    @rule(name=st.sampled_from(list(POLICY_SETS)))
    def change_the_policies(self, name) -> None:
        self.model.policy_set = POLICY_SETS[name]
        self.driver.use(POLICY_SETS[name])

    @rule(account=ACCOUNTS, pack=st.sampled_from(["three", "ten"]), again=st.booleans())
    def buy(self, account, pack, again) -> None:
        reference = "order-1" if again else self.reference()
        answer = self.both("purchase", account, pack, reference)
        if answer[0] != "refused":
            self.lots.append(answer[0])

    @rule(
        account=ACCOUNTS,
        units=st.integers(1, 6),
        hours=st.sampled_from([None, 1, 2, 24]),
    )
    def give(self, account, units, hours) -> None:
        expires = None if hours is None else self.clock() + timedelta(hours=hours)
        answer = self.both("add_credits", account, units, self.reference(), expires)
        if answer[0] != "refused":
            self.lots.append(answer[0])

    @precondition(lambda self: self.lots)
    @rule(which=st.integers(0, 9), again=st.booleans())
    def refund(self, which, again) -> None:
        self.both(
            "refund",
            self.lots[-1 - which % len(self.lots)],
            "refund-1" if again else self.reference(),
        )

    @rule()
    def sweep(self) -> None:
        self.both("sweep")

    # --- questions ----------------------------------------------------------------------------

    @some_grant
    @rule(which=WHICH)
    def get(self, which) -> None:
        self.both("get", self.a_grant(which))

    @rule(account=ACCOUNTS)
    def balance(self, account) -> None:
        self.both("balance", account)

    @initialize(name=st.sampled_from(list(POLICY_SETS)))
    def begin(self, name) -> None:
        self.change_the_policies(name)
        self.both("balance", "ann")

    def teardown(self) -> None:
        try:
            for account in ("ann", "bob"):
                self.both("balance", account)
                assert self.driver.money(account) == self.model.money(account)
            assert self.driver.verify() == []
            self.both("sweep")
            assert self.driver.verify() == []
            Machine.reached.update(self.model.reached + self.driver.reached)
        finally:
            self.driver.close()
            self.folder.cleanup()
