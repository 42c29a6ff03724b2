"""Books on SQLite: connections, transactions and what their errors mean.

A transaction of ours begins with BEGIN IMMEDIATE if it writes, so that it waits for its turn before
it reads anything, and with BEGIN if it only reads, so that it reads one snapshot and takes no lock. In the
host's session we never commit nor roll back: a savepoint makes each of our calls all or nothing inside the
host's transaction.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import PoolProxiedConnection, QueuePool, StaticPool

from billing import schema
from billing.sql import Db
from billing.tables import PREFIX
from policies.errors import (
    AccountBusy,
    InvalidRequest,
    SchemaMismatch,
    StaleTransaction,
    StoreUnavailable,
)
from quota.forks import abandon
from quota.stores.base import SAVEPOINT, HostsOwn, Store, checked_how, checked_session, same_kind

BUSY_SECONDS: Final = 10
MILLISECOND: Final = timedelta(milliseconds=1)
POOL_SIZE: Final = 8
POOL_OVERFLOW: Final = 24
BUSY_SNAPSHOT: Final = 517
GUARDS: Final = ("foreign_keys", "recursive_triggers")
"""References are checked, and a row that REPLACE would delete on its way is refused as any deletion is."""
BEGIN_READING: Final = "BEGIN"
TAKE_LOCK: Final = f"UPDATE {PREFIX}book SET seq = seq WHERE id = 0"  # noqa: S608 - our own prefix
BEGIN_WRITING: Final = "BEGIN IMMEDIATE"
UNUSABLE: Final = frozenset(
    (
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_READONLY,
    )
)


class _Upgradable:
    __slots__ = ("_driver", "db", "snapshot", "writes")

    def __init__(self, db: Db, driver: PoolProxiedConnection) -> None:
        self.db, self._driver, self.writes, self.snapshot = db, driver, False, True

    def write(self) -> Db:
        self._driver.rollback()
        self.db.driver_sql(BEGIN_WRITING)
        self.writes = True
        return self.db


class _Joined:
    """In the host's session, which holds the write lock from the first call on."""

    __slots__ = ("db", "snapshot")

    def __init__(self, db: Db) -> None:
        self.db, self.snapshot = db, True

    def write(self) -> Db:
        return self.db


class SqliteStore(Store):
    """Books in an SQLite file, or in memory. Safe for several threads and several processes."""

    def __init__(self, database: URL | Engine, *, busy_seconds: float = BUSY_SECONDS) -> None:
        """Open a database by URL, or use the host's own engine.

        Raises:
            InvalidRequest: the URL names an async driver.
        """
        self.owns_engine = not isinstance(database, Engine)
        self.engine = database if isinstance(database, Engine) else _engine(database, busy_seconds)
        self._turn: AbstractContextManager[Any] = self._turns()
        self.starts_anew_in_children()

    def before_fork(self) -> None:
        """Close what is idle: SQLite counts locks by process, and a child would count its parent's as its own."""
        if self.owns_engine and isinstance(self.engine.pool, QueuePool):
            self.engine.dispose()

    def after_fork(self) -> None:
        """Leave what was in use to the parent. A database in memory is a copy."""
        self._turn = self._turns()
        if isinstance(self.engine.pool, QueuePool):
            abandon(self.engine.pool)
            self.engine.dispose(close=False)

    def _turns(self) -> AbstractContextManager[Any]:
        """Return what lets threads take turns where a database in memory is one connection."""
        return threading.RLock() if isinstance(self.engine.pool, StaticPool) else nullcontext()

    def migrate(self, how: str, *, partitions: int = 0) -> None:
        checked_how(how)
        with self._turn, translated(), self.engine.connect() as connection:
            if how == "check":
                schema.check(connection)
                return
            if schema.current_version(connection) == schema.WANTED and not partitions:
                return
            connection.rollback()
            connection.begin()
            # A host's engine may begin by itself, on SQLAlchemy's event.
            driver: Any = connection.connection.driver_connection
            if not driver.in_transaction:
                connection.exec_driver_sql(BEGIN_WRITING)
            schema.upgrade(connection, partitions=partitions)
            connection.commit()

    @contextmanager
    def reading(self, *, unhurried: bool = False) -> Iterator[Db]:  # noqa: ARG002 - it has no timeouts
        with self._turn, translated(), self._begun(BEGIN_READING) as driver:
            db = Db(driver, self.engine.dialect)
            try:
                yield db
            finally:
                db.close()

    @contextmanager
    def upgradable(self, session: object = None) -> Iterator[_Upgradable | _Joined]:
        if session is not None:
            with self.writing(session) as db:
                yield _Joined(db)
            return
        with self._turn, translated(), self._begun(BEGIN_READING) as driver:
            transaction = _Upgradable(Db(driver, self.engine.dialect), driver)
            try:
                yield transaction
                if transaction.writes:
                    driver.commit()
            finally:
                transaction.db.close()

    @contextmanager
    def writing(self, session: object = None, *, waits: bool | timedelta = True) -> Iterator[Db]:
        if session is not None:
            with translated(), _joined(checked_session(session)) as db:
                yield db
            return
        with self._turn, translated(), self._begun(BEGIN_WRITING, waits=waits) as driver:
            db = Db(driver, self.engine.dialect)
            try:
                yield db
                driver.commit()
            finally:
                db.close()

    @contextmanager
    def _begun(
        self, how: str, *, waits: bool | timedelta = True
    ) -> Iterator[PoolProxiedConnection]:
        """Take a driver's connection from the pool and begin a transaction. What is not committed is rolled back."""
        driver = self.engine.raw_connection()
        try:
            with (
                nullcontext() if self.owns_engine else _guarded(driver),
                nullcontext() if waits is True else _impatient(driver, waits or timedelta(0)),
            ):
                driver.cursor().execute(how)
                try:
                    yield driver
                finally:
                    driver.rollback()
        finally:
            driver.close()

    def wait_for_writers(self) -> None:
        with suppress(StoreUnavailable), self.writing():
            pass  # where nobody can write, there is nobody to wait for

    def server(self) -> str:
        return f"SQLite {sqlite3.sqlite_version}"


@contextmanager
def translated() -> Iterator[None]:
    """Turn the driver's errors into ours.

    Raises:
        AccountBusy: somebody else held the lock past the timeout.
        StaleTransaction: the host's transaction had read before it wrote.
        StoreUnavailable: the database cannot be read or written.
        SchemaMismatch: our tables are not there.
    """
    try:
        yield
    except sqlite3.OperationalError as error:
        raise _meaning(error) from error
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in UNUSABLE:
            raise StoreUnavailable(f"the database cannot be used: {error}") from error
        raise
    except PoolTimeout as error:
        raise AccountBusy("all connections to the database are in use: try again") from error
    except OperationalError as error:
        raise (
            _meaning(error.orig) if isinstance(error.orig, sqlite3.OperationalError) else error
        ) from error
    except DBAPIError as error:
        if (
            isinstance(error.orig, sqlite3.DatabaseError)
            and error.orig.sqlite_errorcode & 0xFF in UNUSABLE
        ):
            raise StoreUnavailable(f"the database cannot be used: {error.orig}") from error
        raise


def _meaning(error: sqlite3.OperationalError) -> Exception:
    code = getattr(error, "sqlite_errorcode", 0)
    if code == BUSY_SNAPSHOT:
        return StaleTransaction(
            "the transaction had read before the account was locked: retry the whole transaction"
        )
    if code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return AccountBusy("the database stayed locked past the timeout: try again")
    if code & 0xFF in UNUSABLE:
        return StoreUnavailable(f"the database cannot be used: {error}")
    if f"no such table: {PREFIX}" in str(error):
        # Of the host's session: what we open ourselves has been looked at.
        return SchemaMismatch(
            f"{error}: join a session of the database that was opened, or run `comptroller db upgrade` on it"
        )
    return error


def _engine(url: URL, busy_seconds: float) -> Engine:
    if url.get_dialect().is_async:
        raise InvalidRequest(
            f"`{url.drivername}` is an async driver: write sqlite:///..., also for AsyncComptroller"
        )
    in_memory = url.database in (None, "", ":memory:")
    folder = Path(str(url.database)).parent
    if not in_memory and not str(url.database).startswith("file:") and not folder.is_dir():
        raise StoreUnavailable(f"the database cannot be used: there is no folder `{folder}`")
    options: dict[str, Any] = (
        {"poolclass": StaticPool}
        if in_memory
        else {
            "pool_size": POOL_SIZE,
            "max_overflow": POOL_OVERFLOW,
        }
    )
    engine = create_engine(
        url,
        connect_args={"check_same_thread": False, "timeout": busy_seconds, "isolation_level": None},
        **options,
    )
    event.listen(engine, "connect", _prepare if not in_memory else _prepare_memory)
    return engine


def _prepare(connection: Any, _: Any) -> None:
    # FULL: a grant that was answered survives a power cut. WAL: readers never wait for the writer.
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "cache_size=-16000"):
        connection.execute(f"PRAGMA {pragma}")
    _prepare_memory(connection, _)


def _prepare_memory(connection: Any, _: Any) -> None:
    for guard in GUARDS:
        connection.execute(f"PRAGMA {guard}=ON")


@contextmanager
def _guarded(driver: PoolProxiedConnection) -> Iterator[None]:
    """Switch the guards on while we use a connection of the host's engine, and leave it as it was."""
    cursor = driver.cursor()
    off = []
    for guard in GUARDS:
        cursor.execute(f"PRAGMA {guard}")
        if not (cursor.fetchone() or (0,))[0]:
            off.append(guard)
            cursor.execute(f"PRAGMA {guard}=ON")
    try:
        yield
    finally:
        for guard in off:
            cursor.execute(f"PRAGMA {guard}=OFF")
        cursor.close()


@contextmanager
def _impatient(driver: PoolProxiedConnection, most: timedelta) -> Iterator[None]:
    """Let a connection not wait longer than this for locks while we use it."""
    cursor = driver.cursor()
    cursor.execute("PRAGMA busy_timeout")
    (usual,) = cursor.fetchone() or (0,)
    cursor.execute(f"PRAGMA busy_timeout={most // MILLISECOND}")
    try:
        yield
    finally:
        cursor.execute(f"PRAGMA busy_timeout={usual}")
        cursor.close()


@contextmanager
def _joined(session: HostsOwn) -> Iterator[Db]:
    """Work inside the host's transaction, behind a savepoint of our own."""
    connection = session.connection()
    same_kind(connection.dialect, "sqlite")
    db = Db(connection.connection, connection.dialect)
    driver: Any = connection.connection.driver_connection
    cursor = connection.connection.cursor()
    try:
        # A savepoint outside a transaction would commit when it is released. The driver opens none by itself.
        if not getattr(driver, "in_transaction", True):
            cursor.execute(BEGIN_WRITING)
        cursor.execute(f"SAVEPOINT {SAVEPOINT}")
        try:
            # Take the write lock before the clock is read: what is recorded later is never dated earlier.
            cursor.execute(TAKE_LOCK)
            yield db
        except BaseException:
            cursor.execute(f"ROLLBACK TO {SAVEPOINT}")
            cursor.execute(f"RELEASE {SAVEPOINT}")
            raise
        cursor.execute(f"RELEASE {SAVEPOINT}")
    finally:
        cursor.close()
        db.close()
