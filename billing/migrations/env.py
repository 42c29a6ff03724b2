"""Run by Alembic: applies migrations on the connection that `billing.schema` hands over."""

from __future__ import annotations

from alembic import context

from billing.placement import version_table
from billing.tables import Table

connection = context.config.attributes["connection"]
versions = version_table(connection.dialect)
context.configure(
    connection=connection,
    target_metadata=Table.metadata,
    version_table=versions.name,
    version_table_schema=versions.schema,
    transactional_ddl=False,
)
context.run_migrations()
