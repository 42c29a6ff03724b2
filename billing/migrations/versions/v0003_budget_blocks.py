"""Budgets leased in blocks: what is leased of a day, and the blocks that are out.

SQLite gets them too, and leaves them empty: one schema on every database is one page to read and one thing to test.

Revision ID: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from billing.migrations.columns import instant, whole, words
from billing.placement import in_schema

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

DAY = "comptroller_budget_day"
BEFORE = f"{DAY}_before"


def upgrade() -> None:
    """Add what is leased to the days, and make the table of blocks."""
    if in_schema(op.get_bind().dialect):
        op.add_column(DAY, whole("leased_micro_usd", default="0"))
        op.add_column(DAY, whole("blocks", default="0"))
        op.create_check_constraint(None, DAY, "leased_micro_usd >= 0 AND blocks >= 0")
    else:
        _make_days_again()
    op.create_table(
        "comptroller_budget_block",
        words("name"),
        instant("starts_at"),
        whole("number"),
        words("holder"),
        whole("leased_micro_usd"),
        whole("spent_micro_usd", default="0"),
        instant("leased_at"),
        instant("ends_at"),
        sa.PrimaryKeyConstraint("name", "starts_at", "number"),
        sa.CheckConstraint("spent_micro_usd BETWEEN 0 AND leased_micro_usd"),
        sqlite_with_rowid=False,
    )


def _make_days_again() -> None:
    """SQLite adds no CHECK to a table that is there."""
    op.execute(f"ALTER TABLE {DAY} RENAME TO {BEFORE}")
    op.create_table(
        DAY,
        words("name"),
        instant("starts_at"),
        whole("spent_micro_usd"),
        whole("leased_micro_usd", default="0"),
        whole("blocks", default="0"),
        sa.PrimaryKeyConstraint("name", "starts_at"),
        sa.CheckConstraint("spent_micro_usd >= 0"),
        sa.CheckConstraint("leased_micro_usd >= 0 AND blocks >= 0"),
        sqlite_with_rowid=False,
    )
    op.execute(
        f"INSERT INTO {DAY} (name, starts_at, spent_micro_usd) "  # noqa: S608 - our own names
        f"SELECT name, starts_at, spent_micro_usd FROM {BEFORE}"
    )
    op.drop_table(BEFORE)
