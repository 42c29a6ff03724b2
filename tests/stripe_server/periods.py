"""Billing periods: a month after the 31st is the last day of a shorter one, and then the 31st."""

from __future__ import annotations

import calendar
from datetime import UTC, datetime, timedelta
from fractions import Fraction

from tests.stripe_server.errors import Json


def period_end(anchor: int, recurring: Json, count: int) -> int:
    """Return when the period number `count`, from 1, ends that is counted from the anchor.

    Both instants are seconds since 1970. It is counted from the anchor, not from the last end, so
    that the day of the month comes back after a short month.
    """
    steps = recurring["interval_count"] * count
    start = datetime.fromtimestamp(anchor, UTC)
    match recurring["interval"]:
        case "day":
            end = start + timedelta(days=steps)
        case "week":
            end = start + timedelta(weeks=steps)
        case "month":
            end = _after_months(start, steps)
        case _:
            end = _after_months(start, 12 * steps)
    return int(end.timestamp())


def after_months(instant: int, months: int) -> int:
    """Return the instant so many calendar months later, both in seconds since 1970."""
    return int(_after_months(datetime.fromtimestamp(instant, UTC), months).timestamp())


def part_left(now: int, start: int, end: int) -> Fraction:
    """Return what part of a period is still to come, to the second: between 0 and 1."""
    return Fraction(min(max(end - now, 0), end - start), end - start)


def half_up(value: Fraction) -> int:
    """Round to a whole minor unit, halves away from zero."""
    size = int(abs(value) + Fraction(1, 2))
    return size if value >= 0 else -size


def _after_months(start: datetime, months: int) -> datetime:
    total = start.year * 12 + start.month - 1 + months
    year, month = divmod(total, 12)
    last = calendar.monthrange(year, month + 1)[1]
    return start.replace(year=year, month=month + 1, day=min(start.day, last))
