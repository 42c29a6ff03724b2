"""Windows: which units count now, and when they stop counting.

Rolling: a unit granted at t counts while `now < t + length`. Calendar: it counts while now is in the same local
day, week (from Monday), month or year. Usage itself is timestamped units, so that a window is only a way to look
at it, and changing a policy's window never resets anybody.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Final, Literal

from policies.instants import MICROSECOND, MONTHS_PER_YEAR, Length, add_months, zone_named

ZONE_CHANGE_LEAST: Final = timedelta(hours=20)
"""After a change of time zone the next boundary is at least this far off: hopping zones mints no days."""

ZONE_MEMORY: Final = timedelta(days=800)
"""A change takes effect when a window ends, and the next window may be long: two years and a bit, for yearly ones."""

MONTH_CLIP: Final = timedelta(days=4)
"""Clipping to a month's last day moves a unit's end by less than this."""

LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)

WindowKind = Literal["rolling", "calendar"]
Step = Literal["day", "week", "month", "year"]

CALENDAR_STEPS: Final[dict[Length, Step]] = {
    Length.parse("24h"): "day",
    Length.parse("7d"): "week",
    Length.parse("1mo"): "month",
    Length.parse("1y"): "year",
}


@dataclass(frozen=True, slots=True)
class Zones:
    """An account's time zone and the changes to it, in order of time: (when it was asked for, the new zone)."""

    first: str = "UTC"
    changes: tuple[tuple[datetime, str], ...] = ()

    @property
    def latest(self) -> str:
        """The zone asked for last, in force or pending."""
        return self.changes[-1][1] if self.changes else self.first

    def changed(self, at: datetime, zone: str) -> Zones:
        """Return the zones after another change. One so old that no window can feel it any more is let go."""
        recent = tuple(change for change in self.changes if at - change[0] < ZONE_MEMORY)
        gone = len(self.changes) - len(recent)
        first = self.changes[gone - 1][1] if gone else self.first
        return Zones(first, (*recent, (at, zone)))


@dataclass(frozen=True, slots=True)
class Window:
    """A rolling or calendar window of some length, in the zones that give its local midnights."""

    kind: WindowKind
    length: Length
    zones: Zones = Zones()

    def since(self, now: datetime) -> datetime:
        """Return the first instant whose units may count now; before it none does."""
        if self.kind == "calendar":
            return self.bounds(now)[0]
        if self.length.months:
            return _back(add_months(now, -self.length.months), MONTH_CLIP)
        return _back(now, timedelta(microseconds=self.length.micros)) + MICROSECOND

    def sure(self, now: datetime) -> datetime:
        """Return the first instant from which all units count; between `since` and it, ask `counts` of each."""
        if self.kind == "rolling" and self.length.months:
            return add_months(now, -self.length.months) + MONTH_CLIP
        return self.since(now)

    def counts(self, taken_at: datetime, now: datetime) -> bool:
        """Whether a unit taken at `taken_at` counts now."""
        if self.kind == "calendar":
            return taken_at >= self.bounds(now)[0]
        return now < self.length.after(taken_at)

    def leaves(self, taken_at: datetime, now: datetime) -> datetime:
        """Return the instant at which a unit that counts now stops counting."""
        return self.bounds(now)[1] if self.kind == "calendar" else self.length.after(taken_at)

    def bounds(self, now: datetime) -> tuple[datetime, datetime]:
        """Return start (inclusive) and end (exclusive) of the calendar window that holds `now`."""
        return _bounds(CALENDAR_STEPS[self.length], self.zones, now)


@lru_cache(maxsize=4096)
def _bounds(step: Step, zones: Zones, now: datetime) -> tuple[datetime, datetime]:
    """Follow the changes of zone in order: each takes effect when the window in which it was asked for ends."""
    current, pending = _Regime(zones.first, None, None), None
    for asked_at, zone in zones.changes:
        if asked_at > now:
            break
        if pending and pending.begins and asked_at >= pending.begins:
            current, pending = pending, None
        begins = current.bounds(step, asked_at)[1]
        opens = _first_boundary(step, zone, begins + ZONE_CHANGE_LEAST)
        pending = _Regime(zone, begins, opens) if zone != current.zone else None
    if pending and pending.begins and now >= pending.begins:
        current = pending
    return current.bounds(step, now)


@dataclass(frozen=True, slots=True)
class _Regime:
    """A zone in force from `begins`, whose first window lasts until `opens`, its first own boundary."""

    zone: str
    begins: datetime | None
    opens: datetime | None

    def bounds(self, step: Step, now: datetime) -> tuple[datetime, datetime]:
        if self.begins is not None and self.opens is not None and now < self.opens:
            return self.begins, self.opens
        return _zone_bounds(step, self.zone, now)


def _zone_bounds(step: Step, zone: str, now: datetime) -> tuple[datetime, datetime]:
    # Boundaries are compared as instants: a local midnight may not exist, or come twice, where clocks change.
    tz = zone_named(zone)
    today = now.astimezone(tz).date()
    days = (_edge(step, today, offset) for offset in (-1, 0, 1, 2))
    instants = [datetime.combine(day, time(), tzinfo=tz).astimezone(UTC) for day in days]
    start = max(instant for instant in instants if instant <= now)
    return start, min(instant for instant in instants if instant > now)


def _first_boundary(step: Step, zone: str, least: datetime) -> datetime:
    start, end = _zone_bounds(step, zone, least)
    return least if start == least else end


def _edge(step: Step, today: date, offset: int) -> date:
    """Return the first day of the step that is `offset` steps from today's."""
    if step == "day":
        return today + timedelta(days=offset)
    if step == "week":
        return today - timedelta(days=today.weekday()) + timedelta(weeks=offset)
    months = offset * (MONTHS_PER_YEAR if step == "year" else 1)
    first = today.replace(day=1) if step == "month" else today.replace(month=1, day=1)
    return add_months(datetime.combine(first, time(), tzinfo=UTC), months).date()


def _back(instant: datetime, by: timedelta) -> datetime:
    try:
        return instant - by
    except OverflowError:
        return LONG_AGO
