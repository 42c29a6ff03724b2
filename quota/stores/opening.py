"""Which database it is: chosen by its URL, or by the dialect of the host's own engine.

A driver is imported only where it is used: who keeps books on SQLite loads no other.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import URL, Engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine

from policies.errors import InvalidRequest
from policies.suggest import shown
from quota.stores.base import USE_FILE, Store
from quota.stores.sqlite import SqliteStore

ASYNC: Final = (
    "an engine on an async driver cannot be used: give the database's URL, or an engine on an "
    "ordinary driver, also for AsyncComptroller"
)


def open_store(database: str | Engine) -> Store:
    """Open a database by URL, or use the host's own engine.

    Raises:
        InvalidRequest: the URL is not one, or the database is of a kind that is not supported.
    """
    chosen = database if isinstance(database, Engine) else _parsed(database)
    if isinstance(chosen, Engine) and chosen.dialect.is_async:
        raise InvalidRequest(ASYNC)
    kind = chosen.dialect.name if isinstance(chosen, Engine) else chosen.get_backend_name()
    if kind == "sqlite":
        return SqliteStore(chosen)
    if kind in ("postgresql", "postgres"):
        from quota.stores.postgres import PostgresStore  # noqa: PLC0415 - see above

        return PostgresStore(chosen)
    raise InvalidRequest(f"database `{kind}` is not supported: {USE_FILE}")


def without_password(database: str) -> str:
    """Return a database's URL as people may see it."""
    try:
        return make_url(database).render_as_string(hide_password=True)
    except (ArgumentError, ValueError):
        return "this database" if "@" in database else database


def _parsed(database: object) -> URL:
    if isinstance(database, AsyncEngine):
        raise InvalidRequest(ASYNC)
    try:
        return make_url(database)  # type: ignore[arg-type]
    except (ArgumentError, ValueError):
        # What has an `@` may have a password before it.
        what = "this" if "@" in str(database) else shown(database)
        raise InvalidRequest(f"{what} is not a database URL: {USE_FILE}") from None
