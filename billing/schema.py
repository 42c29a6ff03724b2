"""The schema: bringing a database to the version that this code works with, or saying that it is another one."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Text, column, inspect, select, table

from billing.sql import Db, Statement
from billing.tables import PREFIX
from policies.errors import SchemaMismatch

VERSION_TABLE: Final = f"{PREFIX}schema_version"
_VERSION: Final = Statement(select(column("version_num", Text)).select_from(table(VERSION_TABLE)))
HERE: Final = Path(__file__).parent / "migrations"


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(HERE))
    config.attributes["connection"] = connection
    return config


def wanted_version() -> str:
    """Return the schema version that this code works with."""
    return str(ScriptDirectory.from_config(_config()).get_current_head())


def current_version(connection: Connection) -> str | None:
    """Return the database's schema version, or None where it has none of our tables."""
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    return context.get_current_revision()


def stored_version(db: Db) -> str | None:
    """Return the schema version that the database says it has."""
    row = db.row(_VERSION)
    return None if row is None else str(row[0])


def upgrade(connection: Connection) -> None:
    """Bring the database to this code's schema version. Our transaction must be open on the connection.

    Raises:
        SchemaMismatch: it is newer than this code, or holds our tables without a version.
    """
    check_known(connection)
    command.upgrade(_config(connection), "head")


def check(connection: Connection) -> None:
    """Make sure that the database has this code's schema version.

    Raises:
        SchemaMismatch: it has not.
    """
    check_known(connection)
    found, wanted = current_version(connection), wanted_version()
    if found != wanted:
        state = "has no Comptroller tables" if found is None else f"has schema version {found}"
        raise SchemaMismatch(
            f"the database {state}, this version needs {wanted}: run `comptroller db upgrade`"
        )


def check_known(connection: Connection) -> None:
    """Make sure that this code knows the database's schema version.

    Raises:
        SchemaMismatch: it does not.
    """
    found = current_version(connection)
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if found is not None and found not in known:
        raise SchemaMismatch(
            f"the database has schema version `{found}`, which this version does not know: upgrade Comptroller"
        )
    if found is None:
        strangers = [
            name for name in inspect(connection).get_table_names() if name.startswith(PREFIX)
        ]
        if strangers:
            raise SchemaMismatch(
                f"the database has tables such as `{min(strangers)}` without a schema version: "
                "it was not made by Comptroller's migrations"
            )
