"""Instants and lengths of time.

An instant is an aware datetime in UTC with microseconds. A length is either exact (`30s`, `24h`, `7d`) or made of
calendar months (`12mo`, `1y`), whose real length depends on where it starts.
"""

from __future__ import annotations

import re
from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from policies.errors import InvalidRequest
from policies.suggest import shown

LENGTHS: Final = "30s, 5m, 24h, 7d, 12mo or 1y"
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)
YEAR_MAX: Final = 9999
MONTHS_PER_YEAR: Final = 12
LENGTH_MONTHS_MAX: Final = 1200
LENGTH_MICROS_MAX: Final = 100 * 366 * 86_400 * 1_000_000

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_MONTHS: Final = {"mo": 1, "y": MONTHS_PER_YEAR}
_LENGTH: Final = re.compile(r"([0-9]{1,9})(mo|y|s|m|h|d)\Z")


def as_utc(instant: object, name: str) -> datetime:
    """Return an aware datetime in UTC.

    Raises:
        InvalidRequest: it is no datetime, or a naive one: whose midnight it means is unknown.
    """
    if not isinstance(instant, datetime):
        raise InvalidRequest(f"{name} must be a datetime, not {shown(instant)}")
    if instant.tzinfo is None or instant.utcoffset() is None:
        raise InvalidRequest(f"{name} must carry a time zone: `{instant.isoformat()}` has none")
    return instant.astimezone(UTC)


def micros(instant: datetime) -> int:
    """Return the microseconds since 1970 in UTC, exactly."""
    return (instant - EPOCH) // MICROSECOND


def from_micros(count: int) -> datetime:
    """Return the instant that is `count` microseconds after 1970 in UTC."""
    return EPOCH + count * MICROSECOND


def zone_named(name: str) -> ZoneInfo:
    """Return the IANA time zone of that name.

    Raises:
        InvalidRequest: there is none.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidRequest(
            f"unknown time zone {shown(name)}: use an IANA name such as Europe/Berlin"
        ) from None


def add_months(instant: datetime, months: int) -> datetime:
    """Move by calendar months, clipped to the month's last day (31 January + 1 month = 28 or 29 February)."""
    index = instant.year * MONTHS_PER_YEAR + instant.month - 1 + months
    year, month = divmod(index, MONTHS_PER_YEAR)
    if not 1 <= year <= YEAR_MAX:
        return datetime.max.replace(tzinfo=UTC) if months > 0 else datetime.min.replace(tzinfo=UTC)
    day = min(instant.day, monthrange(year, month + 1)[1])
    return instant.replace(year=year, month=month + 1, day=day)


@dataclass(frozen=True, slots=True, order=True)
class Length:
    """A length of time: calendar `months`, or exact `micros` (microseconds). Exactly one of them is positive."""

    months: int
    micros: int

    @classmethod
    def parse(cls, text: str) -> Length:
        """Read `30s`, `5m`, `24h`, `7d`, `12mo` or `1y`.

        Raises:
            ValueError: it is none of these, is zero, or is longer than a hundred years.
        """
        match = _LENGTH.match(text.strip())
        if not match or int(match[1]) == 0:
            raise ValueError(f"{shown(text)} is not a length of time: write one such as {LENGTHS}")
        count, unit = int(match[1]), match[2]
        months = count * _MONTHS.get(unit, 0)
        length = cls(months=months, micros=count * _SECONDS.get(unit, 0) * 1_000_000)
        if length.months > LENGTH_MONTHS_MAX or length.micros > LENGTH_MICROS_MAX:
            raise ValueError(f"{shown(text)} is longer than a hundred years")
        return length

    @property
    def is_calendar(self) -> bool:
        """Whether its real length depends on where it starts."""
        return self.months > 0

    def after(self, start: datetime) -> datetime:
        """Return the instant this long after `start`."""
        if self.months:
            return add_months(start, self.months)
        try:
            return start + timedelta(microseconds=self.micros)
        except OverflowError:
            return datetime.max.replace(tzinfo=UTC)

    def __str__(self) -> str:
        if self.months:
            years, rest = divmod(self.months, MONTHS_PER_YEAR)
            return f"{years}y" if not rest else f"{self.months}mo"
        seconds = self.micros // 1_000_000
        unit = next(unit for unit in "dhms" if seconds % _SECONDS[unit] == 0)
        return f"{seconds // _SECONDS[unit]}{unit}"
