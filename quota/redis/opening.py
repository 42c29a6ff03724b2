"""Open a client by URL: the one place that knows both kinds and both shells."""

from __future__ import annotations

from collections.abc import Callable

from quota.clock import monotonic_seconds
from quota.redis.async_client import AsyncRedis
from quota.redis.sync_client import SyncRedis
from quota.redis.target import read_url

TIMEOUT_SECONDS: float = 0.1
"""How long each connect and each reply of Redis may take. Our own tests, on busy machines, wait longer."""


def open_sync(
    url: str,
    *,
    timeout_seconds: float | None = None,
    clock: Callable[[], float] = monotonic_seconds,
) -> SyncRedis:
    """Return a client for threads. It connects at its first call.

    `timeout_seconds` bounds each connect and each reply, in seconds; None: TIMEOUT_SECONDS.
    `clock` gives monotonic seconds, for the circuit breaker.

    Raises:
        InvalidRequest: the URL cannot be read.
    """
    target, timeout = read_url(url), TIMEOUT_SECONDS if timeout_seconds is None else timeout_seconds
    if target.is_cluster:
        from quota.redis.sync_cluster import SyncCluster  # noqa: PLC0415 - it imports redis-py

        return SyncCluster(target, timeout, clock)
    return SyncRedis(target, timeout, clock)


def open_async(
    url: str,
    *,
    timeout_seconds: float | None = None,
    clock: Callable[[], float] = monotonic_seconds,
) -> AsyncRedis:
    """Return a client for event loops. It connects at the first call in each.

    `timeout_seconds` bounds each connect and each reply, in seconds; None: TIMEOUT_SECONDS.
    `clock` gives monotonic seconds, for the circuit breaker.

    Raises:
        InvalidRequest: the URL cannot be read.
    """
    target, timeout = read_url(url), TIMEOUT_SECONDS if timeout_seconds is None else timeout_seconds
    if target.is_cluster:
        from quota.redis.async_cluster import AsyncCluster  # noqa: PLC0415 - it imports redis-py

        return AsyncCluster(target, timeout, clock)
    return AsyncRedis(target, timeout, clock)
