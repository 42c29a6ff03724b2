"""The schema: bringing a database to the version that this code works with, or saying that it is another one.

Alembic is loaded only where there is something to migrate: a database that is up to date opens without it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, Text, column, inspect, select, table

from billing.sql import Db, Statement
from billing.tables import PREFIX
from policies.errors import SchemaMismatch

if TYPE_CHECKING:
    from alembic.config import Config

WANTED: Final = "0002"
"""The schema version that this code works with: the newest migration."""

VERSION_TABLE: Final = f"{PREFIX}schema_version"
HERE: Final = Path(__file__).parent / "migrations"
_FOUND: Final = select(column("version_num", Text)).select_from(table(VERSION_TABLE))
_VERSION: Final = Statement(_FOUND)


def current_version(connection: Connection) -> str | None:
    """Return the database's schema version, or None where it has none of our tables."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.execute(_FOUND).scalar()


def stored_version(db: Db) -> str | None:
    """Return the schema version that the database says it has."""
    row = db.row(_VERSION)
    return None if row is None else str(row[0])


def upgrade(connection: Connection) -> None:
    """Bring the database to this code's schema version. Our transaction must be open on the connection.

    Raises:
        SchemaMismatch: it is newer than this code, or holds our tables without a version.
    """
    from alembic import command  # noqa: PLC0415 - see above

    check_known(connection)
    command.upgrade(_config(connection), "head")


def check(connection: Connection) -> None:
    """Make sure that the database has this code's schema version.

    Raises:
        SchemaMismatch: it has not.
    """
    found = current_version(connection)
    if found == WANTED:
        return
    check_known(connection)
    state = "has no Comptroller tables" if found is None else f"has schema version {found}"
    raise SchemaMismatch(
        f"the database {state}, this version needs {WANTED}: run `comptroller db upgrade`"
    )


def check_known(connection: Connection) -> None:
    """Make sure that this code knows the database's schema version.

    Raises:
        SchemaMismatch: it does not.
    """
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - see above

    found = current_version(connection)
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if found is not None and found not in known:
        raise SchemaMismatch(
            f"the database has schema version `{found}`, which this version does not know: upgrade Comptroller"
        )
    if found is None:
        names = inspect(connection).get_table_names()
        strangers = [name for name in names if name.startswith(PREFIX)]
        if strangers:
            raise SchemaMismatch(
                f"the database has tables such as `{min(strangers)}` without a schema version: "
                "it was not made by Comptroller's migrations"
            )


def _config(connection: Connection | None = None) -> Config:
    from alembic.config import Config  # noqa: PLC0415 - see above

    config = Config()
    config.set_main_option("script_location", str(HERE))
    config.attributes["connection"] = connection
    return config
