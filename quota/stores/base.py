"""What the engine asks of a database: transactions that read, that may turn to writing, and that write.

How a database begins them, what its locks are, and what its driver's errors mean differs from one to the next, and
is said by the module of each. The SQL within is the same.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Final, Protocol

from sqlalchemy import Dialect, Engine
from sqlalchemy.orm import Session, scoped_session

from billing.sql import Db
from policies.errors import AccountBusy, InvalidRequest
from policies.suggest import shown
from quota.budgets import Holder
from quota.forks import Forkable

USE_FILE: Final = "write one such as sqlite:///comptroller.db or postgresql://user@host/database"
SAVEPOINT: Final = "comptroller"
"""What makes each of our calls all or nothing inside the host's transaction."""

HostsOwn = Session | scoped_session[Session]


class Undone(AccountBusy):
    """The database undid a transaction of ours, to end a deadlock or an anomaly: it can be made again at once."""


class Upgradable(Protocol):
    """A transaction that reads, and may turn into one that writes: what it has read by then may be stale."""

    db: Db
    snapshot: bool
    """Whether all that is read before `write` is of one instant. Otherwise the account is locked before it is read."""

    def write(self) -> Db:
        """Begin to write."""


class Store(Forkable, ABC):
    """A database that books are kept in. Safe for several threads and several processes."""

    engine: Engine
    owns_engine: bool
    """Whether the engine is ours to close; otherwise it is the host's."""

    @property
    def holder(self) -> Holder | None:
        """Who leases blocks of budgets here; None where budgets are plain rows."""
        return None

    @abstractmethod
    def migrate(self, how: str, *, partitions: int = 0) -> None:
        """Bring the schema up to date (`auto`), or make sure that it is (`check`).

        `partitions`: how many hash partitions the tables of books are made with; 0: none.

        Raises:
            InvalidRequest: `how` is neither, or there can be no partitions here, or not so many.
            SchemaMismatch: the database has another schema.
            StoreUnavailable: the database cannot be opened or written.
        """

    @abstractmethod
    def reading(self, *, unhurried: bool = False) -> AbstractContextManager[Db]:
        """Open a transaction that reads one snapshot and takes no write lock. `unhurried`: it may take its time.

        Raises:
            StoreUnavailable: the database cannot be read.
        """

    @abstractmethod
    def upgradable(self, session: object = None) -> AbstractContextManager[Upgradable]:
        """Open a transaction that reads, and may begin to write, or a savepoint in the host's. Kept if it did.

        Raises:
            InvalidRequest: the session is no SQLAlchemy session, or an AsyncSession without AsyncComptroller.
            AccountBusy: somebody else held the lock past the timeout.
            StaleTransaction: the host's transaction had read before it wrote.
            StoreUnavailable: the database cannot be read or written.
        """

    @abstractmethod
    def writing(
        self, session: object = None, *, waits: bool | timedelta = True
    ) -> AbstractContextManager[Db]:
        """Open a transaction that writes, or a savepoint in the host's.

        `waits`: whether for a lock that somebody else holds; a length of time: no longer than that.

        Raises:
            InvalidRequest: the session is no SQLAlchemy session, or an AsyncSession without AsyncComptroller.
            AccountBusy: somebody else held the lock past the timeout.
            StaleTransaction: the host's transaction had read before it wrote.
            StoreUnavailable: the database cannot be written.
        """

    def tell(self, db: Db) -> None:
        """Tell whoever listens what one of several who shared a transaction has written, once that is committed."""

    @abstractmethod
    def wait_for_writers(self) -> None:
        """Wait until all have committed who read their clock before now: what is past does not change after this.

        Raises:
            AccountBusy: somebody was not done within the timeout.
        """

    @abstractmethod
    def server(self) -> str:
        """Return what database this is, with its version, for people.

        Raises:
            StoreUnavailable: it cannot be asked.
        """

    def close(self) -> None:
        """Close our own connections; the host's engine stays as it is."""
        if self.owns_engine:
            self.engine.dispose()


def checked_how(how: str) -> None:
    """Make sure that `how` is a way to migrate.

    Raises:
        InvalidRequest: it is not.
    """
    if how not in ("auto", "check"):
        raise InvalidRequest(f"migrate must be `auto` or `check`, not {shown(how)}")


def checked_session(session: object) -> HostsOwn:
    """Return the host's session.

    Raises:
        InvalidRequest: it is no SQLAlchemy session, or an AsyncSession without AsyncComptroller.
    """
    if not isinstance(session, Session | scoped_session):
        raise InvalidRequest(
            f"session must be a SQLAlchemy Session, not `{type(session).__name__}`: "
            "an AsyncSession goes with AsyncComptroller"
        )
    return session


def same_kind(dialect: Dialect, kind: str) -> None:
    """Make sure that the host's session is on a database of the kind that the books are on.

    Raises:
        InvalidRequest: it is not.
    """
    if dialect.name != kind:
        raise InvalidRequest(f"the session is on {dialect.name}, and the books are on {kind}")
