"""A host: an application with tables of its own, one of them called `account`, and migrations of its own."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, ForeignKey, create_engine, event
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tests.databases import migrate


class Base(DeclarativeBase):
    """The host's own catalogue of tables."""


class Account(Base):
    """What the host knows of a user: a table that has nothing to do with ours."""

    __tablename__ = "account"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Job(Base):
    """The host's job row, which is to commit together with its grant."""

    __tablename__ = "job"
    id: Mapped[int] = mapped_column(primary_key=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("account.id"))
    grant_id: Mapped[str]


def an_engine(database: str, *, busy_seconds: float = 0.05, transactions: bool = False) -> Engine:
    """Make an engine as a host would. `transactions`: BEGIN before the first read, as SQLAlchemy's manual advises."""
    if database.startswith("postgresql:"):
        patience = {"options": f"-c lock_timeout={int(busy_seconds * 1000)}"}
        return create_engine(on_driver(database, "psycopg"), connect_args=patience)
    engine = create_engine(database, connect_args={"timeout": busy_seconds})
    if transactions:

        def driver_begins_nothing(driver: Any, _: Any) -> None:
            driver.isolation_level = None

        event.listen(engine, "connect", driver_begins_nothing)
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    return engine


def on_driver(database: str, driver: str) -> str:
    """Return a database's URL for a driver of the host's choice."""
    kind, _, rest = database.partition(":")
    return f"{kind}+{driver}:{rest}"


ENV = """
from alembic import context
from tests.hosts.host import Base
connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=Base.metadata)
with context.begin_transaction():
    context.run_migrations()
"""
FIRST = """
revision, down_revision = "host1", None
def upgrade():
    from alembic import op
    from tests.hosts.host import Base
    Base.metadata.create_all(op.get_bind())
"""


def migrate_both(database: str) -> None:
    """Make the host's tables, and ours beside them."""
    engine = an_engine(database)
    with TemporaryDirectory() as folder:
        migrate_host(engine, Path(folder))
    engine.dispose()
    migrate(database)


def migrate_host(engine: Engine, folder: Path) -> None:
    """Run the host's own Alembic migrations."""
    scripts = folder / "host_migrations"
    if not scripts.exists():
        (scripts / "versions").mkdir(parents=True)
        (scripts / "env.py").write_text(ENV)
        (scripts / "versions" / "first.py").write_text(FIRST)
    config = Config()
    config.set_main_option("script_location", str(scripts))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
