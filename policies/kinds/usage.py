"""Units per window, over some sources or all of them: so that "5 per 5 h and 30 a week" both hold."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Literal

from pydantic import Field

from policies.decision import Reason
from policies.fields import LengthOfTime, PositiveInt
from policies.instants import Length
from policies.kinds.windowed import Windowed
from policies.policy import Asked, Cap, Check
from policies.state import History, Read, State


class UsageLimit(Windowed, Cap):
    """At most `units` per window, from the sources it names, or from all."""

    kind: Literal["usage"] = "usage"
    units: PositiveInt = Field(description="Units per window.")
    per: LengthOfTime = Field(description="The window's length: 5h, 24h, 7d, 1mo, ...")

    reason: ClassVar[str] = Reason.USAGE_EXCEEDED
    counts_units: ClassVar[bool] = True

    @property
    def length(self) -> Length:
        """The window's length."""
        return self.per

    @property
    def counted(self) -> tuple[str, ...]:
        """The sources it names."""
        return self.sources

    def reads(self, asked: Asked) -> tuple[Read, ...]:
        """The units within its window."""
        return (self.usage_read(asked),)

    def check(self, asked: Asked, state: State, now: datetime) -> Check:
        """Compare what the window holds with its units."""
        used, units = state.read(self._shared_read or self.usage_read(asked), now), asked.units
        return Check(used, self.units, units, used + units <= self.units)

    def room(self, asked: Asked, state: State, now: datetime) -> int:
        """Return how many of the units asked for still fit."""
        return max(0, min(asked.units, self.units - state.read(self.usage_read(asked), now)))

    def next_chance(self, asked: Asked, history: History, now: datetime) -> datetime | None:
        """Return when there is room for what is asked at least, or for one unit more."""
        return history.falls_to(self.usage_read(asked), self.units - max(1, asked.units), now)
