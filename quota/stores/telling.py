"""A store that tells after each commit which books were written: what is known of them elsewhere is not all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from sqlalchemy import event
from sqlalchemy.orm import Session, scoped_session

from billing.sql import Db
from quota.budgets import Holder
from quota.stores.base import Store, Upgradable


class Listener(Protocol):
    """Whoever wants to know what was committed."""

    def committed(self, saved: Mapping[int, tuple[int, int]], notes: Mapping[int, object]) -> None:
        """Hear which books a transaction has written: (how far each reached before, and now)."""


class TellingStore(Store):
    """Another store, whose commits are told. In the host's session, when the host has committed."""

    def __init__(self, store: Store) -> None:
        """Tell of `store`. Set `listener` before anything is written."""
        self.store, self.engine, self.owns_engine = store, store.engine, store.owns_engine
        self.listener: Listener | None = None

    @property
    def holder(self) -> Holder | None:
        return self.store.holder

    def migrate(self, how: str) -> None:
        self.store.migrate(how)

    def reading(self, **how: Any) -> AbstractContextManager[Db]:
        return self.store.reading(**how)

    @contextmanager
    def upgradable(self, session: object = None) -> Iterator[Upgradable]:
        with self.store.upgradable(session) as transaction:
            yield transaction
        self._tell(session, transaction.db)

    @contextmanager
    def writing(self, session: object = None, *, waits: bool = True) -> Iterator[Db]:
        with self.store.writing(session, waits=waits) as db:
            yield db
        self._tell(session, db)

    def wait_for_writers(self) -> None:
        self.store.wait_for_writers()

    def server(self) -> str:
        return self.store.server()

    def close(self) -> None:
        self.store.close()

    def _tell(self, session: object, db: Db) -> None:
        if self.listener is None or not db.saved:
            return
        if session is None:
            self.listener.committed(db.saved, db.notes)
        else:
            when_committed(session, lambda: self._tell_of_books(db))

    def _tell_of_books(self, db: Db) -> None:
        # Whether the host has rolled back to a savepoint of its own is not known: of what a note says, nothing is.
        if self.listener is not None:
            self.listener.committed(db.saved, {})


def when_committed(
    session: object, tell: Callable[[], None], otherwise: Callable[[], None] | None = None
) -> None:
    """Call `tell` once the host has committed its whole transaction, or `otherwise` once it has rolled it back."""
    real: Any = session() if isinstance(session, scoped_session) else session

    def done() -> None:
        for name, listener in (("after_commit", committed), ("after_rollback", rolled_back)):
            event.remove(real, name, listener)

    def committed(_: Session) -> None:
        if not real.in_nested_transaction():
            done()
            tell()

    def rolled_back(_: Session) -> None:
        if not real.in_nested_transaction():
            done()
            if otherwise is not None:
                otherwise()

    event.listen(real, "after_commit", committed)
    event.listen(real, "after_rollback", rolled_back)
