"""Open a client by URL: the one place that knows both kinds and both shells."""

from __future__ import annotations

from collections.abc import Callable

from quota.clock import monotonic_seconds
from quota.redis.sync_client import SyncRedis
from quota.redis.target import read_url

TIMEOUT_SECONDS = 0.1


def open_sync(
    url: str,
    *,
    timeout_seconds: float = TIMEOUT_SECONDS,
    clock: Callable[[], float] = monotonic_seconds,
) -> SyncRedis:
    """Return a client for threads. Connects at the first call.

    `timeout_seconds` bounds each connect and each reply, in seconds. `clock` gives monotonic
    seconds, for the circuit breaker.

    Raises:
        InvalidRequest: the URL cannot be read.
    """
    return SyncRedis(read_url(url), timeout_seconds, clock)
