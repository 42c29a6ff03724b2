"""Where our tables live: in a schema of their own on PostgreSQL, under a prefix on SQLite, which has no schemas.

Statements and migrations name a table once, by its prefixed name. Text for PostgreSQL is rewritten where it is
compiled: `comptroller_book` becomes `comptroller."book"`. So a statement means our tables whatever the search path
is, and a host's own tables, a `comptroller_x` among them, are left alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import Connection, Dialect, TableClause, Text, column, event, table

from billing.tables import PREFIX, Table

SCHEMA: Final = "comptroller"
VERSION_TABLE: Final = f"{PREFIX}schema_version"
_PREFIXED: Final = re.compile(rf"\b{PREFIX}(\w+)\b")


def in_schema(dialect: Dialect) -> bool:
    """Whether our tables live in a schema of their own on such a database."""
    return dialect.name != "sqlite"


def placed(text: str, dialect: Dialect) -> str:
    """Return a statement's text with our tables named as they are on such a database."""
    return _PREFIXED.sub(_qualified, text) if in_schema(dialect) else text


def version_table(dialect: Dialect) -> TableClause:
    """Return the table that says which version the schema has."""
    version = column("version_num", Text)
    if not in_schema(dialect):
        return table(VERSION_TABLE, version)
    return table(VERSION_TABLE.removeprefix(PREFIX), version, schema=SCHEMA)


@contextmanager
def placing(connection: Connection) -> Iterator[None]:
    """Name our tables as they are on this database in whatever is run on a connection meanwhile."""

    def place(_: Connection, __: Any, text: str, parameters: Any, *___: Any) -> tuple[str, Any]:
        return placed(text, connection.dialect), parameters

    event.listen(connection, "before_cursor_execute", place, retval=True)
    try:
        yield
    finally:
        event.remove(connection, "before_cursor_execute", place)


def _qualified(found: re.Match[str]) -> str:
    ours = found[0] in Table.metadata.tables or found[0] == VERSION_TABLE
    return f'{SCHEMA}."{found[1]}"' if ours else found[0]
