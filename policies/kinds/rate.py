"""Requests per length of time, smoothly: the generic cell rate algorithm (GCRA).

Source: ITU-T I.371 (virtual scheduling), as in redis-cell. The state is one number, the theoretical arrival time
(TAT). Times are multiplied by `limit`, so that the emission interval `per / limit` is exact for every limit.
"""

from __future__ import annotations

from datetime import datetime
from functools import cached_property
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from policies.decision import Reason
from policies.fields import LengthOfTime, PositiveInt
from policies.instants import Length, from_micros, micros
from policies.policy import Asked, Check, Limit, Scope
from policies.state import History, RateRead, Read, State
from policies.units import div_ceil


class RateLimit(Limit):
    """At most `limit` requests per `per`, and at most `burst` of them at one instant from rest."""

    kind: Literal["rate"] = "rate"
    limit: PositiveInt = Field(description="Requests per `per`.")
    per: LengthOfTime = Field(description="The length of time, not in calendar months.")
    burst: PositiveInt | None = Field(
        default=None,
        description="Requests admitted at one instant from rest, the first included; default: `limit`.",
    )
    scope: Scope = Field(
        default="account",
        description="Whether the whole account shares it, or each member has one.",
    )

    reason: ClassVar[str] = Reason.RATE_EXCEEDED

    @field_validator("per")
    @classmethod
    def _exact_length(cls, value: Length) -> Length:
        if value.is_calendar:
            raise ValueError(f"a rate needs an exact length such as 1m or 24h, not `{value}`")
        return value

    def reads(self, asked: Asked) -> tuple[Read, ...]:
        """Its theoretical arrival time."""
        return (self._read(asked),)

    def check(self, asked: Asked, state: State, now: datetime) -> Check:
        """Compare the next arrival time with the burst. `used` counts the requests not yet worn off."""
        read = self._read(asked)
        interval, burst, scaled_now = (
            self.per.micros,
            self.burst or self.limit,
            micros(now) * self.limit,
        )
        tat = max(state.read(read, now), scaled_now)
        following = tat + interval
        ok = following - scaled_now <= burst * interval
        return Check(div_ceil(tat - scaled_now, interval), burst, 1, ok, (read, following))

    def next_chance(self, asked: Asked, history: History, now: datetime) -> datetime | None:
        """Return when the next arrival time has come near enough."""
        tat = max(history.read(self._read(asked), now), micros(now) * self.limit)
        burst = self.burst or self.limit
        return from_micros(div_ceil(tat + self.per.micros - burst * self.per.micros, self.limit))

    def _read(self, asked: Asked) -> RateRead:
        if self.scope == "account":
            return self._account_read
        return RateRead(self.label, self.limit, asked.member)

    @cached_property
    def _account_read(self) -> RateRead:
        return RateRead(self.label, self.limit)
