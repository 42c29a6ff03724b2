"""Databases that can be made again: for replays and demos, which need not survive a power cut."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from sqlalchemy import Engine, create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import StaticPool

from quota.stores.sqlite import GUARDS

SQLITE_FILE: Final = "sqlite:///"
_GUARDS: Final = tuple(f"{guard}=ON" for guard in GUARDS)
_KEPT: Final = ("journal_mode=WAL", "synchronous=OFF", *_GUARDS)
_THROWN_AWAY: Final = (
    "cache_size=-65536",
    "locking_mode=EXCLUSIVE",
    "journal_mode=MEMORY",
    "synchronous=OFF",
    *_GUARDS,
)


def sqlite_path(database: str) -> Path | None:
    """Return the file of an SQLite URL; None for a database in memory or of another kind."""
    try:
        url = make_url(database)
    except (ArgumentError, ValueError):
        return None
    if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:"):
        return None
    return Path(str(url.database))


@contextmanager
def scratch(database: str | None) -> Iterator[Engine | str]:
    """Open a database that can be made again; a URL that is no SQLite file stays as it is.

    None is a file that nobody will want back. Memory does not grow with it. (SQLite's own
    temporary database keeps every page it wrote on a list, and walks it at each commit.) Files
    are written without waiting for the disk, which takes a third of the time.
    """
    path = None if database is None else sqlite_path(database)
    if database is not None and path is None:
        yield database
        return
    if path is not None:
        engine = _engine(path, _KEPT, thrown_away=False)
        try:
            yield engine
        finally:
            engine.dispose()
        return
    with TemporaryDirectory(prefix="comptroller-") as folder:
        engine = _engine(Path(folder) / "scratch.db", _THROWN_AWAY, thrown_away=True)
        try:
            yield engine
        finally:
            engine.dispose()


def _engine(path: Path, pragmas: tuple[str, ...], *, thrown_away: bool) -> Engine:
    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}").close()
        return connection

    if thrown_away:
        return create_engine("sqlite://", creator=connect, poolclass=StaticPool)
    return create_engine(f"{SQLITE_FILE}{path}", creator=connect)
