"""Durable admits on one SQLite file, against a plain sqlite3 loop that issues the very same statements and commits.

The statements, their values and their transactions are recorded from a run of the engine, and replayed on a copy of the
database by nothing but `sqlite3`: what remains of our time is what the engine costs above the database itself.
"""

from __future__ import annotations

import itertools
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from billing.sql import Db
from policies import PolicySet
from quota import Comptroller
from quota.stores.sqlite import SqliteStore
from quota.testing import FakeClock
from tests.bench.decision import POLICIES
from tests.bench.rounds import Block, Ratio, Side, compare

BLOCK = 200
ROUNDS = 11
ACCOUNTS = 50
STEP = timedelta(seconds=30)


class _Recording:
    """The statements of a run, in order, BEGIN and COMMIT included."""

    def __init__(self) -> None:
        self.statements: list[tuple[str, Any]] = []

    def cursor(self, real: Any) -> Any:
        recording = self

        class Cursor:
            def execute(self, text: str, values: Any = ()) -> Any:
                recording.statements.append((text, values))
                return real.execute(text, values)

            def __getattr__(self, name: str) -> Any:
                return getattr(real, name)

        return Cursor()


def _admit(comptroller: Comptroller, clock: FakeClock, numbers: Iterator[int]) -> None:
    number = next(numbers)
    clock.advance(STEP)
    account = f"u{number % ACCOUNTS}"
    decision = comptroller.admit(
        account=account, operation="video.generate", attributes={"seconds": 10}, key=f"k{number}"
    )
    if not decision:
        raise AssertionError(f"the benchmark must measure grants: {decision}")


def _record(folder: Path) -> tuple[Path, list[tuple[str, Any]]]:
    """Run the engine, and return the database before it and the statements it issued."""
    path, before = folder / "recorded.db", folder / "before.db"
    clock, numbers, recording = FakeClock(), itertools.count(), _Recording()
    with Comptroller.open(PolicySet.parse(POLICIES), f"sqlite:///{path}", clock=clock) as engine:
        for _ in range(ACCOUNTS * 2):
            _admit(engine, clock, numbers)
    with sqlite3.connect(path) as checkpoint:
        checkpoint.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    checkpoint.close()
    shutil.copy(path, before)
    with pytest.MonkeyPatch.context() as patch:
        real_init, real_begun = Db.__init__, SqliteStore._begun

        def recorded_init(self: Db, driver: Any, dialect: Any) -> None:
            real_init(self, driver, dialect)
            self._cursor = recording.cursor(self._cursor)

        @contextmanager
        def recorded_begun(self: SqliteStore, how: str, **options: Any) -> Iterator[Any]:
            recording.statements.append((how, ()))
            with real_begun(self, how, **options) as driver:
                yield driver

        patch.setattr(Db, "__init__", recorded_init)
        patch.setattr(SqliteStore, "_begun", recorded_begun)
        with Comptroller.open(
            PolicySet.parse(POLICIES), f"sqlite:///{path}", clock=clock
        ) as engine:
            recording.statements.clear()
            for _ in range(BLOCK):
                _admit(engine, clock, numbers)
        statements = list(recording.statements)
    return before, statements


def _ours(folder: Path, runs: Iterator[int], before: Path) -> Side:
    """A block of admits by the engine, on a fresh copy of the database."""

    def prepare() -> Block:
        path = folder / f"ours-{next(runs)}.db"
        shutil.copy(before, path)
        clock, numbers = FakeClock(), itertools.count(ACCOUNTS * 2)
        clock.advance(STEP * ACCOUNTS * 2)
        engine = Comptroller.open(PolicySet.parse(POLICIES), f"sqlite:///{path}", clock=clock)

        def block() -> int:
            for _ in range(BLOCK):
                _admit(engine, clock, numbers)
            return BLOCK

        return block

    return prepare


def _floor(
    folder: Path, runs: Iterator[int], before: Path, statements: list[tuple[str, Any]]
) -> Side:
    """The same statements by sqlite3 alone, as durable, on a fresh copy of the database."""

    def prepare() -> Block:
        path = folder / f"floor-{next(runs)}.db"
        shutil.copy(before, path)
        connection = sqlite3.connect(path, isolation_level=None)
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            "cache_size=-16000",
        ):
            connection.execute(f"PRAGMA {pragma}")
        cursor = connection.cursor()

        def block() -> int:
            for text, values in statements:
                if text.startswith("BEGIN") and connection.in_transaction:
                    connection.commit()
                cursor.execute(text, values)
                if cursor.description is not None:
                    cursor.fetchall()
            connection.commit()
            return BLOCK

        return block

    return prepare


def run() -> Iterator[Ratio]:
    """Compare durable admits with the floor."""
    with TemporaryDirectory() as name:
        folder, runs = Path(name), itertools.count()
        before, statements = _record(folder)
        yield compare(
            f"durable admits ({len(statements) / BLOCK:.0f} statements each)",
            "at least 0.5",
            ("engine, SQLite file, FULL", _ours(folder, runs, before)),
            ("sqlite3 alone, same statements", _floor(folder, runs, before, statements)),
            rounds=ROUNDS,
        )
