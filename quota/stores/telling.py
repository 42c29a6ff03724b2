"""A store that tells after each commit which books were written: what is known of them elsewhere is not all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, Protocol

from sqlalchemy import event
from sqlalchemy.orm import Session, SessionTransaction, scoped_session

from billing.sql import Db
from quota.budgets import Holder
from quota.stores.base import Store, Upgradable

WAITING: Final = "comptroller.told_at_the_end"
"""Where a session keeps what is to be called when its transaction ends."""

Saved = Mapping[int, tuple[int, int]]


class Listener(Protocol):
    """Whoever wants to know what was committed. Neither method may raise, or wait for anything."""

    def committed(self, saved: Saved, notes: Mapping[int, object]) -> None:
        """Hear which books a transaction has written: (how far each reached before, and now)."""

    def joined(self, saved: Saved) -> None:
        """Hear the same of a host's transaction, which may have undone some of it at savepoints of its own."""


class TellingStore(Store):
    """Another store, whose commits are told. In the host's session, when the host has committed."""

    def __init__(self, store: Store) -> None:
        """Tell of `store`. Set `listener` before anything is written."""
        self.store, self.engine, self.owns_engine = store, store.engine, store.owns_engine
        self.listener: Listener | None = None

    @property
    def holder(self) -> Holder | None:
        return self.store.holder

    def migrate(self, how: str, *, partitions: int = 0) -> None:
        self.store.migrate(how, partitions=partitions)

    def reading(self, **how: Any) -> AbstractContextManager[Db]:
        return self.store.reading(**how)

    @contextmanager
    def upgradable(self, session: object = None) -> Iterator[Upgradable]:
        with self.store.upgradable(session) as transaction:
            yield transaction
        self._tell(session, transaction.db)

    @contextmanager
    def writing(self, session: object = None, *, waits: bool | timedelta = True) -> Iterator[Db]:
        with self.store.writing(session, waits=waits) as db:
            yield db
        self._tell(session, db)

    def tell(self, db: Db) -> None:
        self._tell(None, db)

    def wait_for_writers(self) -> None:
        self.store.wait_for_writers()

    def server(self) -> str:
        return self.store.server()

    def close(self) -> None:
        self.store.close()

    def _tell(self, session: object, db: Db) -> None:
        listener = self.listener
        if listener is None or not db.saved:
            return
        if session is None:
            listener.committed(db.saved, db.notes)
        else:
            when_committed(session, lambda: listener.joined(db.saved))


@dataclass(slots=True)
class _Waiting:
    """What is to be called when a session's transaction ends, and whether it was committed."""

    calls: list[tuple[Callable[[], None], Callable[[], None] | None]] = field(default_factory=list)
    committed: bool = False


def when_committed(
    session: object, tell: Callable[[], None], otherwise: Callable[[], None] | None = None
) -> None:
    """Call `tell` once the host has committed its whole transaction, or `otherwise` once that has ended without.

    Neither may raise: the host's own commit would seem to have failed.
    """
    real: Any = session() if isinstance(session, scoped_session) else session
    waiting = real.info.get(WAITING)
    if waiting is None:
        # Listeners stay: a listener that removes itself breaks the round of calls in which it is called.
        waiting = real.info[WAITING] = _Waiting()
        event.listen(real, "after_commit", _note_commit)
        event.listen(real, "after_transaction_end", _call)
    waiting.calls.append((tell, otherwise))


def _note_commit(session: Session) -> None:
    # It is also told when a savepoint is released.
    if not session.in_nested_transaction():
        session.info[WAITING].committed = True


def _call(session: Session, transaction: SessionTransaction) -> None:
    """Runs at every end of a transaction, also where the session is closed without commit or rollback."""
    if transaction.parent is not None:
        return
    waiting: _Waiting = session.info[WAITING]
    calls, committed = waiting.calls, waiting.committed
    waiting.calls, waiting.committed = [], False
    for tell, otherwise in calls:
        if committed:
            tell()
        elif otherwise is not None:
            otherwise()
