"""Writes on PostgreSQL that are sent together, as one statement.

A grant is a dozen rows in eight tables. A statement for each costs a round trip, and several times what the row does
on either side. So `run` queues it, and what waits is sent as one statement, a WITH clause for each, before whatever
needs it: rows, a count, a COMMIT. Several rows of one table are one clause, whose parameters are arrays. The parts of
one statement do not see each other: a part that would have to is the first of the next. Foreign keys are checked at
the end of each statement, as they always are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

from sqlalchemy import Dialect
from sqlalchemy.pool import PoolProxiedConnection

from billing.arrays import arrays
from billing.sql import Compiled, Db, Row, Statement

PARTS_MAX: Final = 32
"""How many parts a statement has at most: each number of them is a text of its own, which is prepared once."""

SHAPES_MAX: Final = 512
KEY: Final = "of_"
"""How the parameters begin that say which row an UPDATE or a DELETE is about."""

_PLACE: Final = re.compile(r"\$(\d+)")
_VALUES: Final = re.compile(r"VALUES \(([^()]*)\)")


class Part(NamedTuple):
    """A statement that may be one of several: `width` is the number of its parameters."""

    text: str
    width: int
    tables: frozenset[str]
    adds: bool


class Batched(Db):
    """One connection to PostgreSQL within one transaction, whose writes are sent together. Parameters are `$1`."""

    __slots__ = ("_added", "_changed", "_parts", "_values")

    def __init__(self, driver: PoolProxiedConnection, dialect: Dialect) -> None:
        """Work on a connection. Whoever hands it over begins and ends the transaction."""
        super().__init__(driver, dialect)
        self._forget()

    def run(self, statement: Statement, /, **values: Any) -> None:
        compiled = statement.compiled(self._kind, self.dialect)
        self._queue(_single(compiled), compiled.parameters(values))

    def run_each(self, statement: Statement, each: Sequence[Mapping[str, Any]], /) -> None:
        compiled = statement.compiled(self._kind, self.dialect)
        if len(each) > 1 and _go_together(compiled, each):
            self._queue(_multiple(compiled), self._columns(compiled, each))
        else:
            for values in each:
                self.run(statement, **values)

    def driver_sql(self, text: str) -> None:
        if text.startswith("ROLLBACK"):
            self._forget()  # what is undone need not be done
        self._send()
        super().driver_sql(text)

    def count(self, statement: Statement, /, **values: Any) -> int:
        self._send()
        return super().count(statement, **values)

    def rows(self, statement: Statement, /, **values: Any) -> list[Row]:
        self._send()
        return super().rows(statement, **values)

    def flush(self) -> None:
        self._send()

    def _queue(self, part: Part, values: Sequence[Any]) -> None:
        would_miss = self._changed if part.adds else self._changed | self._added
        if not would_miss.isdisjoint(part.tables) or len(self._parts) == PARTS_MAX:
            self._send()
        self._parts.append(part)
        self._values += values
        (self._added if part.adds else self._changed).update(part.tables)

    def _columns(self, compiled: Compiled, each: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Return the rows' columns, as arrays of the database."""
        if self.dialect.driver == "psycopg":
            return [*arrays(compiled, each)]
        return [*map(list, zip(*map(compiled.parameters, each), strict=True))]

    def _send(self) -> None:
        if self._parts:
            text, values = _together(tuple(self._parts)), self._values
            self._forget()
            self._execute(text, values)

    def _execute(self, text: str, values: list[Any]) -> None:
        self._cursor.execute(text, values)

    def _forget(self) -> None:
        self._parts: list[Part] = []
        self._values: list[Any] = []
        self._added: set[str] = set()
        self._changed: set[str] = set()


def _go_together(compiled: Compiled, each: Sequence[Mapping[str, Any]]) -> bool:
    """Whether one clause can do all of these: it changes no row twice."""
    if None in compiled.types:
        return False
    names = [name for name, _ in compiled.places if name.startswith(KEY)]
    different = names and len({tuple(row[name] for name in names) for row in each}) == len(each)
    return compiled.adds or bool(different)


@lru_cache(SHAPES_MAX)
def _single(compiled: Compiled) -> Part:
    return Part(compiled.text, len(compiled.places), compiled.tables, compiled.adds)


@lru_cache(SHAPES_MAX)
def _multiple(compiled: Compiled) -> Part:
    """Return the statement for any number of rows: its parameters are the rows' columns, as arrays."""
    arrays = ", ".join(f"${n}::{kind}[]" for n, kind in enumerate(compiled.types, start=1))
    columns = ", ".join(f"v{n}" for n in range(1, len(compiled.types) + 1))
    rows = f"unnest({arrays}) AS each ({columns})"
    text = _PLACE.sub(r"each.v\1", compiled.text)
    if text.startswith("INSERT"):
        text = _VALUES.sub(rf"SELECT \1 FROM {rows}", text)  # noqa: S608 - our own columns
    else:
        with_rows = f"{'FROM' if text.startswith('UPDATE') else 'USING'} {rows} WHERE"
        text = with_rows.join(text.rsplit("WHERE", 1))
    return Part(text, len(compiled.types), compiled.tables, compiled.adds)


@lru_cache(SHAPES_MAX)
def _together(parts: tuple[Part, ...]) -> str:
    """Return the one statement that runs these, with their parameters numbered through."""
    texts, before = [], 0
    for part in parts:
        texts.append(_renumbered(part.text, before))
        before += part.width
    *clauses, last = texts
    if not clauses:
        return last
    return f"WITH {', '.join(f'q{n} AS ({text})' for n, text in enumerate(clauses))} {last}"


def _renumbered(text: str, before: int) -> str:
    """Return a text whose parameters come after `before` others."""
    return _PLACE.sub(lambda found: f"${before + int(found[1])}", text)
