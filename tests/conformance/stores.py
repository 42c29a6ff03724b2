"""Every way to keep books and to call the engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from policies.policy_set import PolicySet
from quota.testing import FakeClock
from tests.conformance import servers
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
}
