"""The operator's ceiling on GPU spend per day, over all accounts.

It takes estimates; overruns are debited when known.
"""

from __future__ import annotations

from datetime import datetime
from functools import cached_property
from typing import ClassVar, Literal

from pydantic import Field

from policies.decision import Reason
from policies.fields import PositiveNumber, ZoneName
from policies.kinds.allowance import DAY
from policies.policy import Asked, Cap, Check
from policies.state import BudgetRead, History, Read, State
from policies.units import micro_usd
from policies.window import Window, Zones


class Budget(Cap):
    """At most so many dollars of estimated GPU cost per day, for grants that take from the sources it names."""

    example: ClassVar[str] = "{usd_per_day: 250000}"

    kind: Literal["budget"] = "budget"
    usd_per_day: PositiveNumber = Field(description="US dollars of estimated GPU cost per day.")
    timezone: ZoneName = Field(default="UTC", description="IANA zone whose days these are.")

    reason: ClassVar[str] = Reason.BUDGET_EXHAUSTED

    @cached_property
    def read(self) -> BudgetRead:
        """What the budget has spent today."""
        return BudgetRead(self.label, Window("calendar", DAY, Zones(self.timezone)))

    def reads(self, asked: Asked) -> tuple[Read, ...]:  # noqa: ARG002 - the same for all
        """What the budget has spent today."""
        return (self.read,)

    def check(self, asked: Asked, state: State, now: datetime) -> Check:
        """Compare today's spend and the estimate with the ceiling, in micro-dollars."""
        used, limit, cost = (
            state.read(self.read, now),
            self.limit_micro_usd,
            asked.gpu_cost_micro_usd,
        )
        return Check(used=used, limit=limit, asked=cost, ok=used + cost <= limit)

    def next_chance(self, asked: Asked, history: History, now: datetime) -> datetime | None:
        """Return the next midnight, if the request has to wait for it and fits into a whole day."""
        if self.check(asked, history, now).ok:
            return None
        return (
            self.read.window.bounds(now)[1]
            if asked.gpu_cost_micro_usd <= self.limit_micro_usd
            else None
        )

    @cached_property
    def limit_micro_usd(self) -> int:
        """The ceiling of a day, in micro-dollars."""
        return micro_usd(self.usd_per_day)
