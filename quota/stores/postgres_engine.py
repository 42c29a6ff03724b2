"""Connections to PostgreSQL: how ours are made and pooled, and whether a pooled one still has a server behind it."""

from __future__ import annotations

import select
from typing import Any, Final

import psycopg
from psycopg.conninfo import make_conninfo
from sqlalchemy import URL, Engine, create_engine
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import PoolProxiedConnection

from policies.errors import InvalidRequest
from policies.suggest import one_line
from quota.stores.base import USE_FILE

DRIVER: Final = "postgresql+psycopg"
POOL_SIZE: Final = 16
"""As many as AsyncComptroller has threads. Six processes of them fit into a server's default of 100 connections."""

LOCK_SECONDS: Final = 10
"""How long to wait for an account, or for a connection of the pool: as long as on SQLite."""

STATEMENT_SECONDS: Final = 60
"""A statement of an admission takes milliseconds: one that takes this long is a server in trouble."""

IDLE_SECONDS: Final = 60
"""A process that hangs within a transaction lets go of its account after this, because the server ends it."""

CONNECT_SECONDS: Final = 10
VANISHED: Final = {
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "2",
    "tcp_user_timeout": "20000",
}
"""A server that is no longer there sends no timeouts. The kernel gives it up after 20 s: its own usual is hours."""

PREPARED_MAX: Final = 300
"""Statements that a connection keeps prepared: all that we have, and those that a policy file's windows make."""


def own_engine(url: URL, *, lock_seconds: float, pool_size: int) -> Engine:
    """Make an engine of our own for a URL.

    Raises:
        InvalidRequest: the URL names another driver, or has parts that the driver does not know.
    """
    if url.drivername not in ("postgresql", "postgres", DRIVER):
        raise InvalidRequest(
            f"`{url.drivername}` is another driver: write postgresql://..., also for AsyncComptroller"
        )
    if "@" in (url.host or ""):
        raise InvalidRequest("the database URL has more than one `@`: write %40 in its password")
    try:
        engine = create_engine(
            url.set(drivername=DRIVER),
            # Transactions are begun and ended by statements of our own, which travel with others.
            isolation_level="AUTOCOMMIT",
            connect_args=_arguments(url, lock_seconds),
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=lock_seconds,
            pool_use_lifo=True,  # few connections stay warm; the server may drop the others
            pool_reset_on_return=None,
        )
        _, arguments = engine.dialect.create_connect_args(engine.url)
        make_conninfo("", **{name: arguments[name] for name in arguments if name != "context"})
    except (ArgumentError, psycopg.ProgrammingError, ValueError) as error:
        said = one_line(str(error).partition("\n")[0])
        raise InvalidRequest(f"the database URL cannot be used: {said}: {USE_FILE}") from None
    return engine


def _arguments(url: URL, lock_seconds: float) -> dict[str, Any]:
    given = url.query.get("options", "")
    ours = {
        "lock_timeout": round(lock_seconds * 1000),
        "statement_timeout": STATEMENT_SECONDS * 1000,
        "idle_in_transaction_session_timeout": IDLE_SECONDS * 1000,
    }
    # Instants come back in UTC, as they are used.
    options = " ".join(f"-c {name}={value}" for name, value in (*ours.items(), ("timezone", "UTC")))
    return {
        # What the URL says comes last, so that it wins.
        "options": f"{options} {given if isinstance(given, str) else ' '.join(given)}".strip(),
        "connect_timeout": url.query.get("connect_timeout", str(CONNECT_SECONDS)),
        "application_name": url.query.get("application_name", "comptroller"),
        "autocommit": True,
        **{name: url.query.get(name, usual) for name, usual in VANISHED.items()},
    }


def connected(engine: Engine) -> PoolProxiedConnection:
    """Take a connection from the pool that still has a server behind it.

    A server that ended, or ended this session, has closed its side: that can be seen without asking it anything.
    """
    while True:
        connection = engine.raw_connection()
        if not _is_closed(connection.driver_connection):
            return connection
        connection.invalidate()


def _is_closed(driver: Any) -> bool:
    """Whether the server has closed this idle connection."""
    return driver.closed or (_has_news(driver) and not _is_open_after_news(driver))


def _has_news(driver: Any) -> bool:
    poller = select.poll()
    poller.register(driver.fileno(), select.POLLIN)
    return bool(poller.poll(0))


def _is_open_after_news(driver: Any) -> bool:
    # A notice, say, is no reason to let a connection go; its end is read as the error that it is.
    try:
        driver.pgconn.consume_input()
        driver.pgconn.notifies()
        return not _has_news(driver)
    except psycopg.OperationalError:
        return False
