"""The first schema: books, ledger, grants and denials.

Revision ID: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from billing.columns import Instant
from billing.migrations.triggers import append_only

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

APPEND_ONLY = (
    "record",
    "transfer",
    "line",
    "lot",
    "ledger_account",
    "payment_reference",
    "asset",
    "grant",
    "ending",
    "late_ending",
    "gpu_attempt",
    "policy_version",
)
ASSETS = [{"code": "CREDIT", "scale": 0}, {"code": "USD.micro", "scale": 6}]


def upgrade() -> None:
    """Create everything."""
    _create_books()
    _create_ledger()
    _create_grants()
    asset = sa.table(
        "comptroller_asset", sa.column("code", sa.Text), sa.column("scale", sa.Integer)
    )
    op.bulk_insert(asset, ASSETS)
    for table in APPEND_ONLY:
        for statement in append_only(op.get_bind().dialect.name, f"comptroller_{table}"):
            op.execute(statement)


def _create_books() -> None:
    """Books, names, settings and what all books share."""
    op.create_table(
        "comptroller_asset",
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("scale", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("code"),
    )
    op.create_table(
        "comptroller_book",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("head", sa.LargeBinary(), nullable=False),
        sa.Column("at", Instant(), nullable=False),
        sa.Column("grants", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("lots", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("plan", sa.Text(), nullable=True),
        sa.Column("zones", sa.Text(), nullable=False),
        sa.Column("paid_use", sa.Text(), nullable=True),
        sa.Column("spend_cap_minor", sa.BigInteger(), nullable=True),
        sa.Column("spend_cap_per", sa.Text(), nullable=True),
        sa.Column("frozen", sa.Text(), nullable=True),
        sa.Column("rates", sa.Text(), nullable=False),
        sa.CheckConstraint("paid_use IN ('auto', 'ask', 'never')"),
        sa.CheckConstraint("spend_cap_per IN ('day', 'week', 'month')"),
        sa.CheckConstraint("seq >= 0"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "comptroller_budget_day",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("starts_at", Instant(), nullable=False),
        sa.Column("spent_micro_usd", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("spent_micro_usd >= 0"),
        sa.PrimaryKeyConstraint("name", "starts_at"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "comptroller_denial",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("member", sa.Text(), nullable=True),
        sa.Column("operation", sa.Text(), nullable=False),
        sa.Column("plan", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("first_at", Instant(), nullable=False),
        sa.Column("last_at", Instant(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("retry_at", Instant(), nullable=True),
        sa.Column("findings", sa.Text(), nullable=False),
        sa.Column("policy_version", sa.Text(), nullable=False),
        sa.CheckConstraint("count > 0"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        "comptroller_denial_account", "comptroller_denial", ["account", "last_at"], unique=False
    )
    op.create_table(
        "comptroller_denial_loss",
        sa.Column("at", Instant(), nullable=False),
        sa.Column("lost", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("at"),
    )
    op.create_table(
        "comptroller_policy_version",
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("version"),
    )
    op.create_table(
        "comptroller_account_name",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("book_id", sa.BigInteger(), nullable=False),
        sa.Column("salt", sa.LargeBinary(), nullable=False),
        sa.Column("tags", sa.Text(), server_default="{}", nullable=False),
        sa.ForeignKeyConstraint(
            ["book_id"],
            ["comptroller_book.id"],
        ),
        sa.PrimaryKeyConstraint("name"),
        sa.UniqueConstraint("book_id"),
    )
    op.create_table(
        "comptroller_erasable",
        sa.Column("book_id", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["book_id"],
            ["comptroller_book.id"],
        ),
        sa.PrimaryKeyConstraint("book_id", "hash"),
    )
    op.create_table(
        "comptroller_ledger_account",
        sa.Column("book_id", sa.BigInteger(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("asset", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["asset"],
            ["comptroller_asset.code"],
        ),
        sa.ForeignKeyConstraint(
            ["book_id"],
            ["comptroller_book.id"],
        ),
        sa.PrimaryKeyConstraint("book_id", "id"),
        sa.UniqueConstraint("book_id", "id", "asset"),
        sqlite_with_rowid=False,
    )


def _create_ledger() -> None:
    """Records, transfers, lots and lines."""
    op.create_table(
        "comptroller_record",
        sa.Column("book_id", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("at", Instant(), nullable=False),
        sa.Column("recorded_at", Instant(), nullable=False),
        sa.Column("once", sa.Text(), nullable=True),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("prev_hash", sa.LargeBinary(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("seq > 0"),
        sa.ForeignKeyConstraint(
            ["book_id"],
            ["comptroller_book.id"],
        ),
        sa.PrimaryKeyConstraint("book_id", "seq"),
        sa.UniqueConstraint("book_id", "once"),
    )
    op.create_index("comptroller_record_at", "comptroller_record", ["at"], unique=False)
    op.create_table(
        "comptroller_line",
        sa.Column("book_id", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("idx", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("at", Instant(), nullable=False),
        sa.Column("grant_no", sa.BigInteger(), nullable=True),
        sa.Column("plan", sa.Text(), nullable=False),
        sa.Column("operation", sa.Text(), nullable=False),
        sa.Column("member", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("lot_no", sa.BigInteger(), nullable=True),
        sa.Column("units", sa.BigInteger(), nullable=False),
        sa.Column("lot_units", sa.BigInteger(), nullable=False),
        sa.Column("counts_at", Instant(), nullable=True),
        sa.Column("spend_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=True),
        sa.Column("sold_minor", sa.BigInteger(), nullable=False),
        sa.Column("revenue_minor", sa.BigInteger(), nullable=False),
        sa.Column("breakage_minor", sa.BigInteger(), nullable=False),
        sa.Column("refunded_minor", sa.BigInteger(), nullable=False),
        sa.Column("gpu_estimated_micro_usd", sa.BigInteger(), nullable=False),
        sa.Column("gpu_micro_usd", sa.BigInteger(), nullable=False),
        sa.Column("gpu_unreported_micro_usd", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "sold_minor >= 0 AND revenue_minor >= 0 AND breakage_minor >= 0 AND refunded_minor >= 0"
        ),
        sa.ForeignKeyConstraint(
            ["book_id", "seq"],
            ["comptroller_record.book_id", "comptroller_record.seq"],
        ),
        sa.PrimaryKeyConstraint("book_id", "seq", "idx"),
        sqlite_with_rowid=False,
    )
    op.create_index("comptroller_line_at", "comptroller_line", ["at"], unique=False)
    op.create_index(
        "comptroller_line_grant",
        "comptroller_line",
        ["book_id", "grant_no", "gpu_micro_usd"],
        unique=False,
    )
    op.create_index(
        "comptroller_line_window",
        "comptroller_line",
        ["book_id", "counts_at", "source", "member", "units", "spend_minor", "currency"],
        unique=False,
        sqlite_where=sa.text("units <> 0"),
        postgresql_where=sa.text("units <> 0"),
    )
    op.create_table(
        "comptroller_lot",
        sa.Column("book_id", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=False),
        sa.Column("pack", sa.Text(), nullable=True),
        sa.Column("units", sa.BigInteger(), nullable=False),
        sa.Column("price_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("priority", sa.BigInteger(), nullable=False),
        sa.Column("created_at", Instant(), nullable=False),
        sa.Column("expires_at", Instant(), nullable=True),
        sa.CheckConstraint("price_minor >= 0"),
        sa.CheckConstraint("units > 0"),
        sa.ForeignKeyConstraint(
            ["book_id", "seq"],
            ["comptroller_record.book_id", "comptroller_record.seq"],
        ),
        sa.ForeignKeyConstraint(
            ["currency"],
            ["comptroller_asset.code"],
        ),
        sa.PrimaryKeyConstraint("book_id", "number"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "comptroller_transfer",
        sa.Column("book_id", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("idx", sa.BigInteger(), nullable=False),
        sa.Column("debit", sa.Text(), nullable=False),
        sa.Column("credit", sa.Text(), nullable=False),
        sa.Column("asset", sa.Text(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("phase", sa.BigInteger(), nullable=False),
        sa.Column("grant_no", sa.BigInteger(), nullable=True),
        sa.Column("lot_no", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("amount > 0"),
        sa.CheckConstraint("debit <> credit"),
        sa.CheckConstraint("phase BETWEEN 0 AND 3"),
        sa.ForeignKeyConstraint(
            ["book_id", "credit", "asset"],
            [
                "comptroller_ledger_account.book_id",
                "comptroller_ledger_account.id",
                "comptroller_ledger_account.asset",
            ],
        ),
        sa.ForeignKeyConstraint(
            ["book_id", "debit", "asset"],
            [
                "comptroller_ledger_account.book_id",
                "comptroller_ledger_account.id",
                "comptroller_ledger_account.asset",
            ],
        ),
        sa.ForeignKeyConstraint(
            ["book_id", "seq"],
            ["comptroller_record.book_id", "comptroller_record.seq"],
        ),
        sa.PrimaryKeyConstraint("book_id", "seq", "idx"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "comptroller_lot_balance",
        sa.Column("book_id", sa.BigInteger(), nullable=False),
        sa.Column("lot_no", sa.BigInteger(), nullable=False),
        sa.Column("units_in", sa.BigInteger(), nullable=False),
        sa.Column("units_used", sa.BigInteger(), nullable=False),
        sa.Column("units_gone", sa.BigInteger(), nullable=False),
        sa.Column("units_held", sa.BigInteger(), nullable=False),
        sa.Column("money_in_minor", sa.BigInteger(), nullable=False),
        sa.Column("money_out_minor", sa.BigInteger(), nullable=False),
        sa.Column("refunded", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("open", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", Instant(), nullable=True),
        sa.CheckConstraint(
            "money_in_minor >= 0 AND money_out_minor >= 0 AND money_in_minor - money_out_minor >= 0"
        ),
        sa.CheckConstraint("open = 0 OR open = 1"),
        sa.CheckConstraint("units_in - units_used - units_gone - units_held >= 0"),
        sa.CheckConstraint("units_used >= 0 AND units_gone >= 0 AND units_held >= 0"),
        sa.ForeignKeyConstraint(
            ["book_id", "lot_no"],
            ["comptroller_lot.book_id", "comptroller_lot.number"],
        ),
        sa.PrimaryKeyConstraint("book_id", "lot_no"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "comptroller_lot_expiring",
        "comptroller_lot_balance",
        ["expires_at"],
        unique=False,
        sqlite_where=sa.text("open = 1"),
        postgresql_where=sa.text("open = 1"),
    )
    op.create_index(
        "comptroller_lot_open",
        "comptroller_lot_balance",
        ["book_id"],
        unique=False,
        sqlite_where=sa.text("open = 1"),
        postgresql_where=sa.text("open = 1"),
    )
    op.create_table(
        "comptroller_payment_reference",
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=False),
        sa.Column("book_id", sa.BigInteger(), nullable=False),
        sa.Column("lot_no", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("request_hash", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["book_id", "lot_no"],
            ["comptroller_lot.book_id", "comptroller_lot.number"],
        ),
        sa.ForeignKeyConstraint(
            ["book_id", "seq"],
            ["comptroller_record.book_id", "comptroller_record.seq"],
        ),
        sa.PrimaryKeyConstraint("origin", "reference"),
    )
    op.create_index(
        "comptroller_payment_reference_book",
        "comptroller_payment_reference",
        ["book_id"],
        unique=False,
    )


def _create_grants() -> None:
    """Grants, holds and ends."""
    op.create_table(
        "comptroller_grant",
        sa.Column("book_id", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("key_hash", sa.Text(), nullable=False),
        sa.Column("request_hash", sa.Text(), nullable=False),
        sa.Column("at", Instant(), nullable=False),
        sa.Column("plan", sa.Text(), nullable=False),
        sa.Column("operation", sa.Text(), nullable=False),
        sa.Column("attributes", sa.Text(), nullable=False),
        sa.Column("member", sa.Text(), nullable=False),
        sa.Column("policy_version", sa.Text(), nullable=False),
        sa.Column("gpu_cost_micro_usd", sa.BigInteger(), nullable=False),
        sa.Column("allocations", sa.Text(), nullable=False),
        sa.CheckConstraint("gpu_cost_micro_usd >= 0"),
        sa.ForeignKeyConstraint(
            ["book_id", "seq"],
            ["comptroller_record.book_id", "comptroller_record.seq"],
        ),
        sa.ForeignKeyConstraint(
            ["policy_version"],
            ["comptroller_policy_version.version"],
        ),
        sa.PrimaryKeyConstraint("book_id", "number"),
        sa.UniqueConstraint("book_id", "key_hash"),
    )
    op.create_table(
        "comptroller_ending",
        sa.Column("book_id", sa.BigInteger(), nullable=False),
        sa.Column("grant_no", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("at", Instant(), nullable=False),
        sa.Column("units_charged", sa.BigInteger(), nullable=False),
        sa.Column("gpu_cost_micro_usd", sa.BigInteger(), nullable=False),
        sa.Column("gpu_reported", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("status IN ('settled', 'released', 'expired')"),
        sa.CheckConstraint("units_charged >= 0 AND gpu_cost_micro_usd >= 0"),
        sa.ForeignKeyConstraint(
            ["book_id", "grant_no"],
            ["comptroller_grant.book_id", "comptroller_grant.number"],
        ),
        sa.ForeignKeyConstraint(
            ["book_id", "seq"],
            ["comptroller_record.book_id", "comptroller_record.seq"],
        ),
        sa.PrimaryKeyConstraint("book_id", "grant_no"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "comptroller_gpu_attempt",
        sa.Column("book_id", sa.BigInteger(), nullable=False),
        sa.Column("grant_no", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("gpu_cost_micro_usd", sa.BigInteger(), nullable=False),
        sa.Column("gpu_seconds", sa.Text(), nullable=False),
        sa.Column("gpu", sa.Text(), nullable=False),
        sa.CheckConstraint("gpu_cost_micro_usd >= 0"),
        sa.ForeignKeyConstraint(
            ["book_id", "grant_no"],
            ["comptroller_grant.book_id", "comptroller_grant.number"],
        ),
        sa.ForeignKeyConstraint(
            ["book_id", "seq"],
            ["comptroller_record.book_id", "comptroller_record.seq"],
        ),
        sa.PrimaryKeyConstraint("book_id", "grant_no", "attempt"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "comptroller_hold",
        sa.Column("book_id", sa.BigInteger(), nullable=False),
        sa.Column("grant_no", sa.BigInteger(), nullable=False),
        sa.Column("granted_at", Instant(), nullable=False),
        sa.Column("expires_at", Instant(), nullable=False),
        sa.Column("started_at", Instant(), nullable=True),
        sa.Column("returns", sa.BigInteger(), nullable=False),
        sa.Column("member", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["book_id", "grant_no"],
            ["comptroller_grant.book_id", "comptroller_grant.number"],
        ),
        sa.PrimaryKeyConstraint("book_id", "grant_no"),
        sqlite_with_rowid=False,
    )
    op.create_index("comptroller_hold_expiring", "comptroller_hold", ["expires_at"], unique=False)
    op.create_table(
        "comptroller_late_ending",
        sa.Column("book_id", sa.BigInteger(), nullable=False),
        sa.Column("grant_no", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("at", Instant(), nullable=False),
        sa.Column("units_charged", sa.BigInteger(), nullable=False),
        sa.Column("gpu_cost_micro_usd", sa.BigInteger(), nullable=False),
        sa.Column("gpu_reported", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("units_charged >= 0 AND gpu_cost_micro_usd >= 0"),
        sa.ForeignKeyConstraint(
            ["book_id", "grant_no"],
            ["comptroller_ending.book_id", "comptroller_ending.grant_no"],
        ),
        sa.ForeignKeyConstraint(
            ["book_id", "seq"],
            ["comptroller_record.book_id", "comptroller_record.seq"],
        ),
        sa.PrimaryKeyConstraint("book_id", "grant_no"),
        sqlite_with_rowid=False,
    )
