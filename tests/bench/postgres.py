"""Durable grants on PostgreSQL, against hand-written psycopg that issues the very same statements in the same way.

What the engine sends is recorded, and sent again by nothing but psycopg to a copy of the database: the same
statements with the same values, the same of them in one pipeline, and the same answers waited for. What remains of
our time is what the engine costs above the driver and the server. The server waits for its disk at every commit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Any, NamedTuple

import psycopg
import pytest

from policies import PolicySet
from quota import Comptroller
from quota.testing import FakeClock
from tests.bench.decision import POLICIES
from tests.bench.rounds import Block, Ratio, Side, compare
from tests.servers import Databases, Postgres

BLOCK = 200
ROUNDS = 11
ACCOUNTS = 50
STEP = timedelta(seconds=30)


class Sent(NamedTuple):
    """Something that was done with the driver: a statement and its values, or that its rows were waited for."""

    what: str
    cursor: int = 0
    text: str = ""
    values: Any = None


@contextmanager
def recording() -> Iterator[list[Sent]]:
    """Note all that is done with psycopg meanwhile."""
    sent: list[Sent] = []
    execute, fetch, pipeline = (
        psycopg.Cursor.execute,
        psycopg.Cursor.fetchall,
        psycopg.Connection.pipeline,
    )

    def noted_execute(self: Any, text: Any, values: Any = None, **more: Any) -> Any:
        sent.append(Sent("execute", id(self), text, values))
        return execute(self, text, values, **more)

    def noted_fetch(self: Any) -> Any:
        sent.append(Sent("fetch", id(self)))
        return fetch(self)

    @contextmanager
    def noted_pipeline(self: Any) -> Iterator[Any]:
        sent.append(Sent("pipeline"))
        with pipeline(self) as entered:
            yield entered
        sent.append(Sent("end"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(psycopg.Cursor, "execute", noted_execute)
        patch.setattr(psycopg.Cursor, "fetchall", noted_fetch)
        patch.setattr(psycopg.Connection, "pipeline", noted_pipeline)
        yield sent


Act = Callable[[Comptroller, FakeClock, int], object]
"""What is measured: the call number n of a block."""


def admit(comptroller: Comptroller, clock: FakeClock, number: int) -> str:
    clock.advance(STEP)
    decision = comptroller.admit(
        account=f"u{number % ACCOUNTS}",
        operation="video.generate",
        attributes={"seconds": 10},
        key=f"k{clock()}",
    )
    if not decision:
        raise AssertionError(f"the benchmark must measure grants: {decision}")
    return decision.id


def settling(grants: list[str]) -> Act:
    def settle(comptroller: Comptroller, clock: FakeClock, number: int) -> None:
        clock.advance(STEP)
        if not comptroller.settle(grants[number], gpu_seconds=130).by_this_call:
            raise AssertionError("the benchmark must measure ends that it makes")

    return settle


class Scene:
    """A server, the books before a block, and the instant at which it begins."""

    def __init__(self, server: Databases) -> None:
        self.server = server
        self.before = server.fresh_database("before")
        clock = FakeClock()
        with opened(self.before, clock) as comptroller:
            self.grants = [admit(comptroller, clock, number) for number in range(BLOCK)]
        self.at = clock()

    def copy(self, name: str) -> str:
        """Make a fresh copy of the books, without what the last one of this name has left."""
        url = self.server.url_of(name)
        self.server.drop_database(url)
        with self.server.connect() as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE before".encode())
        return url

    def block(self, url: str, act: Act) -> tuple[Comptroller, Block]:
        """Open the books, and return them with a block of calls."""
        clock = FakeClock(self.at)
        comptroller = opened(url, clock)

        def block() -> int:
            for number in range(BLOCK):
                act(comptroller, clock, number)
            return BLOCK

        return comptroller, block


def opened(url: str, clock: FakeClock) -> Comptroller:
    return Comptroller.open(PolicySet.parse(POLICIES), url, clock=clock)


def ours(scene: Scene, act: Act) -> Side:
    """A block of calls to the engine, on a fresh copy of the books."""
    last: list[Comptroller] = []

    def prepare() -> Block:
        while last:
            last.pop().close()
        comptroller, block = scene.block(scene.copy("ours"), act)
        last.append(comptroller)
        return block

    return prepare


def by_hand(scene: Scene, sent: list[Sent]) -> Side:
    """The same statements by psycopg alone, on a fresh copy of the books."""
    last: list[psycopg.Connection[Any]] = []

    def prepare() -> Block:
        while last:
            last.pop().close()
        connection = psycopg.connect(scene.copy("by_hand"), autocommit=True)
        last.append(connection)
        return lambda: send_again(connection, sent)

    return prepare


def send_again(connection: psycopg.Connection[Any], sent: list[Sent]) -> int:
    """Do with a connection what was recorded."""
    cursors: dict[int, psycopg.RawCursor[Any]] = {}
    with ExitStack() as open_now:
        for each in sent:
            if each.what == "execute":
                cursor = cursors.get(each.cursor)
                if cursor is None:
                    cursor = cursors[each.cursor] = psycopg.RawCursor(connection)
                cursor.execute(each.text, each.values)
            elif each.what == "fetch":
                cursors[each.cursor].fetchall()
            elif each.what == "pipeline":
                cursors.clear()
                open_now.enter_context(connection.pipeline())
            else:
                open_now.close()
    return BLOCK


def recorded(scene: Scene, act: Act) -> list[Sent]:
    comptroller, block = scene.block(scene.copy("recorded"), act)
    with comptroller, recording() as sent:
        block()
        return list(sent)


def run() -> Iterator[Ratio]:
    """Compare durable admits and settles with psycopg alone."""
    with Postgres(durable=True) as server:
        scene = Scene(server)
        for name, wanted, act in (
            ("admits", "at least 0.6", admit),
            ("settles", "for comparison", settling(scene.grants)),
        ):
            sent = recorded(scene, act)
            statements = sum(each.what == "execute" for each in sent) / BLOCK
            yield compare(
                f"durable {name}, PostgreSQL ({statements:.0f} statements each)",
                wanted,
                ("engine", ours(scene, act)),
                ("psycopg alone, same statements", by_hand(scene, sent)),
                rounds=ROUNDS,
            )
