"""The clock: the one place that asks the system what time it is."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

from policies.errors import InvalidRequest
from policies.instants import as_utc

Clock = Callable[[], datetime]


def system_clock() -> datetime:
    """Return the system's time, in UTC."""
    return datetime.now(UTC)


def monotonic_seconds() -> float:
    """Return seconds of a clock that never runs backwards, for how long something took or may be cached."""
    return time.monotonic()


def checked(clock: Clock | None) -> Clock:
    """Return a clock that refuses naive datetimes; the system's where none is given.

    Raises:
        InvalidRequest: it cannot be called.
    """
    if clock is None:
        return system_clock
    if not callable(clock):
        raise InvalidRequest(
            f"clock must be a callable that returns a datetime, not `{clock!r:.60}`"
        )
    return lambda: as_utc(clock(), "the clock's time")
