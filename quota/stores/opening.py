"""Which database it is: chosen by its URL, or by the dialect of the host's own engine.

A driver is imported only where it is used: who keeps books on SQLite loads no other.
"""

from __future__ import annotations

from sqlalchemy import URL, Engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from policies.errors import InvalidRequest
from policies.suggest import shown
from quota.stores.base import Store
from quota.stores.sqlite import SqliteStore

USE = "write one such as sqlite:///comptroller.db"


def open_store(database: str | Engine) -> Store:
    """Open a database by URL, or use the host's own engine.

    Raises:
        InvalidRequest: the URL is not one, or the database is of a kind that is not supported.
    """
    chosen = database if isinstance(database, Engine) else _parsed(database)
    kind = chosen.dialect.name if isinstance(chosen, Engine) else chosen.get_backend_name()
    if kind == "sqlite":
        return SqliteStore(chosen)
    raise InvalidRequest(f"database `{kind}` is not supported: {USE}")


def _parsed(database: object) -> URL:
    try:
        return make_url(database)  # type: ignore[arg-type]
    except ArgumentError:
        raise InvalidRequest(f"{shown(database)} is not a database URL: {USE}") from None
