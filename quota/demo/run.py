"""The demo's week, played through the real engine on a clock that is set to each event's instant."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from policies.errors import GrantEnded
from policies.policy_set import PolicySet
from quota.demo.trace import START, Demand, Job, Person
from quota.engine import Comptroller
from quota.grants import Denial, Grant

THINKS: Final = timedelta(seconds=20)
"""How long somebody who was denied takes to buy a pack."""
AFTER_EXPIRY: Final = timedelta(minutes=7)
PROMO_LIVES: Final = timedelta(days=4)
PROGRESS_EVENTS: Final = 50
Event = Callable[[], None]


@dataclass(slots=True)
class Outcome:
    """What was answered: counts of requests, denials by reason and by day, packs bought.

    Money of the packs is in minor units. `asked` counts decisions: a denied request that was tried
    again with a new pack counts twice.
    """

    asked: int = 0
    granted: int = 0
    denied_by_reason: Counter[str] = field(default_factory=Counter)
    denied_by_day: Counter[str] = field(default_factory=Counter)
    denied_accounts: set[str] = field(default_factory=set)
    offered: Counter[str] = field(default_factory=Counter)
    fates: Counter[str] = field(default_factory=Counter)
    packs: int = 0
    sold_minor: int = 0
    buyers: Counter[str] = field(default_factory=Counter)
    refunded_minor: int = 0

    @property
    def denied(self) -> int:
        """How many requests were denied."""
        return self.denied_by_reason.total()


class World:
    """People who ask, workers who work, and a clock that jumps from one event to the next."""

    def __init__(self, demand: Demand, policy_set: PolicySet) -> None:
        """Take a week of demand. Nothing happens before `play`."""
        self._demand, self._policy_set = demand, policy_set
        self._now = START
        self._waiting: list[tuple[datetime, int, Event]] = []
        self._count = 0
        self._packs: Counter[str] = Counter()
        self._buying: set[str] = set()
        self._last_lot: str | None = None
        self.outcome = Outcome()

    def clock(self) -> datetime:
        """Return the demo's time."""
        return self._now

    def play(
        self, comptroller: Comptroller, progress: Callable[[int, int], None] | None = None
    ) -> Outcome:
        """Let the week happen, until the last job has ended. `progress`: jobs asked for, of all."""
        self._comptroller = comptroller
        for person in self._demand.people:
            self._join(person)
        for job in self._demand.jobs:
            self._until(job.at)
            self._ask(job)
            if progress is not None and job.number % PROGRESS_EVENTS == 0:
                progress(job.number, len(self._demand.jobs))
        self._until(self._demand.ends_at)
        self._refund()
        while self._waiting:
            self._step()
        self._now = max(self._now, self._demand.ends_at + timedelta(hours=3))
        comptroller.sweep()
        return self.outcome

    def _join(self, person: Person) -> None:
        if person.plan != self._policy_set.default_plan:
            self._comptroller.set_plan(person.name, person.plan)
        if person.promo_units:
            self._comptroller.add_credits(
                person.name,
                units=person.promo_units,
                origin="promotion",
                reference=f"launch-{person.name}",
                expires_at=START + PROMO_LIVES,
            )

    def _at(self, when: datetime, event: Event) -> None:
        self._count += 1
        heapq.heappush(self._waiting, (when, self._count, event))

    def _until(self, when: datetime) -> None:
        while self._waiting and self._waiting[0][0] <= when:
            self._step()
        self._now = max(self._now, when)

    def _step(self) -> None:
        when, _, event = heapq.heappop(self._waiting)
        self._now = max(self._now, when)
        event()

    def _ask(self, job: Job, attempt: int = 1) -> None:
        outcome = self.outcome
        decision = self._comptroller.admit(
            account=job.person.name,
            operation="video.generate",
            attributes={"seconds": job.seconds, "quality": job.quality},
            key=f"job-{job.number}-{attempt}",
        )
        outcome.asked += 1
        if isinstance(decision, Grant):
            outcome.granted += 1
            self._work(job, decision)
            return
        outcome.denied_by_reason[decision.reason] += 1
        outcome.denied_by_day[self._now.date().isoformat()] += 1
        outcome.denied_accounts.add(job.person.name)
        outcome.offered.update({offer.kind for offer in decision.offers})
        self._consider(job, decision, attempt)

    def _consider(self, job: Job, denial: Denial, attempt: int) -> None:
        """Buy the pack that the denial offers, if one was willing to, and ask again."""
        offer = next((offer for offer in denial.offers if offer.kind == "buy"), None)
        person = job.person
        if offer is None or offer.pack is None or self._packs[person.name] >= person.packs_max:
            return
        pack, quantity = offer.pack, offer.quantity or 1
        if person.name in self._buying:
            quantity = 0  # One is on its way already.
        self._buying.add(person.name)

        def buy() -> None:
            self._buying.discard(person.name)
            for _ in range(quantity):
                self._packs[person.name] += 1
                lot = self._comptroller.record_purchase(
                    person.name, pack=pack, reference=f"order-{self.outcome.packs + 1}"
                )
                self.outcome.packs += 1
                self.outcome.sold_minor += lot.price_minor
                self.outcome.buyers[person.name] += 1
                self._last_lot = lot.id
            self._ask(job, attempt + 1)

        self._at(self._now + THINKS, buy)

    def _work(self, job: Job, grant: Grant) -> None:
        """Plan what becomes of a granted job."""
        model = self._policy_set.operation(grant.operation).gpu_cost
        estimate = None if model is None else model.estimate_seconds(grant.attributes)
        takes = Decimal(int(estimate or 0)) * job.gpu_factor
        starts_at = self._now + timedelta(seconds=job.wait_seconds)
        ends_at = starts_at + timedelta(seconds=int(takes))
        self.outcome.fates[job.fate] += 1
        match job.fate:
            case "moderated_before_run" | "cancelled_before_start":
                self._at(starts_at, lambda: self._release(grant, job.fate, Decimal(0)))
                return
            case "delivered":
                self._at(ends_at, lambda: self._settle(grant, takes))
            case "late":
                # Its worker was cut off, and reports when the grant has expired.
                hold = self._policy_set.operation(grant.operation).hold.running
                late_at = hold.after(starts_at) + AFTER_EXPIRY
                self._at(late_at, lambda: self._settle(grant, takes))
            case "worker_died":
                pass
            case "infrastructure_failure" | "cancelled_after_start":
                part = (takes / 3).quantize(Decimal("0.1"))
                cut_at = starts_at + timedelta(seconds=int(part))
                self._at(cut_at, lambda: self._release(grant, job.fate, part))
            case "moderated_after_run":
                self._at(ends_at, lambda: self._release(grant, job.fate, takes))
        self._at(starts_at, lambda: self._start(grant))

    def _start(self, grant: Grant) -> None:
        try:
            self._comptroller.start(grant.id)
        except GrantEnded:
            return

    def _settle(self, grant: Grant, gpu_seconds: Decimal) -> None:
        self._comptroller.settle(grant.id, gpu_seconds=gpu_seconds)

    def _release(self, grant: Grant, reason: str, gpu_seconds: Decimal) -> None:
        self._comptroller.release(grant.id, reason=reason, gpu_seconds=gpu_seconds)

    def _refund(self) -> None:
        """Somebody wants the money back for what is left of the last pack that was sold."""
        if self._last_lot is not None:
            refund = self._comptroller.refund_lot(self._last_lot, reference="refund-1")
            self.outcome.refunded_minor += refund.amount_minor
