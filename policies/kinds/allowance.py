"""Free units that renew: 30 per rolling 24 h, or per local day, week, month or year."""

from __future__ import annotations

from datetime import datetime
from functools import cached_property
from typing import Literal

from pydantic import Field, model_validator

from policies.fields import LengthOfTime, PositiveInt, ZoneName
from policies.instants import Length
from policies.policy import Asked, Check, Scope, Source
from policies.state import History, Read, State, UsageRead
from policies.window import CALENDAR_STEPS, Window, WindowKind, Zones

DAY = Length.parse("24h")


class Windowed(Source):
    """What allowances of any length share."""

    units: PositiveInt = Field(description="Units per window.")
    window: WindowKind = Field(
        default="rolling",
        description="rolling: a unit counts for this long after its grant; calendar: until local midnight.",
    )
    timezone: ZoneName | None = Field(
        default=None, description="IANA zone of calendar windows; beats the account's."
    )
    scope: Scope = Field(
        default="account",
        description="Whether the whole account shares it, or each member has one.",
    )

    @property
    def length(self) -> Length:
        """The window's length."""
        return DAY

    @model_validator(mode="after")
    def _known_calendar(self) -> Windowed:
        check_calendar(self.window, self.length, self.timezone)
        return self

    def reads(self, asked: Asked) -> tuple[Read, ...]:
        """Its own units within its window."""
        return (self._read(asked),)

    def check(self, asked: Asked, state: State, now: datetime) -> Check:
        """Compare what the window holds with its units."""
        used = state.read(self._shared_read or self._read(asked), now)
        units = asked.units
        return Check(used, self.units, units, used + units <= self.units)

    def next_chance(self, asked: Asked, history: History, now: datetime) -> datetime | None:
        """Return when enough units have left the window, or any at all where it may be split."""
        if self.split:
            return history.next_return(self._read(asked), now)
        return history.falls_to(self._read(asked), self.units - asked.units, now)

    def _read(self, asked: Asked) -> UsageRead:
        if self._shared_read is not None:
            return self._shared_read
        window = Window(self.window, self.length, zones_for(self.window, self.timezone, asked))
        return UsageRead((self.label,), window, asked.member if self.scope == "member" else None)

    @cached_property
    def _shared_read(self) -> UsageRead | None:
        """What it reads, where neither the member nor the account's zone makes a difference."""
        if self.scope == "member" or (self.window == "calendar" and self.timezone is None):
            return None
        return UsageRead(
            (self.label,), Window(self.window, self.length, Zones(self.timezone or "UTC"))
        )


class DailyAllowance(Windowed):
    """Free units per day: per rolling 24 h, or per local day."""

    kind: Literal["daily_allowance"] = "daily_allowance"


class Allowance(Windowed):
    """Free units per window of any length."""

    kind: Literal["allowance"] = "allowance"
    per: LengthOfTime = Field(description="The window's length: 5h, 24h, 7d, 1mo, ...")

    @property
    def length(self) -> Length:
        """The window's length."""
        return self.per


def zones_for(window: WindowKind, timezone: str | None, asked: Asked) -> Zones:
    """Return the zones that give a policy's local midnights: its own, else the account's; none for rolling windows."""
    if window == "rolling":
        return Zones()
    return Zones(timezone) if timezone else asked.circumstances.zones


def check_calendar(window: WindowKind, length: Length, timezone: str | None) -> None:
    """Refuse a calendar window that no calendar has.

    Raises:
        ValueError: it has none.
    """
    if window == "calendar" and length not in CALENDAR_STEPS:
        known = ", ".join(
            f"{step} ({known_length})" for known_length, step in CALENDAR_STEPS.items()
        )
        raise ValueError(
            f"there is no calendar window of {length}: choose {known}, or `window: rolling`"
        )
    if window == "rolling" and timezone is not None:
        raise ValueError(
            "a rolling window has no time zone: leave out `timezone`, or write `window: calendar`"
        )
