"""Grants: what was granted, what is held, how grants ended, and denials.

Revision ID: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from billing.migrations.columns import identity, instant, whole, words
from billing.migrations.partitions import create_for_books
from billing.migrations.triggers import guard

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

APPEND_ONLY = ("grant", "ending", "late_ending", "gpu_attempt")
APPEND_ONLY_GLOBAL = ("policy_version",)


def upgrade() -> None:
    """Create the tables, and the triggers that keep them append-only."""
    _create_grants()
    _create_endings()
    _create_others()
    guard(APPEND_ONLY, of_books=True)
    guard(APPEND_ONLY_GLOBAL, of_books=False)


def _create_grants() -> None:
    """Policy versions, grants and holds."""
    op.create_table(
        "comptroller_policy_version",
        words("version"),
        words("content"),
        sa.PrimaryKeyConstraint("version"),
    )
    create_for_books(
        "comptroller_grant",
        whole("book_id"),
        whole("number"),
        whole("seq"),
        words("key_hash"),
        words("request_hash"),
        instant("at"),
        words("plan"),
        words("operation"),
        words("attributes"),
        words("member"),
        words("policy_version"),
        whole("gpu_cost_micro_usd"),
        words("allocations"),
        sa.PrimaryKeyConstraint("book_id", "number"),
        sa.CheckConstraint("gpu_cost_micro_usd >= 0"),
        sa.ForeignKeyConstraint(
            ["book_id", "seq"], ["comptroller_record.book_id", "comptroller_record.seq"]
        ),
        sa.UniqueConstraint("book_id", "key_hash"),
    )
    create_for_books(
        "comptroller_hold",
        whole("book_id"),
        whole("grant_no"),
        instant("granted_at"),
        instant("expires_at"),
        instant("started_at", null=True),
        whole("returns"),
        words("member"),
        sa.PrimaryKeyConstraint("book_id", "grant_no"),
        sa.ForeignKeyConstraint(
            ["book_id", "grant_no"], ["comptroller_grant.book_id", "comptroller_grant.number"]
        ),
        sqlite_with_rowid=False,
    )
    op.create_index("comptroller_hold_expiring", "comptroller_hold", ["expires_at"])


def _create_endings() -> None:
    """How grants ended."""
    create_for_books(
        "comptroller_ending",
        whole("book_id"),
        whole("grant_no"),
        whole("seq"),
        words("status"),
        words("reason", null=True),
        instant("at"),
        whole("units_charged"),
        whole("gpu_cost_micro_usd"),
        whole("gpu_reported"),
        sa.PrimaryKeyConstraint("book_id", "grant_no"),
        sa.CheckConstraint("status IN ('settled', 'released', 'expired')"),
        sa.CheckConstraint("units_charged >= 0 AND gpu_cost_micro_usd >= 0"),
        sa.ForeignKeyConstraint(
            ["book_id", "grant_no"], ["comptroller_grant.book_id", "comptroller_grant.number"]
        ),
        sa.ForeignKeyConstraint(
            ["book_id", "seq"], ["comptroller_record.book_id", "comptroller_record.seq"]
        ),
        sqlite_with_rowid=False,
    )
    create_for_books(
        "comptroller_late_ending",
        whole("book_id"),
        whole("grant_no"),
        whole("seq"),
        instant("at"),
        whole("units_charged"),
        whole("gpu_cost_micro_usd"),
        whole("gpu_reported"),
        sa.PrimaryKeyConstraint("book_id", "grant_no"),
        sa.CheckConstraint("units_charged >= 0 AND gpu_cost_micro_usd >= 0"),
        sa.ForeignKeyConstraint(
            ["book_id", "grant_no"], ["comptroller_ending.book_id", "comptroller_ending.grant_no"]
        ),
        sa.ForeignKeyConstraint(
            ["book_id", "seq"], ["comptroller_record.book_id", "comptroller_record.seq"]
        ),
        sqlite_with_rowid=False,
    )
    create_for_books(
        "comptroller_gpu_attempt",
        whole("book_id"),
        whole("grant_no"),
        words("attempt"),
        whole("seq"),
        whole("gpu_cost_micro_usd"),
        words("gpu_seconds"),
        words("gpu"),
        sa.PrimaryKeyConstraint("book_id", "grant_no", "attempt"),
        sa.CheckConstraint("gpu_cost_micro_usd >= 0"),
        sa.ForeignKeyConstraint(
            ["book_id", "grant_no"], ["comptroller_grant.book_id", "comptroller_grant.number"]
        ),
        sa.ForeignKeyConstraint(
            ["book_id", "seq"], ["comptroller_record.book_id", "comptroller_record.seq"]
        ),
        sqlite_with_rowid=False,
    )


def _create_others() -> None:
    """Budgets and denials."""
    op.create_table(
        "comptroller_budget_day",
        words("name"),
        instant("starts_at"),
        whole("spent_micro_usd"),
        sa.PrimaryKeyConstraint("name", "starts_at"),
        sa.CheckConstraint("spent_micro_usd >= 0"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "comptroller_denial",
        identity("id"),
        words("account"),
        words("member", null=True),
        words("operation"),
        words("plan"),
        words("reason"),
        instant("first_at"),
        instant("last_at"),
        whole("count"),
        instant("retry_at", null=True),
        words("findings"),
        words("policy_version"),
        sa.PrimaryKeyConstraint("id"),
        sa.CheckConstraint("count > 0"),
    )
    op.create_index("comptroller_denial_account", "comptroller_denial", ["account", "last_at"])
    op.create_table(
        "comptroller_denial_loss",
        instant("at"),
        whole("lost"),
        sa.PrimaryKeyConstraint("at"),
    )
