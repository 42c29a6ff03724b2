"""Books: who has one, its ledger, its records and its lines.

Revision ID: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from billing.migrations.columns import identity, instant, octets, small, whole, words
from billing.migrations.partitions import create_for_books
from billing.migrations.triggers import guard

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

APPEND_ONLY = ("record", "transfer", "line", "lot", "ledger_account")
APPEND_ONLY_GLOBAL = ("payment_reference", "asset")


def upgrade() -> None:
    """Create the tables, and the triggers that keep them append-only."""
    _create_books()
    _create_records()
    _create_lots()
    _create_payment_references()
    _create_lines()
    asset = sa.table(
        "comptroller_asset", sa.column("code", sa.Text), sa.column("scale", sa.Integer)
    )
    op.bulk_insert(asset, [{"code": "CREDIT", "scale": 0}, {"code": "USD.micro", "scale": 6}])
    guard(APPEND_ONLY, of_books=True)
    guard(APPEND_ONLY_GLOBAL, of_books=False)


def _create_books() -> None:
    """Books, their names, and what all books share."""
    op.create_table(
        "comptroller_asset",
        words("code"),
        small("scale"),
        sa.PrimaryKeyConstraint("code"),
        sa.CheckConstraint("scale BETWEEN 0 AND 12"),
    )
    create_for_books(
        "comptroller_book",
        identity("id"),
        whole("seq"),
        octets("head"),
        instant("at"),
        whole("grants", default="0"),
        whole("lots", default="0"),
        words("plan", null=True),
        words("zones"),
        words("paid_use", null=True),
        whole("spend_cap_minor", null=True),
        words("spend_cap_per", null=True),
        words("frozen", null=True),
        words("rates"),
        sa.PrimaryKeyConstraint("id"),
        sa.CheckConstraint("paid_use IN ('auto', 'ask', 'never')"),
        sa.CheckConstraint("seq >= 0"),
        sa.CheckConstraint("spend_cap_per IN ('day', 'week', 'month')"),
        book="id",
        rewritten=True,
    )
    op.create_table(
        "comptroller_account_name",
        words("name"),
        whole("book_id"),
        octets("salt"),
        words("tags", default="{}"),
        sa.PrimaryKeyConstraint("name"),
        sa.UniqueConstraint("book_id"),
    )
    create_for_books(
        "comptroller_erasable",
        whole("book_id"),
        words("hash"),
        words("value"),
        sa.PrimaryKeyConstraint("book_id", "hash"),
        sa.ForeignKeyConstraint(["book_id"], ["comptroller_book.id"]),
    )
    create_for_books(
        "comptroller_ledger_account",
        whole("book_id"),
        words("id"),
        words("asset"),
        sa.PrimaryKeyConstraint("book_id", "id"),
        sa.ForeignKeyConstraint(["book_id"], ["comptroller_book.id"]),
        sa.UniqueConstraint("book_id", "id", "asset"),
        sqlite_with_rowid=False,
    )


def _create_records() -> None:
    """The chain, and the transfers of its records."""
    create_for_books(
        "comptroller_record",
        whole("book_id"),
        whole("seq"),
        words("kind"),
        instant("at"),
        instant("recorded_at"),
        words("once", null=True),
        octets("body"),
        octets("prev_hash"),
        octets("hash"),
        sa.PrimaryKeyConstraint("book_id", "seq"),
        sa.CheckConstraint("seq > 0"),
        sa.ForeignKeyConstraint(["book_id"], ["comptroller_book.id"]),
        sa.UniqueConstraint("book_id", "once"),
    )
    op.create_index("comptroller_record_at", "comptroller_record", ["at"])
    create_for_books(
        "comptroller_transfer",
        whole("book_id"),
        whole("seq"),
        whole("idx"),
        words("debit"),
        words("credit"),
        words("asset"),
        whole("amount"),
        whole("phase"),
        whole("grant_no", null=True),
        whole("lot_no", null=True),
        sa.PrimaryKeyConstraint("book_id", "seq", "idx"),
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
            ["book_id", "seq"], ["comptroller_record.book_id", "comptroller_record.seq"]
        ),
        sqlite_with_rowid=False,
    )


def _create_lots() -> None:
    """Lots, their guarded balances, and the payments they come from."""
    create_for_books(
        "comptroller_lot",
        whole("book_id"),
        whole("number"),
        whole("seq"),
        words("origin"),
        words("reference"),
        words("pack", null=True),
        whole("units"),
        whole("price_minor"),
        words("currency"),
        whole("priority"),
        instant("created_at"),
        instant("expires_at", null=True),
        sa.PrimaryKeyConstraint("book_id", "number"),
        sa.CheckConstraint("price_minor >= 0"),
        sa.CheckConstraint("units > 0"),
        sa.ForeignKeyConstraint(
            ["book_id", "seq"], ["comptroller_record.book_id", "comptroller_record.seq"]
        ),
        sqlite_with_rowid=False,
    )
    create_for_books(
        "comptroller_lot_balance",
        whole("book_id"),
        whole("lot_no"),
        whole("units_in"),
        whole("units_used"),
        whole("units_gone"),
        whole("units_held"),
        whole("money_in_minor"),
        whole("money_out_minor"),
        whole("refunded", default="0"),
        whole("open"),
        instant("expires_at", null=True),
        sa.PrimaryKeyConstraint("book_id", "lot_no"),
        sa.CheckConstraint(
            "money_in_minor >= 0 AND money_out_minor >= 0 AND money_in_minor - money_out_minor >= 0"
        ),
        sa.CheckConstraint("open = 0 OR open = 1"),
        sa.CheckConstraint("units_in - units_used - units_gone - units_held >= 0"),
        sa.CheckConstraint("units_used >= 0 AND units_gone >= 0 AND units_held >= 0"),
        sa.ForeignKeyConstraint(
            ["book_id", "lot_no"], ["comptroller_lot.book_id", "comptroller_lot.number"]
        ),
        rewritten=True,
        sqlite_with_rowid=False,
    )
    op.create_index(
        "comptroller_lot_expiring",
        "comptroller_lot_balance",
        ["expires_at"],
        sqlite_where=sa.text("open = 1"),
        postgresql_where=sa.text("open = 1"),
    )
    op.create_index(
        "comptroller_lot_open",
        "comptroller_lot_balance",
        ["book_id"],
        sqlite_where=sa.text("open = 1"),
        postgresql_where=sa.text("open = 1"),
    )


def _create_payment_references() -> None:
    """Which payments were booked, over all books."""
    op.create_table(
        "comptroller_payment_reference",
        words("origin"),
        words("reference"),
        whole("book_id"),
        whole("lot_no"),
        whole("seq"),
        words("request_hash"),
        sa.PrimaryKeyConstraint("origin", "reference"),
    )
    op.create_index(
        "comptroller_payment_reference_book", "comptroller_payment_reference", ["book_id"]
    )


def _create_lines() -> None:
    """The lines of statements."""
    create_for_books(
        "comptroller_line",
        whole("book_id"),
        whole("seq"),
        whole("idx"),
        words("kind"),
        instant("at"),
        whole("grant_no", null=True),
        words("plan"),
        words("operation"),
        words("member"),
        words("source"),
        whole("lot_no", null=True),
        whole("units"),
        whole("lot_units"),
        instant("counts_at", null=True),
        whole("spend_minor"),
        words("currency", null=True),
        whole("sold_minor"),
        whole("revenue_minor"),
        whole("breakage_minor"),
        whole("refunded_minor"),
        whole("gpu_estimated_micro_usd"),
        whole("gpu_micro_usd"),
        whole("gpu_unreported_micro_usd"),
        sa.PrimaryKeyConstraint("book_id", "seq", "idx"),
        sa.CheckConstraint(
            "sold_minor >= 0 AND revenue_minor >= 0 AND breakage_minor >= 0 AND refunded_minor >= 0"
        ),
        sa.ForeignKeyConstraint(
            ["book_id", "seq"], ["comptroller_record.book_id", "comptroller_record.seq"]
        ),
        sqlite_with_rowid=False,
    )
    op.create_index("comptroller_line_at", "comptroller_line", ["at"])
    op.create_index(
        "comptroller_line_grant", "comptroller_line", ["book_id", "grant_no", "gpu_micro_usd"]
    )
    op.create_index(
        "comptroller_line_window",
        "comptroller_line",
        ["book_id", "counts_at", "source", "member", "units", "spend_minor", "currency"],
        sqlite_where=sa.text("units <> 0"),
        postgresql_where=sa.text("units <> 0"),
    )
