"""Open a client by URL: the one place that knows both kinds and both shells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from quota.clock import monotonic_seconds
from quota.redis.async_client import AsyncRedis
from quota.redis.sync_client import SyncRedis
from quota.redis.target import read_url

TIMEOUT_SECONDS: Final = 0.1


def open_sync(
    url: str,
    *,
    timeout_seconds: float = TIMEOUT_SECONDS,
    clock: Callable[[], float] = monotonic_seconds,
) -> SyncRedis:
    """Return a client for threads. It connects at its first call.

    `timeout_seconds` bounds each connect and each reply, in seconds. `clock` gives monotonic
    seconds, for the circuit breaker.

    Raises:
        InvalidRequest: the URL cannot be read.
    """
    target = read_url(url)
    if target.is_cluster:
        from quota.redis.sync_cluster import SyncCluster  # noqa: PLC0415 - it imports redis-py

        return SyncCluster(target, timeout_seconds, clock)
    return SyncRedis(target, timeout_seconds, clock)


def open_async(
    url: str,
    *,
    timeout_seconds: float = TIMEOUT_SECONDS,
    clock: Callable[[], float] = monotonic_seconds,
) -> AsyncRedis:
    """Return a client for event loops. It connects at the first call in each.

    `timeout_seconds` bounds each connect and each reply, in seconds. `clock` gives monotonic
    seconds, for the circuit breaker.

    Raises:
        InvalidRequest: the URL cannot be read.
    """
    target = read_url(url)
    if target.is_cluster:
        from quota.redis.async_cluster import AsyncCluster  # noqa: PLC0415 - it imports redis-py

        return AsyncCluster(target, timeout_seconds, clock)
    return AsyncRedis(target, timeout_seconds, clock)
