"""What policies that look through a window share: its kind, its zone, and whose units it counts."""

from __future__ import annotations

from functools import cached_property

from pydantic import Field, model_validator

from policies.fields import ZoneName
from policies.instants import Length
from policies.part import Part
from policies.policy import Asked, Scope
from policies.state import UsageRead
from policies.window import CALENDAR_STEPS, Window, WindowKind, Zones


class Windowed(Part):
    """A policy's window over usage. Subclasses say how long it is, and the units of which sources it counts."""

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
        raise TypeError(f"`{type(self).__name__}` does not say how long its window is")

    @property
    def counted(self) -> tuple[str, ...]:
        """The sources whose units it counts; none: those of all."""
        return ()

    @model_validator(mode="after")
    def _known_calendar(self) -> Windowed:
        check_calendar(self.window, self.length, self.timezone)
        return self

    def usage_read(self, asked: Asked) -> UsageRead:
        """Return the read of the units in its window."""
        if self._shared_read is not None:
            return self._shared_read
        return UsageRead(self.counted, self.window_for(asked), self.member_for(asked))

    def window_for(self, asked: Asked) -> Window:
        """Return its window: a calendar one in its own zone, else in the account's."""
        if self.window == "rolling":
            return Window("rolling", self.length)
        zones = Zones(self.timezone) if self.timezone else asked.circumstances.zones
        return Window("calendar", self.length, zones)

    def member_for(self, asked: Asked) -> str | None:
        """Return the member whose units count, or None for the whole account's."""
        return asked.member if self.scope == "member" else None

    @cached_property
    def _shared_read(self) -> UsageRead | None:
        """The read, where neither the member nor the account's zone makes a difference: made once."""
        if self.scope == "member" or (self.window == "calendar" and self.timezone is None):
            return None
        return UsageRead(
            self.counted, Window(self.window, self.length, Zones(self.timezone or "UTC"))
        )


def check_calendar(window: WindowKind, length: Length, timezone: str | None) -> None:
    """Refuse a calendar window that no calendar has.

    Raises:
        ValueError: it has none.
    """
    if window == "calendar" and length not in CALENDAR_STEPS:
        known = ", ".join(f"{step} ({length_of})" for length_of, step in CALENDAR_STEPS.items())
        raise ValueError(
            f"there is no calendar window of {length}: choose {known}, or `window: rolling`"
        )
    if window == "rolling" and timezone is not None:
        raise ValueError(
            "a rolling window has no time zone: leave out `timezone`, or write `window: calendar`"
        )
