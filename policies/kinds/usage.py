"""Units per window, over some sources or all of them: so that "5 per 5 h and 30 a week" both hold."""

from __future__ import annotations

from datetime import datetime
from functools import cached_property
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from policies.decision import Reason
from policies.fields import LengthOfTime, PositiveInt, ZoneName
from policies.kinds.allowance import check_calendar, zones_for
from policies.policy import Asked, Cap, Check, Scope
from policies.state import History, Read, State, UsageRead
from policies.window import Window, WindowKind, Zones


class UsageLimit(Cap):
    """At most `units` per window, from the sources it names, or from all."""

    kind: Literal["usage"] = "usage"
    units: PositiveInt = Field(description="Units per window.")
    per: LengthOfTime = Field(description="The window's length: 5h, 24h, 7d, 1mo, ...")
    window: WindowKind = Field(default="rolling", description="rolling or calendar.")
    timezone: ZoneName | None = Field(
        default=None, description="IANA zone of calendar windows; beats the account's."
    )
    scope: Scope = Field(
        default="account",
        description="Whether the whole account shares it, or each member has one.",
    )

    reason: ClassVar[str] = Reason.USAGE_EXCEEDED
    counts_units: ClassVar[bool] = True

    @model_validator(mode="after")
    def _known_calendar(self) -> UsageLimit:
        check_calendar(self.window, self.per, self.timezone)
        return self

    def reads(self, asked: Asked) -> tuple[Read, ...]:
        """The units within its window."""
        return (self._read(asked),)

    def check(self, asked: Asked, state: State, now: datetime) -> Check:
        """Compare what the window holds with its units."""
        used = state.read(self._shared_read or self._read(asked), now)
        units = asked.units
        return Check(used, self.units, units, used + units <= self.units)

    def room(self, asked: Asked, state: State, now: datetime) -> int:
        """Return how many of the units asked for still fit."""
        return max(0, min(asked.units, self.units - state.read(self._read(asked), now)))

    def next_chance(self, asked: Asked, history: History, now: datetime) -> datetime | None:
        """Return when any unit leaves the window: it may guard a source that is split."""
        return history.next_return(self._read(asked), now)

    def _read(self, asked: Asked) -> UsageRead:
        if self._shared_read is not None:
            return self._shared_read
        window = Window(self.window, self.per, zones_for(self.window, self.timezone, asked))
        return UsageRead(self.sources, window, asked.member if self.scope == "member" else None)

    @cached_property
    def _shared_read(self) -> UsageRead | None:
        """What it reads, where neither the member nor the account's zone makes a difference."""
        if self.scope == "member" or (self.window == "calendar" and self.timezone is None):
            return None
        return UsageRead(self.sources, Window(self.window, self.per, Zones(self.timezone or "UTC")))
