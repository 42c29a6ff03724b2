"""A clock that stands still until it is moved."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from policies.instants import as_utc

START: Final = datetime(2026, 1, 1, 12, tzinfo=UTC)


class FakeClock:
    """A clock for tests: `Comptroller.open(..., clock=FakeClock())`. It never moves by itself."""

    def __init__(self, now: datetime = START) -> None:
        """Start at an aware instant.

        Raises:
            InvalidRequest: it is naive.
        """
        self._now = as_utc(now, "now")

    def __call__(self) -> datetime:
        """Return the time that was set."""
        return self._now

    @property
    def now(self) -> datetime:
        """The time that was set."""
        return self._now

    def advance(self, by: timedelta | None = None, **parts: float) -> datetime:
        """Move forward by a timedelta, or by its parts (`hours=24`), and return the new time.

        Raises:
            ValueError: it would move backwards: use `set`.
        """
        step = timedelta(**parts) if by is None else by
        if step < timedelta(0):
            raise ValueError(f"a clock advances forwards, not by {step}: use `set` to go back")
        self._now += step
        return self._now

    def set(self, now: datetime) -> datetime:
        """Set the time to an aware instant, also to an earlier one, and return it.

        Raises:
            InvalidRequest: it is naive.
        """
        self._now = as_utc(now, "now")
        return self._now
