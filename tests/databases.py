"""An empty database with our tables in it, of each kind that books are kept in; and somebody who has it locked."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy.dialects import postgresql

from billing.placement import placed
from quota.stores.opening import open_store
from tests.servers import shared_postgres

REFUSED = (sqlite3.IntegrityError, psycopg.IntegrityError)
"""What the drivers raise where the database refuses a row."""

KINDS = ("sqlite", "postgresql")
PARTITIONED = "postgresql in partitions"
PARTITIONS = 16


def migrate(url: str) -> None:
    """Make our tables. On PostgreSQL once for a whole run: each test then gets a copy."""
    with closing(open_store(url)) as store:
        store.migrate("auto")


def migrate_in_partitions(url: str) -> None:
    """Make our tables on PostgreSQL, those of books in hash partitions."""
    with closing(open_store(url)) as store:
        store.migrate("auto", partitions=PARTITIONS)


@contextmanager
def a_database(kind: str, folder: Path, making: Any = migrate) -> Iterator[str]:
    """Yield the URL of a database of one's own. `making`: what makes its tables, by URL."""
    if kind == PARTITIONED:
        kind, making = "postgresql", migrate_in_partitions
    if kind == "postgresql":
        with shared_postgres().database(migrate=making) as url:
            yield url
    else:
        url = f"sqlite:///{folder / 'books.db'}"
        making(url)
        yield url


def file_of(database: str) -> str:
    return database.removeprefix("sqlite:///")


def rows(database: str, sql: str) -> list[tuple[Any, ...]]:
    """Run SQL that reads, on a connection of its own: tables by their prefixed names, on every database."""
    if database.startswith("sqlite"):
        with closing(sqlite3.connect(file_of(database))) as connection:
            return list(connection.execute(sql))
    with psycopg.connect(database) as connection:
        return connection.execute(placed(sql, postgresql.dialect()).encode()).fetchall()


@contextmanager
def locked(database: str) -> Iterator[None]:
    """Be somebody who is writing to every account, until the block ends."""
    if database.startswith("sqlite"):
        with closing(sqlite3.connect(file_of(database), isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            yield
            other.rollback()
        return
    with closing(psycopg.connect(database)) as other:
        # New accounts too: all who write lock this table in a mode that goes with their own kind alone.
        other.execute("LOCK TABLE comptroller.book IN EXCLUSIVE MODE")
        yield
        other.rollback()
