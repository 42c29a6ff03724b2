"""Inside the host's transaction on PostgreSQL, behind a savepoint: what is the host's is neither kept nor undone.

A host that sets no timeouts of its own would wait for a locked account for ever. Ours hold within the savepoint
and are taken back at its end; they are told apart from the host's own by an odd millisecond.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from sqlalchemy.engine.interfaces import DBAPICursor

from billing.pipeline import open_db
from billing.sql import Db
from quota.stores.base import SAVEPOINT, HostsOwn, same_kind
from quota.stores.postgres_engine import LOCK_SECONDS, STATEMENT_SECONDS
from quota.stores.postgres_errors import sqlstate

_OURS: Final = {
    "lock_timeout": f"{LOCK_SECONDS * 1000 + 1}ms",
    "statement_timeout": f"{STATEMENT_SECONDS * 1000 + 1}ms",
}


def _replaced(before: str | None, after: str | None) -> str:
    """Return a statement that sets each timeout that is `before` to `after`; None: to ours."""
    changes = (
        f"CASE WHEN current_setting('{name}') = '{before or ours}'"
        f" THEN set_config('{name}', '{after or ours}', true) END"
        for name, ours in _OURS.items()
    )
    return f"SELECT {', '.join(changes)}"


LIMIT: Final = _replaced("0", None)
LET_GO: Final = _replaced(None, "0")


ROLL_BACK: Final = f"ROLLBACK TO SAVEPOINT {SAVEPOINT}"
RELEASE: Final = f"RELEASE SAVEPOINT {SAVEPOINT}"
NOT_BEGUN: Final = ("25P01", "25P02")
"""There was no transaction to join, or a failed one: our savepoint is not there."""


class Joined:
    """A savepoint in the host's transaction, where others may commit between two statements of ours."""

    __slots__ = ("db", "kept", "snapshot")

    def __init__(self, db: Db, *, kept: bool) -> None:
        """`kept`: what is done is kept even where `write` is not called."""
        self.db, self.kept, self.snapshot = db, kept, False

    def write(self) -> Db:
        """Begin to write: what is done is kept."""
        self.kept = True
        return self.db


@contextmanager
def joined(session: HostsOwn, *, kept: bool) -> Iterator[Joined]:
    """Work in the host's transaction. What is not kept leaves no row, and no lock."""
    connection = session.connection()
    same_kind(connection.dialect, "postgresql")
    db = open_db(connection.connection, connection.dialect)
    transaction = Joined(db, kept=kept)
    try:
        db.driver_sql(f"SAVEPOINT {SAVEPOINT}")
        db.driver_sql(LIMIT)
        yield transaction
        for ending in (LET_GO, RELEASE) if transaction.kept else (ROLL_BACK, RELEASE):
            db.driver_sql(ending)
        db.close()
    except BaseException as error:
        # What went wrong first is what is told, also where the connection is gone.
        with suppress(Exception):
            db.close()
        if sqlstate(error) not in NOT_BEGUN:
            with suppress(Exception):
                _undo(connection.connection.cursor())
        raise


def _undo(cursor: DBAPICursor) -> None:
    cursor.execute(ROLL_BACK)
    cursor.execute(RELEASE)
    cursor.close()
