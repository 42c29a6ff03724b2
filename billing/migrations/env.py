"""Run by Alembic: applies migrations on the connection that `billing.schema` hands over."""

from __future__ import annotations

from alembic import context

from billing.schema import VERSION_TABLE
from billing.tables import Table

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Table.metadata,
    version_table=VERSION_TABLE,
    transactional_ddl=False,
)
context.run_migrations()
