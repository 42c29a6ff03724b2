"""Free units while GPUs are idle."""

from datetime import datetime, timedelta
from typing import Literal

from pydantic import Field, model_validator

from policies import Asked, Check, History, Length, Read, Source, State, UsageRead, Window
from policies.fields import PositiveInt, WholeNumber

DAY = Length.parse("24h")


class OffPeakAllowance(Source):
    """Free units per rolling 24 h, given only between two hours of the day, in UTC."""

    kind: Literal["off_peak_allowance"] = "off_peak_allowance"
    units: PositiveInt = Field(description="Units per rolling 24 h.")
    from_hour: WholeNumber = Field(
        ge=0, le=23, description="The hour, in UTC, from which it gives."
    )
    until_hour: WholeNumber = Field(
        ge=1, le=24, description="The hour, in UTC, until which it gives."
    )

    @model_validator(mode="after")
    def _in_order(self) -> "OffPeakAllowance":
        if self.from_hour >= self.until_hour:
            raise ValueError("`from_hour` must be before `until_hour`")
        return self

    def reads(self, asked: Asked) -> tuple[Read, ...]:
        """Its own units within the last 24 h."""
        return (self._read,)

    def check(self, asked: Asked, state: State, now: datetime) -> Check:
        """Compare what was used with the units, of which there are none at other hours."""
        used = state.read(self._read, now)
        limit = self.units if self._gives(now) else 0
        return Check(used=used, limit=limit, asked=asked.units, ok=used + asked.units <= limit)

    def next_chance(self, asked: Asked, history: History, now: datetime) -> datetime | None:
        """Return when it opens next, or when enough units have left the window."""
        opens = now.replace(hour=self.from_hour, minute=0, second=0, microsecond=0)
        if opens <= now:
            opens += timedelta(days=1)
        returns = history.falls_to(self._read, self.units - asked.units, now)
        return opens if returns is None else min(opens, returns)

    def _gives(self, now: datetime) -> bool:
        return self.from_hour <= now.hour < self.until_hour

    @property
    def _read(self) -> UsageRead:
        return UsageRead((self.label,), Window("rolling", DAY))
