"""Books on PostgreSQL.

The lock is the account's row. A transaction of ours that writes runs at READ COMMITTED and locks that row by its
first statement, so that each later one sees what the others have committed; one that reads runs at REPEATABLE READ,
so that all its statements see one instant. The clock is read when the row is locked: who reads what is past has
only to wait for those who hold such a lock now.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, Final

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import URL, Engine
from sqlalchemy.pool import PoolProxiedConnection

from billing import schema
from billing.pipeline import open_db
from billing.placement import SCHEMA
from billing.sql import Db
from policies.errors import AccountBusy, InvalidRequest
from quota.budgets import Charging, Holder
from quota.clock import monotonic_seconds
from quota.forks import abandon
from quota.stores.base import Store, checked_how, checked_session
from quota.stores.postgres_engine import LOCK_SECONDS, POOL_SIZE, connected, own_engine
from quota.stores.postgres_errors import sqlstate, translated
from quota.stores.postgres_joined import LIMIT, Joined, joined

BEGIN_READING: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
BEGIN_WRITING: Final = "BEGIN ISOLATION LEVEL READ COMMITTED"
MILLISECOND: Final = timedelta(milliseconds=1)
UNHURRIED: Final = (
    "SET LOCAL statement_timeout = 0",
    "SET LOCAL idle_in_transaction_session_timeout = 0",
)
"""A report over years may take minutes, and who reads an export may be slow: neither keeps anybody waiting."""

WRITERS: Final = f"""
SELECT virtualtransaction FROM pg_locks
WHERE relation = '{SCHEMA}.book'::regclass
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
AND mode IN ('RowExclusiveLock', 'RowShareLock') AND granted AND pid IS DISTINCT FROM pg_backend_pid()
"""  # noqa: S608 - our own schema
"""Who has locked an account or is about to. The lock on the table comes first, and is held until the commit."""

POLL_SECONDS: Final = 0.001
POLL_SECONDS_MAX: Final = 0.1
"""How soon to ask for the writers again; each pause is twice the last."""

ELSEWHERE: Final = ("25006", "57P01", "57P02", "57P03")
"""The server has become a standby, or is going down: the next connection may find the one that has taken over."""


class _Upgradable:
    __slots__ = ("db", "snapshot", "writes")

    def __init__(self, db: Db) -> None:
        self.db, self.writes, self.snapshot = db, False, True

    def write(self) -> Db:
        # Nothing was written: committing keeps what the connection has prepared, rolling back would not.
        self.db.driver_sql("COMMIT")
        self.db.driver_sql(BEGIN_WRITING)
        self.writes = True
        return self.db


class PostgresStore(Store):
    """Books in a schema of their own in a PostgreSQL database. Safe for several threads, processes, and forks."""

    def __init__(
        self,
        database: URL | Engine,
        *,
        lock_seconds: float = LOCK_SECONDS,
        pool_size: int = POOL_SIZE,
    ) -> None:
        """Open a database by URL, or use the host's own engine, whose driver must be psycopg.

        `lock_seconds`: how long to wait for an account that somebody else has locked.

        Raises:
            InvalidRequest: the URL or the engine is of another driver.
        """
        self.owns_engine = not isinstance(database, Engine)
        self._holder = Holder()
        self._lock_seconds: Final = lock_seconds
        self.engine = (
            _checked(database)
            if isinstance(database, Engine)
            else own_engine(database, lock_seconds=lock_seconds, pool_size=pool_size)
        )

        self.starts_anew_in_children()

    @property
    def holder(self) -> Holder:
        return self._holder

    def after_fork(self) -> None:
        """Leave the connections to the parent, the host's too: a pool that was inherited is good for nobody."""
        abandon(self.engine.pool)
        self.engine.dispose(close=False)
        self._holder = Holder(self._holder.terms)

    def migrate(self, how: str, *, partitions: int = 0) -> None:
        checked_how(how)
        with translated(), self.engine.connect() as plain:
            connection = plain.execution_options(isolation_level="READ COMMITTED")
            if how == "check":
                schema.check(connection)
            elif schema.current_version(connection) != schema.WANTED or partitions:
                schema.upgrade(connection, partitions=partitions)
            connection.commit()

    @contextmanager
    def reading(self, *, unhurried: bool = False) -> Iterator[Db]:
        with (
            translated(),
            self._connection() as connection,
            self._begun(connection, BEGIN_READING) as db,
        ):
            for setting in UNHURRIED if unhurried else ():
                db.driver_sql(setting)
            yield db
            db.driver_sql("COMMIT")

    @contextmanager
    def upgradable(self, session: object = None) -> Iterator[_Upgradable | Joined]:
        if session is not None:
            with (
                translated(joined=True),
                joined(checked_session(session), kept=False) as transaction,
            ):
                transaction.db.budgets = Charging(self._holder)
                yield transaction
            return
        with (
            translated(),
            self._connection() as connection,
            self._begun(connection, BEGIN_READING) as db,
        ):
            yield _Upgradable(db)
            db.driver_sql("COMMIT")

    @contextmanager
    def writing(self, session: object = None, *, waits: bool | timedelta = True) -> Iterator[Db]:
        if session is not None:
            with (
                translated(joined=True),
                joined(checked_session(session), kept=True) as transaction,
            ):
                transaction.db.budgets = Charging(self._holder)
                yield transaction.db
            return
        with (
            translated(),
            self._connection() as connection,
            self._begun(connection, BEGIN_WRITING) as db,
        ):
            if waits is not True:
                most = max(1, (waits or MILLISECOND) // MILLISECOND)  # 0 would be for ever
                db.driver_sql(f"SET LOCAL lock_timeout = {most}")
            yield db
            db.driver_sql("COMMIT")

    def wait_for_writers(self) -> None:
        pause, give_up_at = POLL_SECONDS, monotonic_seconds() + self._lock_seconds
        with translated(), self._connection() as connection:
            cursor = connection.cursor()
            before = writers = set(cursor.execute(WRITERS).fetchall())
            while before & writers:
                if monotonic_seconds() > give_up_at:
                    raise AccountBusy("somebody went on writing past the timeout: try again")
                # Nothing tells when somebody else's transaction ends, but to look again.
                time.sleep(pause)
                pause = min(2 * pause, POLL_SECONDS_MAX)
                writers = set(cursor.execute(WRITERS).fetchall())

    def server(self) -> str:
        with translated(), self._connection() as connection:
            (version,) = connection.cursor().execute("SHOW server_version").fetchone()
        return f"PostgreSQL {version}"

    @contextmanager
    def _begun(self, connection: PoolProxiedConnection, how: str) -> Iterator[Db]:
        db = open_db(connection, self.engine.dialect)
        db.budgets = Charging(self._holder)
        try:
            db.driver_sql(how)
            if not self.owns_engine:
                db.driver_sql(LIMIT)
            yield db
        except BaseException:
            with suppress(Exception):  # what went wrong first is what is told
                db.close()
            raise
        db.close()

    @contextmanager
    def _connection(self) -> Iterator[PoolProxiedConnection]:
        """Take a connection from the pool. What is not committed is rolled back."""
        connection = connected(self.engine)
        driver: Any = connection.driver_connection
        usual = driver.autocommit
        if not usual:
            driver.autocommit = True
        usable = False
        try:
            yield connection
            usable = True
        except Exception as error:
            usable = sqlstate(error) not in ELSEWHERE
            raise
        finally:
            if not usable or not _ended(driver):
                connection.invalidate()
            elif not usual:
                driver.autocommit = False
            connection.close()


def _checked(engine: Engine) -> Engine:
    if engine.dialect.driver != "psycopg":
        raise InvalidRequest(
            f"the engine is on `{engine.dialect.driver}`, and books need one on psycopg: "
            "give the database's URL, or make the engine with postgresql+psycopg://"
        )
    return engine


def _ended(driver: psycopg.Connection[Any]) -> bool:
    """End whatever transaction is left open, and return whether the connection can be used again."""
    if driver.pgconn.transaction_status != TransactionStatus.IDLE:
        with suppress(psycopg.Error):
            driver.rollback()
    return driver.pgconn.transaction_status == TransactionStatus.IDLE
