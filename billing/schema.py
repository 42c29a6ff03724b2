"""The schema: bringing a database to the version that this code works with, or saying that it is another one.

Alembic is loaded only where there is something to migrate: a database that is up to date opens without it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, Text, column, inspect, select, table
from sqlalchemy.schema import CreateSchema

from billing.placement import SCHEMA, VERSION_TABLE, in_schema, placing, version_table
from billing.sql import Db, Statement
from billing.tables import PREFIX
from policies.errors import InvalidRequest, SchemaMismatch

if TYPE_CHECKING:
    from alembic.config import Config

WANTED: Final = "0004"
"""The schema version that this code works with: the newest migration."""

PARTITIONS_MAX: Final = 1024
HERE: Final = Path(__file__).parent / "migrations"
_VERSION: Final = Statement(
    select(column("version_num", Text)).select_from(table(VERSION_TABLE)),
)
_LOCK: Final = int.from_bytes(b"comptrol", "big")
"""What processes ask PostgreSQL for before they migrate: the same number everywhere, and nobody else's."""


def current_version(connection: Connection) -> str | None:
    """Return the database's schema version, or None where it has none of our tables."""
    versions = version_table(connection.dialect)
    if not inspect(connection).has_table(versions.name, schema=versions.schema):
        return None
    return connection.execute(select(versions.c.version_num)).scalar()


def stored_version(db: Db) -> str | None:
    """Return the schema version that the database says it has."""
    row = db.row(_VERSION)
    return None if row is None else str(row[0])


def upgrade(connection: Connection, *, partitions: int = 0) -> None:
    """Bring the database to this code's schema version. Our transaction must be open on the connection.

    Several processes may do it at the same moment: one migrates, the others wait for it.

    Args:
        connection: with our transaction.
        partitions: how many hash partitions each table of books gets, on a PostgreSQL without our tables; 0: none.

    Raises:
        InvalidRequest: there can be no partitions, or not so many.
        SchemaMismatch: it is newer than this code, or holds our tables without a version.
    """
    from alembic import command  # noqa: PLC0415 - see above

    server = in_schema(connection.dialect)
    if server:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
    check_known(connection)
    if partitions:
        _check_partitions(connection, partitions)
    if server and not inspect(connection).has_schema(SCHEMA):
        connection.execute(CreateSchema(SCHEMA))
    with placing(connection):
        command.upgrade(_config(connection, partitions), "head")


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
        strangers = _tables(connection)
        if strangers:
            raise SchemaMismatch(
                f"the database has tables such as `{min(strangers)}` without a schema version: "
                "it was not made by Comptroller's migrations"
            )


def _tables(connection: Connection) -> list[str]:
    """Return the tables that are where ours are."""
    if in_schema(connection.dialect):
        return [f"{SCHEMA}.{name}" for name in inspect(connection).get_table_names(schema=SCHEMA)]
    return [name for name in inspect(connection).get_table_names() if name.startswith(PREFIX)]


def _check_partitions(connection: Connection, partitions: int) -> None:
    if not in_schema(connection.dialect):
        raise InvalidRequest("SQLite has no partitions: leave them out, or use PostgreSQL")
    if not 1 <= partitions <= PARTITIONS_MAX:
        raise InvalidRequest(f"partitions must be 1 to {PARTITIONS_MAX}, not {partitions}")
    if current_version(connection) is not None:
        raise InvalidRequest(
            "the database has Comptroller's tables already: partitions are chosen when they are made"
        )


def _config(connection: Connection | None = None, partitions: int = 0) -> Config:
    from alembic.config import Config  # noqa: PLC0415 - see above

    config = Config()
    config.set_main_option("script_location", str(HERE))
    config.attributes["connection"] = connection
    config.attributes["partitions"] = partitions
    return config
