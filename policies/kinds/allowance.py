"""Free units that renew: 30 per rolling 24 h, or per local day, week, month or year."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from policies.fields import LengthOfTime, PositiveInt
from policies.instants import Length
from policies.kinds.windowed import Windowed
from policies.policy import Asked, Check, Source
from policies.state import History, Read, State

DAY = Length.parse("24h")


class Renewing(Windowed, Source):
    """What allowances of any length share."""

    units: PositiveInt = Field(description="Units per window.")

    @property
    def length(self) -> Length:
        """The window's length."""
        return DAY

    @property
    def counted(self) -> tuple[str, ...]:
        """Its own units."""
        return (self.label,)

    def reads(self, asked: Asked) -> tuple[Read, ...]:
        """Its own units within its window."""
        return (self.usage_read(asked),)

    def check(self, asked: Asked, state: State, now: datetime) -> Check:
        """Compare what the window holds with its units."""
        used, units = state.read(self._shared_read or self.usage_read(asked), now), asked.units
        return Check(used, self.units, units, used + units <= self.units)

    def next_chance(self, asked: Asked, history: History, now: datetime) -> datetime | None:
        """Return when enough units have left the window, or enough for one where it may be split."""
        enough = 1 if self.split else asked.units
        return history.falls_to(self.usage_read(asked), self.units - enough, now)


class DailyAllowance(Renewing):
    """Free units per day: per rolling 24 h, or per local day."""

    kind: Literal["daily_allowance"] = "daily_allowance"


class Allowance(Renewing):
    """Free units per window of any length."""

    kind: Literal["allowance"] = "allowance"
    per: LengthOfTime = Field(description="The window's length: 5h, 24h, 7d, 1mo, ...")

    @property
    def length(self) -> Length:
        """The window's length."""
        return self.per
