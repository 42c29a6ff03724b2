"""Durable grants of AsyncComptroller, with group commit and without: for 64 tasks at once, and for one, which finds
nobody to share with. On an SQLite file and on PostgreSQL, each with Redis in front and without.

Both sides keep their databases from round to round, so that accounts and histories grow alike.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from policies import PolicySet
from quota import AsyncComptroller
from tests.bench.decision import POLICIES
from tests.bench.rounds import Block, Ratio, Side, compare
from tests.servers import Postgres, Redis

TASKS = 64
ACCOUNTS = 512
GRANTS = 512
GRANTS_OF_ONE = 64
ROUNDS = 9
WANTED = "at least 3"
NO_LOSS = "at least 0.95"


class Grants:
    """Open books, and grants on them by so many tasks at once."""

    def __init__(self, database: str, redis: str | None, *, group_commit: bool) -> None:
        self._numbers = itertools.count()
        self._runner = asyncio.Runner()
        self._comptroller = AsyncComptroller.open(
            PolicySet.parse(POLICIES), database, redis, group_commit=group_commit
        )

    def side(self, tasks: int, grants: int) -> Side:
        """A block of grants, of which each task takes the next as soon as it has had one."""

        def block() -> int:
            self._runner.run(self._all(tasks, grants))
            return grants

        def prepare() -> Block:
            return block

        return prepare

    async def _all(self, tasks: int, grants: int) -> None:
        left = iter(range(grants))
        await asyncio.gather(*(self._some(left) for _ in range(tasks)))

    async def _some(self, left: Iterator[int]) -> None:
        for _ in left:
            number = next(self._numbers)
            decision = await self._comptroller.admit(
                account=f"u{number % ACCOUNTS}",
                operation="video.generate",
                attributes={"seconds": 10},
                key=f"k{number}",
            )
            if not decision:
                raise AssertionError(f"the benchmark must measure grants: {decision}")

    def close(self) -> None:
        """Close the books."""
        self._runner.run(self._comptroller.close())
        self._runner.close()


def _compared(place: str, databases: tuple[str, str], redis: str | None) -> Iterator[Ratio]:
    place = place if redis is None else f"{place}, Redis in front"
    with ExitStack() as stack:
        both = []
        for database, group_commit in zip(databases, (True, False), strict=True):
            grants = Grants(database, redis, group_commit=group_commit)
            stack.callback(grants.close)
            both.append(grants)
        ours, other = both
        for tasks, count, wanted in ((TASKS, GRANTS, WANTED), (1, GRANTS_OF_ONE, NO_LOSS)):
            yield compare(
                f"grants, {tasks} task{'s' if tasks > 1 else ''}, {place}",
                wanted,
                ("group commit", ours.side(tasks, count)),
                ("without", other.side(tasks, count)),
                rounds=ROUNDS,
            )


def run() -> Iterator[Ratio]:
    """Compare on each database, without Redis and with it."""
    with TemporaryDirectory() as name, Postgres(durable=True) as server, Redis() as redis:
        for front in (None, redis.url):
            files = [f"sqlite:///{Path(name, f'{front is None}-{each}.db')}" for each in "ab"]
            yield from _compared("SQLite file, FULL", (files[0], files[1]), front)
            redis.flush()
            with server.database() as one, server.database() as two:
                yield from _compared("PostgreSQL, fsync", (one, two), front)
            redis.flush()
