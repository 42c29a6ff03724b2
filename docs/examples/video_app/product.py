"""What the web app and the worker share: the product's own table, and Comptroller in the same database.

A transaction that changes a job takes the job's row first, by an UPDATE, and the account second, by a call of
Comptroller. So no two of them wait for each other in a circle, and the UPDATE says who was first.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from sqlalchemy import ColumnElement, Engine, create_engine, event, update
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from quota import AccountBusy, Comptroller, StaleTransaction, StripeSettings

POLICIES = Path(__file__).with_name("policies.yaml")
DATABASE = "sqlite:///video_app.db"
ATTEMPTS = 5
PRAGMAS = (
    "journal_mode=WAL",  # readers never wait for the writer
    "synchronous=FULL",  # a commit survives a power cut
    "foreign_keys=ON",  # the database refuses wrong rows
    "recursive_triggers=ON",  # REPLACE is refused as DELETE is
    "busy_timeout=10000",  # milliseconds to wait for the lock
)

State = Literal["queued", "running", "done", "failed", "cancelled", "expired"]
OPEN = ("queued", "running")
Answer = TypeVar("Answer")


class Base(DeclarativeBase):
    """The product's own tables. Comptroller's have names and migrations of their own."""


class Job(Base):
    """A video that was asked for, and the grant that it was admitted with. They are committed together."""

    __tablename__ = "job"
    id: Mapped[int] = mapped_column(primary_key=True)
    account: Mapped[str]
    grant_id: Mapped[str] = mapped_column(unique=True)
    prompt: Mapped[str]
    state: Mapped[str] = mapped_column(index=True)


@dataclass(frozen=True)
class Product:
    """The product's database, and Comptroller on it."""

    engine: Engine
    comptroller: Comptroller

    def in_transaction(self, work: Callable[[Session], Answer]) -> Answer:
        """Do all of it, or nothing. Who met somebody else begins again: the keys of grants make that safe."""
        for _ in range(ATTEMPTS - 1):
            try:
                return self._once(work)
            except (StaleTransaction, AccountBusy):
                continue
        return self._once(work)

    def _once(self, work: Callable[[Session], Answer]) -> Answer:
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            return work(session)


def move(session: Session, which: ColumnElement[bool], before: State, after: State) -> Job | None:
    """Bring a job from one state into another, and lock its row. None: no such job is in that state."""
    change = update(Job).where(which, Job.state == before).values(state=after).returning(Job)
    return session.scalars(change).one_or_none()


@contextmanager
def opened(
    database: str | None = None,
    clock: Callable[[], datetime] | None = None,
    stripe: StripeSettings | None = None,
) -> Iterator[Product]:
    """Open the product: once per process. What is not given comes from the environment; tests give it."""
    engine = create_engine(database or os.environ.get("VIDEO_APP_DATABASE", DATABASE))
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare)
    try:
        Base.metadata.create_all(engine)
        redis = os.environ.get("COMPTROLLER_REDIS")
        with Comptroller.open(POLICIES, engine, redis, clock=clock, stripe=stripe) as comptroller:
            yield Product(engine, comptroller)
    finally:
        engine.dispose()


def _prepare(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    for pragma in PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
