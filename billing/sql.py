"""SQL written once, compiled once: statements of SQLAlchemy Core, run on the driver's own cursor.

An admission is a dozen small statements. SQLAlchemy's execution costs several times what SQLite takes for one,
so each statement is compiled once per kind of database and driver, and then costs a dictionary look-up and the
driver's call. Types are converted by the columns' own types, so that the statement and its values stay the same
on every database.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from operator import itemgetter
from typing import Any, Final

from sqlalchemy import ColumnElement, Dialect, Insert, Integer, Table, bindparam, insert
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.pool import PoolProxiedConnection
from sqlalchemy.sql import visitors
from sqlalchemy.sql.elements import ClauseElement
from sqlalchemy.types import NullType, TypeEngine

from billing.columns import Instant
from billing.placement import placed

Processor = Callable[[Any], Any]
Row = tuple[Any, ...]
NUMBERED: Final = "numeric_dollar"
"""Parameters such as `$1`: what PostgreSQL itself takes."""


class Statement:
    """A statement that is compiled once for each kind of database and driver it runs on."""

    __slots__ = ("_compiled", "adds", "clause", "postgresql")

    def __init__(
        self,
        clause: ClauseElement,
        *,
        postgresql: ClauseElement | None = None,
        merges: bool = False,
    ) -> None:
        """Say the same on every database; `postgresql`: how it is said there, where that is another way.

        `merges`: an INSERT that may change a row that is there.
        """
        self.clause: Final = clause
        self.postgresql: Final = clause if postgresql is None else postgresql
        self.adds: Final = isinstance(clause, Insert) and not merges
        self._compiled: dict[str, Compiled] = {}

    def compiled(self, kind: str, dialect: Dialect) -> Compiled:
        """Return its text and conversions for a database and driver of this kind."""
        compiled = self._compiled.get(kind)
        if compiled is None:
            clause = self.postgresql if dialect.name == "postgresql" else self.clause
            compiled = self._compiled[kind] = Compiled(clause, dialect, adds=self.adds)
        return compiled


Question = tuple[Statement, Mapping[str, Any]]
"""A statement that returns rows, and its values."""


def kind_of(dialect: Dialect) -> str:
    """Return what tells dialects apart whose statements have different texts: the database, driver and parameters."""
    return f"{dialect.name}+{dialect.driver}:{dialect.paramstyle}"


def insert_into(table: Table) -> Statement:
    """Return the statement that inserts one whole row."""
    return Statement(
        insert(table).values({name: bindparam(name) for name in map(str, table.c.keys())})
    )


def insert_once(table: Table) -> Statement:
    """Return the statement that inserts one whole row, unless its key is there already."""
    row: dict[str, Any] = {name: bindparam(name) for name in map(str, table.c.keys())}
    return Statement(
        sqlite.insert(table).values(row).on_conflict_do_nothing(),
        postgresql=postgresql.insert(table).values(row).on_conflict_do_nothing(),
    )


def insert_or_add(table: Table, amount: str) -> Statement:
    """Return the statement that inserts one whole row, or adds its amount to that of the row with its key."""
    row: dict[str, Any] = {name: bindparam(name) for name in map(str, table.c.keys())}
    key = list(table.primary_key.columns)
    in_file, in_server = sqlite.insert(table).values(row), postgresql.insert(table).values(row)
    return Statement(
        in_file.on_conflict_do_update(
            index_elements=key, set_={amount: table.c[amount] + in_file.excluded[amount]}
        ),
        postgresql=in_server.on_conflict_do_update(
            index_elements=key, set_={amount: table.c[amount] + in_server.excluded[amount]}
        ),
        merges=True,
    )


class Compiled:
    """A statement's text for one kind of database and driver, and how its values are converted.

    `tables`: what it reads or changes. `adds`: it inserts rows, and changes none that is there. `types`: what the
    database calls the types of the parameters, where these are numbered.
    """

    __slots__ = (
        "_pick",
        "_processors",
        "adds",
        "binds",
        "constants",
        "places",
        "results",
        "tables",
        "text",
        "types",
    )

    def __init__(self, clause: ClauseElement, dialect: Dialect, *, adds: bool) -> None:
        """Compile a statement."""
        compiled: Any = clause.compile(dialect=dialect)
        self.text: Final = placed(str(compiled), dialect)
        self.adds: Final = adds
        self.tables: Final = frozenset(
            part.name for part in visitors.iterate(clause) if isinstance(part, Table)
        )
        self.constants = {
            name: value for name, value in compiled.params.items() if value is not None
        }
        self.binds: dict[str, Processor] = {}
        for name, bind in compiled.binds.items():
            processor = _bind_processor(bind.type, dialect)
            if processor is not None:
                self.binds[name] = processor
        names = compiled.positiontup if compiled.positional else ()
        self.places = tuple((name, self.binds.get(name)) for name in names)
        self._processors = tuple(processor for _, processor in self.places)
        self._pick = _picker(names)
        self.types: Final = tuple(
            _type_name(compiled.binds[name].type, dialect)
            for name in (names if dialect.paramstyle == NUMBERED else ())
        )
        columns = tuple(getattr(clause, "exported_columns", ()) or ())
        processors = [_result_processor(column, dialect) for column in columns]
        self.results = tuple(
            (index, processor)
            for index, processor in enumerate(processors)
            if processor is not None
        )

    def parameters(self, values: Mapping[str, Any]) -> Any:
        """Return the values as the driver takes them. NULL needs no processing: it has no type."""
        if self.constants:
            values = {**self.constants, **values}
        if self.places or not values:
            return [
                value if processor is None or value is None else processor(value)
                for value, processor in zip(self._pick(values), self._processors, strict=True)
            ]
        binds = self.binds
        return {
            name: binds[name](value) if name in binds and value is not None else value
            for name, value in values.items()
        }

    def converted(self, rows: Sequence[Row]) -> list[Row]:
        """Return rows with the types that the columns declare."""
        if not self.results or not rows:
            return list(rows)
        converted = []
        for row in rows:
            values = list(row)
            for index, processor in self.results:
                values[index] = processor(values[index])
            converted.append(tuple(values))
        return converted


def _picker(names: Sequence[str]) -> Callable[[Mapping[str, Any]], Sequence[Any]]:
    """Return what picks the values of these names."""
    if len(names) > 1:
        return itemgetter(*names)
    return lambda values: [values[name] for name in names]


def _type_name(kind: TypeEngine[Any], dialect: Dialect) -> str | None:
    if isinstance(kind, NullType):
        return None
    name: str = dialect.type_compiler_instance.process(kind.dialect_impl(dialect))
    return name.partition(" COLLATE ")[0]


def _bind_processor(kind: TypeEngine[Any], dialect: Dialect) -> Processor | None:
    # Most values are instants: their own functions, without the layers that a TypeDecorator puts around them.
    if isinstance(kind, Instant):
        return kind.bind(dialect)
    if isinstance(kind, Integer) and dialect.driver == "psycopg":
        return _eight_octets()
    return kind.dialect_impl(dialect).bind_processor(dialect)


@cache
def _eight_octets() -> Processor:
    """Return what makes psycopg send an integer as the columns have it.

    It would choose the narrowest type for each value, and prepare a statement anew for each mixture of them.
    """
    from psycopg.types.numeric import Int8  # noqa: PLC0415 - only where there is PostgreSQL

    class Wide(Int8):
        """Made by C: dozens of these go into a grant."""

        __slots__ = ()
        __new__ = int.__new__  # type: ignore[assignment]

    wide: Processor = Wide
    return wide


def _result_processor(column: ColumnElement[Any], dialect: Dialect) -> Processor | None:
    kind = column.type
    if isinstance(kind, Instant):
        return kind.result(dialect)
    # PostgreSQL adds integers up to a decimal number, so that no sum overflows.
    if isinstance(kind, Integer) and dialect.name != "sqlite" and not _is_stored(column):
        return _whole
    return kind.dialect_impl(dialect).result_processor(dialect, None)


def _is_stored(column: ColumnElement[Any]) -> bool:
    return isinstance(getattr(column, "table", None), Table)


def _whole(value: Any) -> int | None:
    return None if value is None else int(value)


class Db:
    """One connection within one transaction: ours, or one that belongs to the host's session."""

    __slots__ = ("_cursor", "_kind", "budgets", "dialect", "driver", "notes", "saved")

    def __init__(self, driver: PoolProxiedConnection, dialect: Dialect) -> None:
        """Work on a connection of a database's driver. Whoever hands it over begins and ends the transaction."""
        self.driver: Final = driver
        self.dialect: Final = dialect
        self._kind = kind_of(dialect)
        self._cursor = self._new_cursor()
        self.saved: Final[dict[int, tuple[int, int]]] = {}
        """The books whose rows were written: how far each reached before, and now. For news after the commit."""
        self.notes: Final[dict[int, Any]] = {}
        """What else there is to tell of a book after the commit, by whoever changed it."""
        self.budgets: Any = None
        """How budgets are charged in this transaction, where it is not on their plain rows (quota.budgets.Charging)."""

    def _new_cursor(self) -> Any:
        return self.driver.cursor()

    @property
    def one_writer(self) -> bool:
        """Whether nobody else writes while a transaction that writes is open: what it has read stays true."""
        return self.dialect.name == "sqlite"

    def run(self, statement: Statement, /, **values: Any) -> None:
        """Run a statement that returns no rows, at the latest when something is asked or committed."""
        compiled = statement.compiled(self._kind, self.dialect)
        self._cursor.execute(compiled.text, compiled.parameters(values))

    def run_each(self, statement: Statement, each: Sequence[Mapping[str, Any]], /) -> None:
        """Run a statement that returns no rows with each of these values, in order."""
        if len(each) == 1:
            self.run(statement, **each[0])
        elif each:
            compiled = statement.compiled(self._kind, self.dialect)
            self._cursor.executemany(compiled.text, [*map(compiled.parameters, each)])

    def driver_sql(self, text: str) -> None:
        """Run a statement that is no business of tables, such as BEGIN."""
        self._cursor.execute(text)

    def count(self, statement: Statement, /, **values: Any) -> int:
        """Run a statement and return how many rows it changed."""
        compiled = statement.compiled(self._kind, self.dialect)
        self._cursor.execute(compiled.text, compiled.parameters(values))
        return int(self._cursor.rowcount)

    def rows(self, statement: Statement, /, **values: Any) -> list[Row]:
        """Run a statement and return its rows."""
        compiled = statement.compiled(self._kind, self.dialect)
        self._cursor.execute(compiled.text, compiled.parameters(values))
        return compiled.converted(self._cursor.fetchall())

    def row(self, statement: Statement, /, **values: Any) -> Row | None:
        """Run a statement and return its only row, or None."""
        rows = self.rows(statement, **values)
        return rows[0] if rows else None

    def rows_of(self, *asked: Question) -> list[list[Row]]:
        """Run several statements, one after the other, and return the rows of each."""
        return [self.rows(statement, **values) for statement, values in asked]

    def ahead(self, asked: Iterable[Question]) -> None:
        """Say what will be asked next, so that it can travel with the first of it and cost no wait of its own.

        Changes no answer: what is said here and not asked is lost, and whatever is written makes it be asked anew.
        Give it what makes questions when it is gone through: most databases do not.
        """

    def flush(self) -> None:
        """Wait until everything has been run: on some databases `run` only queues it (billing.batch)."""

    def close(self) -> None:
        """Give the cursor back. What is still queued and was not committed is not run any more."""
        self._cursor.close()
