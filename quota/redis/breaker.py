"""The circuit breaker: when Redis is away, do not ask it, and find out cheaply that it is back.

Closed: calls go through. Open: none does, so an admission costs SQL alone and not a timeout on top.
Half-open: once the wait is over one call at a time goes through as a probe. Its success closes the
breaker, its failure opens it again, for twice as long.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Final, Literal

from quota.redis.forks import start_anew_in_children

State = Literal["closed", "half-open", "open"]

FAILURES: Final = 5
FIRST_WAIT_SECONDS: Final = 0.25
LONGEST_WAIT_SECONDS: Final = 4.0
# A probe that ended without a verdict (its task was cancelled, its thread died) blocks for so long.
PROBE_SECONDS: Final = 1.0


class Breaker:
    """Counts failures in a row and says whether a call may go through. Safe for threads.

    `clock` gives monotonic seconds. `jitter` gives numbers in [0, 1): each wait is between half of
    its nominal length and all of it, so that processes do not probe in step.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        failures: int = FAILURES,
        first_wait_seconds: float = FIRST_WAIT_SECONDS,
        longest_wait_seconds: float = LONGEST_WAIT_SECONDS,
        probe_seconds: float = PROBE_SECONDS,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._clock = clock
        self._failures_allowed = failures
        self._first_wait = first_wait_seconds
        self._longest_wait = longest_wait_seconds
        self._probe_seconds = probe_seconds
        self._jitter = jitter
        self._failures = 0
        self._openings = 0  # in a row; 0 is closed
        self._until = 0.0  # when the wait, or the probe under way, is over
        self._probing = False
        self._lock = threading.Lock()
        start_anew_in_children(self)

    @property
    def state(self) -> State:
        """Where it stands now, for health reports."""
        if not self._openings:
            return "closed"
        return "half-open" if self._probing or self._clock() >= self._until else "open"

    def admits(self) -> bool:
        """Whether a call may go through now. In half-open, a yes makes that call the probe."""
        if not self._openings:
            return True
        with self._lock:
            if not self._openings:
                return True
            now = self._clock()
            if now < self._until:
                return False
            self._probing = True
            self._until = now + self._probe_seconds
            return True

    def succeeded(self) -> None:
        """Note a call that was answered in time."""
        if not self._failures and not self._openings:
            return  # the usual case takes no lock
        with self._lock:
            # A call from before the opening says nothing about now; the probe does.
            if not self._openings or self._probing:
                self._failures = self._openings = 0
                self._probing = False

    def failed(self, *, refused: bool = False) -> None:
        """Note a call that got no answer. `refused`: nobody listens there, which one call proves."""
        with self._lock:
            if self._openings and not self._probing:
                return  # it began before the opening
            self._failures += 1
            if self._probing or refused or self._failures >= self._failures_allowed:
                self._open()

    def _open(self) -> None:
        nominal = min(self._first_wait * 2**self._openings, self._longest_wait)
        self._openings += 1
        self._probing = False
        self._until = self._clock() + nominal * (1 + self._jitter()) / 2

    def after_fork(self) -> None:
        """Start with a lock that nobody holds; what is known of Redis stays true."""
        self._lock = threading.Lock()
