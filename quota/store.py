"""The database: connections, transactions and what their errors mean.

A transaction of ours on SQLite begins with BEGIN IMMEDIATE if it writes, so that it waits for its turn before
it reads anything, and with BEGIN if it only reads, so that it reads one snapshot and takes no lock. In the
host's session we never commit nor roll back: a savepoint makes each of our calls all or nothing inside the
host's transaction.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any, Final

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session, scoped_session
from sqlalchemy.pool import PoolProxiedConnection, StaticPool

from billing import schema
from billing.sql import Db
from billing.tables import PREFIX
from policies.errors import AccountBusy, InvalidRequest, StaleTransaction, StoreUnavailable
from policies.suggest import shown

BUSY_SECONDS: Final = 10
POOL_SIZE: Final = 8
POOL_OVERFLOW: Final = 24
BUSY_SNAPSHOT: Final = 517
SAVEPOINT: Final = "comptroller"
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


class Upgradable:
    """A transaction that reads, and may turn into one that writes: what it has read by then is let go."""

    __slots__ = ("_driver", "db", "writes")

    def __init__(self, db: Db, driver: PoolProxiedConnection) -> None:
        """Start out reading."""
        self.db, self._driver, self.writes = db, driver, False

    def write(self) -> Db:
        """Begin to write, once the lock can be had. Whatever was read may be stale."""
        self._driver.rollback()
        self.db.driver_sql(BEGIN_WRITING)
        self.writes = True
        return self.db


class Store:
    """A database that books are kept in. Safe for several threads and several processes."""

    def __init__(self, database: str | Engine, *, busy_seconds: float = BUSY_SECONDS) -> None:
        """Open a database by URL, or use the host's own engine.

        Raises:
            InvalidRequest: the URL is not one, or names a database that is not supported.
        """
        self.owns_engine: Final = not isinstance(database, Engine)
        self.engine: Final = (
            database if isinstance(database, Engine) else _engine(database, busy_seconds)
        )
        if self.engine.dialect.name != "sqlite":
            raise InvalidRequest(
                f"database `{self.engine.dialect.name}` is not supported: use sqlite:///file.db"
            )
        # A database in memory is one connection: threads take turns.
        self._turn: AbstractContextManager[Any] = (
            threading.RLock() if isinstance(self.engine.pool, StaticPool) else nullcontext()
        )

    def migrate(self, how: str) -> None:
        """Bring the schema up to date (`auto`), or make sure that it is (`check`).

        Raises:
            InvalidRequest: `how` is neither.
            SchemaMismatch: the database has another schema.
            StoreUnavailable: the database cannot be opened or written.
        """
        if how not in ("auto", "check"):
            raise InvalidRequest(f"migrate must be `auto` or `check`, not {shown(how)}")
        with self._turn, translated(), self.engine.connect() as connection:
            if how == "check":
                schema.check(connection)
                return
            if schema.current_version(connection) == schema.WANTED:
                return
            connection.rollback()
            connection.begin()
            # A host's engine may begin by itself, on SQLAlchemy's event.
            driver: Any = connection.connection.driver_connection
            if not driver.in_transaction:
                connection.exec_driver_sql(BEGIN_WRITING)
            schema.upgrade(connection)
            connection.commit()

    @contextmanager
    def reading(self) -> Iterator[Db]:
        """Open a transaction that reads one snapshot and takes no write lock.

        Raises:
            StoreUnavailable: the database cannot be read.
        """
        with self._turn, translated(), self._begun(BEGIN_READING) as driver:
            db = Db(driver, self.engine.dialect)
            try:
                yield db
            finally:
                db.close()

    @contextmanager
    def upgradable(self) -> Iterator[Upgradable]:
        """Open a transaction that reads, and may begin to write. Committed if it did.

        Raises:
            AccountBusy: somebody else held the lock past the timeout.
            StoreUnavailable: the database cannot be read or written.
        """
        with self._turn, translated(), self._begun(BEGIN_READING) as driver:
            transaction = Upgradable(Db(driver, self.engine.dialect), driver)
            try:
                yield transaction
                if transaction.writes:
                    driver.commit()
            finally:
                transaction.db.close()

    @contextmanager
    def writing(self, session: object = None, *, waits: bool = True) -> Iterator[Db]:
        """Open a transaction that writes, or a savepoint in the host's. `waits`: for a lock that somebody else holds.

        Raises:
            InvalidRequest: the session is no SQLAlchemy session, or an AsyncSession without AsyncComptroller.
            AccountBusy: somebody else held the lock past the timeout.
            StaleTransaction: the host's transaction had read before it wrote.
            StoreUnavailable: the database cannot be written.
        """
        if session is not None:
            if not isinstance(session, Session | scoped_session):
                raise InvalidRequest(
                    f"session must be a SQLAlchemy Session, not `{type(session).__name__}`: "
                    "an AsyncSession goes with AsyncComptroller"
                )
            with translated(), _joined(session) as db:
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
    def _begun(self, how: str, *, waits: bool = True) -> Iterator[PoolProxiedConnection]:
        """Take a driver's connection from the pool and begin a transaction. What is not committed is rolled back."""
        driver = self.engine.raw_connection()
        try:
            with (
                nullcontext() if self.owns_engine else _guarded(driver),
                nullcontext() if waits else _impatient(driver),
            ):
                driver.cursor().execute(how)
                try:
                    yield driver
                finally:
                    driver.rollback()
        finally:
            driver.close()

    def wait_for_writers(self) -> None:
        """Wait until all have committed who read their clock before now: what is past does not change after this.

        Raises:
            AccountBusy: somebody held the lock past the timeout.
        """
        with suppress(StoreUnavailable), self.writing():
            pass  # where nobody can write, there is nobody to wait for

    def close(self) -> None:
        """Close our own connections; the host's engine stays as it is."""
        if self.owns_engine:
            self.engine.dispose()


@contextmanager
def translated() -> Iterator[None]:
    """Turn the driver's errors into ours.

    Raises:
        AccountBusy: somebody else held the lock past the timeout.
        StaleTransaction: the host's transaction had read before it wrote.
        StoreUnavailable: the database cannot be read or written.
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
    return error


def _engine(url: str, busy_seconds: float) -> Engine:
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise InvalidRequest(
            f"{shown(url)} is not a database URL: write one such as sqlite:///comptroller.db"
        ) from None
    if parsed.get_backend_name() != "sqlite":
        name = parsed.get_backend_name()
        raise InvalidRequest(
            f"database `{name}` is not supported: write one such as sqlite:///comptroller.db"
        )
    if parsed.get_dialect().is_async:
        raise InvalidRequest(
            f"`{parsed.drivername}` is an async driver: write sqlite:///..., also for AsyncComptroller"
        )
    in_memory = parsed.database in (None, "", ":memory:")
    options: dict[str, Any] = (
        {"poolclass": StaticPool}
        if in_memory
        else {
            "pool_size": POOL_SIZE,
            "max_overflow": POOL_OVERFLOW,
        }
    )
    engine = create_engine(
        parsed,
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
def _impatient(driver: PoolProxiedConnection) -> Iterator[None]:
    """Let a connection not wait for locks while we use it."""
    cursor = driver.cursor()
    cursor.execute("PRAGMA busy_timeout")
    (usual,) = cursor.fetchone() or (0,)
    cursor.execute("PRAGMA busy_timeout=0")
    try:
        yield
    finally:
        cursor.execute(f"PRAGMA busy_timeout={usual}")
        cursor.close()


@contextmanager
def _joined(session: Session | scoped_session[Session]) -> Iterator[Db]:
    """Work inside the host's transaction, behind a savepoint of our own."""
    connection = session.connection()
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
