"""Every way to keep books and to call the engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from policies.policy_set import PolicySet
from quota.testing import FakeClock
from tests.conformance import batches, fronts, servers
from tests.conformance.driver import (
    Awaited,
    AwaitedFiled,
    AwaitedJoined,
    Driver,
    Filed,
    Joined,
    JoinedInMemory,
)

STORES: dict[str, Callable[[PolicySet, Path, FakeClock], Driver]] = {
    "memory": Driver,
    "file": Filed,
    "file, joined": Joined,
    "memory, joined": JoinedInMemory,
    "memory, async": Awaited,
    "file, async": AwaitedFiled,
    "file, async, joined": AwaitedJoined,
    "postgresql": servers.Served,
    "postgresql, partitioned": servers.Partitioned,
    "postgresql, joined": servers.ServedJoined,
    "postgresql, async": servers.ServedAwaited,
    "postgresql, joined on asyncpg": servers.JoinedOnAsyncpg,
    "postgresql, joined on async psycopg": servers.JoinedOnPsycopg,
    "redis, memory": fronts.MemoryFronted,
    "redis, file": fronts.FiledFronted,
    "redis, file, async": fronts.AwaitedFronted,
    "redis, file, joined": fronts.JoinedFronted,
    "redis that lags, memory": fronts.MemoryLagging,
    "redis that lags, file, joined": fronts.JoinedLagging,
    "redis that knows few keys, memory": fronts.MemoryForgetful,
    "cluster, file": fronts.FiledClustered,
    "cluster, file, async": fronts.AwaitedClustered,
    "redis, postgresql": fronts.ServedFronted,
    "redis, postgresql, async": fronts.ServedAwaitedFronted,
    "redis, postgresql, joined": fronts.ServedJoinedFronted,
    "cluster, postgresql": fronts.ServedClustered,
    "cluster that lags, postgresql, async": fronts.ServedAwaitedLagging,
    "memory, batches": batches.InBatches,
    "file, batches": batches.FiledInBatches,
    "postgresql, batches": batches.ServedInBatches,
    "redis, file, batches": batches.FiledFrontedInBatches,
    "redis, postgresql, batches": batches.ServedFrontedInBatches,
}
