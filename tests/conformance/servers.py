"""The engine on PostgreSQL, its calls made in every way: each program on a database of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from billing import schema
from policies.policy_set import PolicySet
from quota import Comptroller
from tests.conformance.driver import Awaited, AwaitedInSession, Driver, InSession
from tests.databases import a_database, migrate
from tests.hosts.host import on_driver
from tests.world import raw

PARTITIONS = 16
NUMBERED = re.compile(r"(gr|lot)_(\d+)_(\d+)")


def partitioned(url: str) -> None:
    """Make our tables, each table of books in hash partitions."""
    engine = create_engine(on_driver(url, "psycopg"), poolclass=NullPool)
    with engine.begin() as connection:
        schema.upgrade(connection, partitions=PARTITIONS)


def renumbered(value: Any, numbers: Mapping[int, int]) -> Any:
    """Return the same with other numbers of books in the ids of grants and lots, wherever they are."""
    if isinstance(value, str):
        return NUMBERED.sub(
            lambda known: f"{known[1]}_{numbers.get(int(known[2]), int(known[2]))}_{known[3]}",
            value,
        )
    if isinstance(value, tuple):
        return tuple(renumbered(each, numbers) for each in value)
    if isinstance(value, dict):
        return {
            renumbered(name, numbers): renumbered(each, numbers) for name, each in value.items()
        }
    return value


class Served(Driver):
    """On PostgreSQL."""

    making: Any = staticmethod(migrate)

    def opened(self, policy_set: PolicySet) -> Comptroller:
        return Comptroller.open(policy_set, self.database, redis=self.redis, clock=self.clock)

    @property
    def database(self) -> str:
        if not hasattr(self, "url"):
            self.stack = ExitStack()
            made = a_database("postgresql", self.folder, self.making)
            self.url = self.stack.enter_context(made)
        return self.url

    def close(self) -> None:
        super().close()
        self.stack.close()

    def answer(self, name: str, *values: Any, **named: Any) -> Any:
        """Make a call in the model's numbers of books: PostgreSQL leaves out those that were rolled back."""
        real = dict(enumerate(self.books(), 1))
        answer = super().answer(name, *renumbered(values, real), **named)
        return renumbered(answer, {book: number for number, book in enumerate(self.books(), 1)})

    def books(self) -> list[int]:
        with self.comptroller._db.reading() as db:
            return [row[0] for row in raw(db, "SELECT id FROM comptroller_book ORDER BY id")]


class Partitioned(Served):
    """On PostgreSQL, in hash partitions."""

    making = staticmethod(partitioned)


class ServedJoined(InSession, Served):
    """On PostgreSQL, each call in a session of the host."""

    def opened(self, policy_set: PolicySet) -> Comptroller:
        self.host = create_engine(on_driver(self.database, "psycopg"), poolclass=NullPool)
        return super().opened(policy_set)


class ServedAwaited(Served, Awaited):
    """On PostgreSQL, each call awaited."""

    def opened(self, policy_set: PolicySet) -> Comptroller:
        return Awaited.opened(self, policy_set)


class JoinedOnAsyncpg(AwaitedInSession, ServedAwaited):
    """On PostgreSQL, each call awaited in an AsyncSession of the host, on asyncpg."""

    driver = "asyncpg"

    def opened(self, policy_set: PolicySet) -> Comptroller:
        self.host = create_async_engine(on_driver(self.database, self.driver), poolclass=NullPool)
        return super().opened(policy_set)


class JoinedOnPsycopg(JoinedOnAsyncpg):
    """On PostgreSQL, each call awaited in an AsyncSession of the host, on psycopg's async connections."""

    driver = "psycopg"
