"""What PostgreSQL's errors mean to a caller, by their SQLSTATE, whichever driver reports them.

The server's own words are kept, on one line. What no caller can do anything about stays as it is: a row that the
database refuses is a bug of ours, and must be seen as one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from policies.errors import (
    AccountBusy,
    ComptrollerError,
    InvalidRequest,
    SchemaMismatch,
    StaleTransaction,
    StoreUnavailable,
)
from policies.suggest import one_line
from quota.stores.base import Undone

SAID_MAX: Final = 160
ASYNCPG_LOST: Final = "AsyncAdapt_asyncpg_dbapi.InterfaceError"
"""How SQLAlchemy reports that a connection of asyncpg is closed: asyncpg gives no code for it."""

NO_TABLES: Final = ("42P01", "3F000", "42703")
UNUSABLE: Final = ("08", "28", "3D", "42501", "53", "54", "57", "58", "F0", "XX")
"""Codes, and the beginnings of codes, of a server that is away, full or broken, or lets us not in."""


@contextmanager
def translated(*, joined: bool = False) -> Iterator[None]:
    """Turn the drivers' errors into ours. `joined`: in the host's transaction.

    Raises:
        AccountBusy: somebody else held the lock past the timeout.
        StaleTransaction: the host's transaction had read before the account was locked.
        StoreUnavailable: the database cannot be read or written.
        SchemaMismatch: our tables are not there.
        InvalidRequest: the host's session has no transaction that we could join.
    """
    try:
        yield
    except ComptrollerError:
        raise
    except PoolTimeout as error:
        raise AccountBusy("all connections to the database are in use: try again") from error
    except Exception as error:
        meaning = meaning_of(error, joined=joined)
        if meaning is None:
            raise
        raise meaning from error


def meaning_of(error: Exception, *, joined: bool) -> ComptrollerError | None:
    """Return what an error of a driver means; None where it is none that callers can do anything about."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    said = one_line(str(cause).strip().partition("\n")[0], SAID_MAX)
    state = sqlstate(cause)
    if state is None:
        lost = f"the database cannot be reached: {said.removeprefix('connection failed: ')}"
        return StoreUnavailable(lost) if _is_lost(cause) else None
    if state in ("40001", "40P01"):
        return _undone(state, joined=joined)
    match state:
        case "55P03":
            return AccountBusy("the account stayed locked past the timeout: try again")
        case "57014":
            return StoreUnavailable(f"the database took too long: {said}")
        case "25006":
            return StoreUnavailable(f"the database can only be read: {said}")
        case "25P01":
            return InvalidRequest(
                "the session has no transaction to join: its connection is in autocommit"
            )
        case "25P02":
            return InvalidRequest("the session's transaction has failed before: roll it back first")
        case _ if state in NO_TABLES:
            return SchemaMismatch(f"{said}: run `comptroller db upgrade`")
        case _ if state.startswith(UNUSABLE):
            return StoreUnavailable(f"the database cannot be used: {said}")
        case _:
            return None


def sqlstate(error: BaseException) -> str | None:
    """Return PostgreSQL's code for an error of psycopg, or of asyncpg behind SQLAlchemy; None where it has none."""
    state = getattr(error, "sqlstate", None)
    return state if isinstance(state, str) else None


def _undone(state: str, *, joined: bool) -> ComptrollerError:
    if not joined:
        return Undone("the database undid the transaction, which crossed another: try again")
    if state == "40P01":
        return AccountBusy("the transaction was part of a deadlock: retry the whole transaction")
    return StaleTransaction(
        "the transaction had read before the account was locked: retry the whole transaction"
    )


def _is_lost(error: BaseException) -> bool:
    """Whether there is no server to talk to, or none any more."""
    return (
        isinstance(error, psycopg.OperationalError | psycopg.InterfaceError | OSError)
        or type(error).__qualname__ == ASYNCPG_LOST
    )
