"""psycopg: parameters by number, and statements that travel together.

A round trip to the server costs more than most statements do. In a pipeline a statement waits only where an answer is
wanted: a BEGIN goes out with the first one that asks for rows, a COMMIT with the writes before it. The server runs all
in order, and leaves out what follows one that fails. So an error may show at a later call than the one that caused it,
but none goes unseen: `close` waits for everything.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from typing import Any, cast

import psycopg
from psycopg.errors import PipelineAborted
from psycopg.rows import tuple_row
from sqlalchemy import Dialect
from sqlalchemy.pool import PoolProxiedConnection

from billing.batch import Batched
from billing.sql import NUMBERED, Db, Row, Statement


def open_db(driver: PoolProxiedConnection, dialect: Dialect, *, ours: bool) -> Db:
    """Work on a connection to PostgreSQL as its driver does best. `ours`: nobody else has begun something on it."""
    if isinstance(driver.driver_connection, psycopg.Connection):
        has_pipeline = ours and psycopg.Pipeline.is_supported()
        return Pipelined(driver, dialect) if has_pipeline else Psycopg(driver, dialect)
    return Batched(driver, dialect) if dialect.paramstyle == NUMBERED else Db(driver, dialect)


class Psycopg(Batched):
    """One connection of psycopg within one transaction."""

    __slots__ = ()

    def __init__(self, driver: PoolProxiedConnection, dialect: Dialect) -> None:
        """Work on a connection. Whoever hands it over begins and ends the transaction."""
        super().__init__(driver, numbered(dialect))
        self._cursor = self._new_cursor()

    def _new_cursor(self) -> Any:
        # Parameters by number need not be looked for in the text, whose length would cost more than the statement.
        connection = cast("psycopg.Connection[Any]", self.driver.driver_connection)
        return psycopg.RawCursor(connection, row_factory=tuple_row)


class Pipelined(Psycopg):
    """One connection of psycopg within one transaction, which waits for an answer only where one is wanted."""

    __slots__ = ("_context", "_pipeline", "_sender")

    def __init__(self, driver: PoolProxiedConnection, dialect: Dialect) -> None:
        """Work on a connection. Whoever hands it over begins and ends the transaction."""
        super().__init__(driver, dialect)
        connection = cast("psycopg.Connection[Any]", driver.driver_connection)
        self._sender = self._new_cursor()
        self._context = connection.pipeline()
        self._pipeline = self._context.__enter__()

    def driver_sql(self, text: str) -> None:
        if text.startswith("ROLLBACK"):
            self._forget()
        self._send()
        self._sender.execute(text)

    def count(self, statement: Statement, /, **values: Any) -> int:
        self._send()
        compiled = statement.compiled(self._kind, self.dialect)
        self._cursor.execute(compiled.text, compiled.parameters(values))
        self._pipeline.sync()
        return int(self._cursor.rowcount)

    def rows_of(self, *asked: tuple[Statement, Mapping[str, Any]]) -> list[list[Row]]:
        self._send()
        waiting = []
        for statement, values in asked:
            compiled, cursor = statement.compiled(self._kind, self.dialect), self._new_cursor()
            cursor.execute(compiled.text, compiled.parameters(values))
            waiting.append((compiled, cursor))
        return [compiled.converted(cursor.fetchall()) for compiled, cursor in waiting]

    def flush(self) -> None:
        self._send()
        self._pipeline.sync()

    def close(self) -> None:
        try:
            # What was left out after an error is no error of its own: that one has been raised.
            with suppress(PipelineAborted):
                self._context.__exit__(None, None, None)
        finally:
            self._sender.close()
            super().close()

    def _execute(self, text: str, values: list[Any]) -> None:
        self._sender.execute(text, values)


def numbered(dialect: Dialect) -> Dialect:
    """Return a dialect of psycopg whose parameters are `$1`."""
    kind: Any = type(dialect)
    return _dialect(kind)


@cache
def _dialect(kind: Any) -> Dialect:
    dialect: Dialect = kind(dbapi=psycopg, paramstyle=NUMBERED)
    return dialect
