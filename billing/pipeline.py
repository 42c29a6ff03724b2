"""psycopg: parameters by number, and statements that travel together.

A round trip to the server costs more than most statements do. In a pipeline a statement waits only where an answer is
wanted: a BEGIN goes out with the first one that asks for rows, a COMMIT with the writes before it. The server runs all
in order, and leaves out what follows one that fails. So an error may show at a later call than the one that caused it,
but none goes unseen: `close` waits for everything.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cache
from typing import Any, cast

import psycopg
from psycopg.errors import PipelineAborted
from psycopg.rows import tuple_row
from sqlalchemy import Dialect
from sqlalchemy.pool import PoolProxiedConnection

from billing.batch import Batched, Part
from billing.sql import NUMBERED, Compiled, Db, Question, Row, Statement


def open_db(driver: PoolProxiedConnection, dialect: Dialect) -> Db:
    """Work on a connection to PostgreSQL, ours or a host's, as its driver does best."""
    if isinstance(driver.driver_connection, psycopg.Connection):
        has_pipeline = psycopg.Pipeline.is_supported()
        return Pipelined(driver, dialect) if has_pipeline else Psycopg(driver, dialect)
    return Batched(driver, dialect) if dialect.paramstyle == NUMBERED else Db(driver, dialect)


_Answer = tuple[Compiled, Any]
"""A statement that was sent, and the cursor that its rows come to."""


class Psycopg(Batched):
    """One connection of psycopg within one transaction."""

    __slots__ = ("_connection",)

    def __init__(self, driver: PoolProxiedConnection, dialect: Dialect) -> None:
        """Work on a connection. Whoever hands it over begins and ends the transaction."""
        self._connection = cast("psycopg.Connection[Any]", driver.driver_connection)
        super().__init__(driver, numbered(dialect))

    def _new_cursor(self) -> Any:
        # Parameters by number need not be looked for in the text, whose length would cost more than the statement.
        return psycopg.RawCursor(self._connection, row_factory=tuple_row)


class Pipelined(Psycopg):
    """One connection of psycopg within one transaction, which waits for an answer only where one is wanted."""

    __slots__ = ("_answers", "_context", "_expected", "_pipeline", "_sender")

    def __init__(self, driver: PoolProxiedConnection, dialect: Dialect) -> None:
        """Work on a connection. Whoever hands it over begins and ends the transaction."""
        super().__init__(driver, dialect)
        self._sender = self._new_cursor()
        self._expected: Sequence[Question] = ()
        self._answers: list[tuple[Question, _Answer]] = []
        self._context = self._connection.pipeline()
        self._pipeline = self._context.__enter__()

    def driver_sql(self, text: str) -> None:
        if text.startswith("ROLLBACK"):
            self._forget()
        self._send()
        self._answers.clear()
        self._sender.execute(text)

    def count(self, statement: Statement, /, **values: Any) -> int:
        self._send()
        self._answers.clear()
        compiled = statement.compiled(self._kind, self.dialect)
        self._cursor.execute(compiled.text, compiled.parameters(values))
        self._pipeline.sync()
        return int(self._cursor.rowcount)

    def rows(self, statement: Statement, /, **values: Any) -> list[Row]:
        return self.rows_of((statement, values))[0]

    def rows_of(self, *asked: Question) -> list[list[Row]]:
        self._send()
        answers = [self._answer(each) for each in asked]
        if self._expected:
            self._answers += [(each, self._asked(each)) for each in self._expected]
            self._expected = ()
        return [compiled.converted(cursor.fetchall()) for compiled, cursor in answers]

    def ahead(self, asked: Iterable[Question]) -> None:
        self._expected = tuple(asked)

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

    def _answer(self, question: Question) -> _Answer:
        for place, (asked, answer) in enumerate(self._answers):
            if asked[0] is question[0] and asked[1] == question[1]:
                del self._answers[place]
                return answer
        return self._asked(question)

    def _asked(self, question: Question) -> _Answer:
        statement, values = question
        compiled, cursor = statement.compiled(self._kind, self.dialect), self._new_cursor()
        cursor.execute(compiled.text, compiled.parameters(values))
        return compiled, cursor

    def _queue(self, part: Part, values: Sequence[Any]) -> None:
        self._answers.clear()  # they are from before this
        super()._queue(part, values)

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
