"""Payments through Stripe: what they have come to for lots, and what they do to money.

Units that were revoked may be restored now (a refund that fails), so a line's `refunded_minor` may be below zero.

Revision ID: 0004
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from alembic import op

from billing.migrations.columns import instant, octets, whole, words
from billing.migrations.triggers import guard
from billing.placement import SCHEMA, in_schema

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

LINE = "comptroller_line"
BALANCE = "comptroller_lot_balance"
NEW_OF_LINES = ("returned_minor", "fee_minor")
NEW_OF_BALANCES = (
    *("units_revoked", "units_suspended", "money_revoked_minor"),
    *("returned_minor", "charged_back_minor", "disputed"),
)
CHECKS_OF_BALANCES = (
    "units_revoked >= 0 AND units_revoked <= units_gone",
    "units_suspended >= 0 AND units_suspended <= units_held",
    "money_revoked_minor >= 0 AND money_revoked_minor <= money_out_minor",
    "charged_back_minor >= 0 AND charged_back_minor <= returned_minor",
    "disputed = 0 OR disputed = 1",
)
CHECK_OF_LINES = (
    "sold_minor >= 0 AND breakage_minor >= 0 AND (revenue_minor >= 0 OR kind = 'recognised')"
)


def upgrade() -> None:
    """Widen the tables of lines and balances, and make those of purchases and of what Stripe says."""
    op.add_column("comptroller_book", whole("disputes", default="0"))
    op.add_column("comptroller_book", instant("plan_due", null=True))
    op.create_index(
        "comptroller_book_plan_due",
        "comptroller_book",
        ["plan_due"],
        sqlite_where=sa.text("plan_due IS NOT NULL"),
        postgresql_where=sa.text("plan_due IS NOT NULL"),
    )
    if in_schema(op.get_bind().dialect):
        _widen_in_server()
    else:
        _make_again(LINE, _create_lines)
        guard(("line",), of_books=True)
        _make_again(BALANCE, _create_balances)
        _create_indexes()
    _fill_balances()
    _create_purchases()
    _create_plan_invoices()
    _create_top_ups()
    _create_events()
    _create_progress()


def _widen_in_server() -> None:
    for table, names in ((LINE, NEW_OF_LINES), (BALANCE, NEW_OF_BALANCES)):
        for name in names:
            op.add_column(table, whole(name, default="0"))
    for check in CHECKS_OF_BALANCES:
        op.create_check_constraint(None, BALANCE, check)
    inspector = sa.inspect(op.get_bind())
    for found in inspector.get_check_constraints("line", schema=SCHEMA):
        if "refunded_minor" in found["sqltext"]:
            op.drop_constraint(str(found["name"]), LINE, type_="check")
    op.create_check_constraint(None, LINE, CHECK_OF_LINES)


def _fill_balances() -> None:
    """Say of lots that were refunded before what was revoked of them: their transfers know."""
    for column, debit, credit in (
        ("units_revoked", "lot:", "= 'revoked'"),
        ("money_revoked_minor", "deferred:", "LIKE 'refunded:%'"),
    ):
        statement = (
            f"UPDATE {BALANCE} AS balance SET {column} = revoked.amount FROM ("  # noqa: S608 - our own names
            "SELECT book_id, debit, CAST(sum(amount) AS BIGINT) AS amount FROM comptroller_transfer"
            f" WHERE credit {credit} GROUP BY book_id, debit) AS revoked"
            " WHERE revoked.book_id = balance.book_id"
            f" AND revoked.debit = '{debit}' || CAST(balance.lot_no AS TEXT)"
        )
        op.execute(statement)


def _make_again(table: str, create: Callable[[], None]) -> None:
    """SQLite changes no CHECK of a table that is there."""
    before = f"{table}_before"
    names = [column["name"] for column in sa.inspect(op.get_bind()).get_columns(table)]
    columns = ", ".join(f'"{name}"' for name in names)
    op.execute(f"ALTER TABLE {table} RENAME TO {before}")
    create()
    op.execute(
        f"INSERT INTO {table} ({columns}) SELECT {columns} FROM {before}"  # noqa: S608 - our own names
    )
    op.drop_table(before)


def _create_lines() -> None:
    op.create_table(
        LINE,
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
        *(whole(name, default="0") for name in NEW_OF_LINES),
        whole("gpu_estimated_micro_usd"),
        whole("gpu_micro_usd"),
        whole("gpu_unreported_micro_usd"),
        sa.PrimaryKeyConstraint("book_id", "seq", "idx"),
        sa.CheckConstraint(CHECK_OF_LINES),
        sa.ForeignKeyConstraint(
            ["book_id", "seq"], ["comptroller_record.book_id", "comptroller_record.seq"]
        ),
        sqlite_with_rowid=False,
    )


def _create_balances() -> None:
    op.create_table(
        BALANCE,
        whole("book_id"),
        whole("lot_no"),
        whole("units_in"),
        whole("units_used"),
        whole("units_gone"),
        whole("units_held"),
        whole("money_in_minor"),
        whole("money_out_minor"),
        *(whole(name, default="0") for name in NEW_OF_BALANCES),
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
        *(sa.CheckConstraint(check) for check in CHECKS_OF_BALANCES),
        sa.ForeignKeyConstraint(
            ["book_id", "lot_no"], ["comptroller_lot.book_id", "comptroller_lot.number"]
        ),
        sqlite_with_rowid=False,
    )


def _create_indexes() -> None:
    """The indexes that went with the tables as they were before."""
    op.create_index("comptroller_line_at", LINE, ["at"])
    op.create_index("comptroller_line_grant", LINE, ["book_id", "grant_no", "gpu_micro_usd"])
    op.create_index(
        "comptroller_line_window",
        LINE,
        ["book_id", "counts_at", "source", "member", "units", "spend_minor", "currency"],
        sqlite_where=sa.text("units <> 0"),
    )
    is_open: dict[str, Any] = {"sqlite_where": sa.text("open = 1")}
    op.create_index("comptroller_lot_expiring", BALANCE, ["expires_at"], **is_open)
    op.create_index("comptroller_lot_open", BALANCE, ["book_id"], **is_open)


def _create_purchases() -> None:
    """What was offered to buyers, what is known of their payments, and who they are at Stripe."""
    op.create_table(
        "comptroller_purchase",
        words("id"),
        whole("book_id"),
        words("kind"),
        words("item"),
        whole("units"),
        whole("price_minor"),
        words("currency"),
        whole("priority"),
        words("valid_for", null=True),
        words("policy_version"),
        instant("created_at"),
        words("session_id", null=True),
        words("payment", null=True),
        whole("lot_no", null=True),
        whole("revision", default="0"),
        words("state", default="{}"),
        words("problem", null=True),
        sa.PrimaryKeyConstraint("id"),
        sa.CheckConstraint("units >= 0 AND price_minor >= 0 AND revision >= 0"),
        sa.CheckConstraint("kind IN ('pack', 'top_up', 'plan')"),
        sa.UniqueConstraint("session_id"),
        sa.UniqueConstraint("payment"),
    )
    op.create_index("comptroller_purchase_book", "comptroller_purchase", ["book_id"])
    op.create_table(
        "comptroller_stripe_fact",
        words("payment"),
        words("facts"),
        sa.PrimaryKeyConstraint("payment"),
    )
    op.create_table(
        "comptroller_stripe_customer",
        whole("book_id"),
        words("customer_id"),
        sa.PrimaryKeyConstraint("book_id"),
        sa.UniqueConstraint("customer_id"),
    )


def _create_plan_invoices() -> None:
    """What subscriptions were billed and paid, and how much of it is earned."""
    op.create_table(
        "comptroller_plan_invoice",
        words("id"),
        whole("book_id"),
        words("purchase"),
        words("currency"),
        words("payment", null=True),
        whole("revision", default="0"),
        words("state", default="{}"),
        words("spans", default="[]"),
        words("recognised", default="{}"),
        whole("revoked_minor", default="0"),
        whole("deferred_minor", default="0"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("payment"),
        sa.CheckConstraint("revision >= 0 AND revoked_minor >= 0"),
    )
    op.create_index("comptroller_plan_invoice_book", "comptroller_plan_invoice", ["book_id"])


def _create_top_ups() -> None:
    """Who has opted in to automatic top-ups."""
    op.create_table(
        "comptroller_top_up",
        whole("book_id"),
        words("pack"),
        whole("below_units"),
        whole("cap_minor"),
        words("currency"),
        words("off", null=True),
        sa.PrimaryKeyConstraint("book_id"),
        sa.CheckConstraint("below_units > 0 AND cap_minor >= 0"),
    )


def _create_events() -> None:
    """The inbox."""
    op.create_table(
        "comptroller_stripe_event",
        words("id"),
        words("type"),
        instant("created"),
        words("api_version", null=True),
        words("payment", null=True),
        words("customer", null=True),
        octets("payload", null=True),
        instant("received_at"),
        whole("attempts", default="0"),
        words("status"),
        words("effect", null=True),
        sa.PrimaryKeyConstraint("id"),
        sa.CheckConstraint("status IN ('received', 'done', 'ignored', 'failed')"),
    )
    op.create_index(
        "comptroller_stripe_event_open",
        "comptroller_stripe_event",
        ["received_at"],
        sqlite_where=sa.text("status IN ('received', 'failed')"),
        postgresql_where=sa.text("status IN ('received', 'failed')"),
    )
    op.create_index(
        "comptroller_stripe_event_ignored",
        "comptroller_stripe_event",
        ["received_at"],
        sqlite_where=sa.text("status = 'ignored' AND payload IS NOT NULL"),
        postgresql_where=sa.text("status = 'ignored' AND payload IS NOT NULL"),
    )
    op.create_index("comptroller_stripe_event_customer", "comptroller_stripe_event", ["customer"])
    op.create_index("comptroller_stripe_event_payment", "comptroller_stripe_event", ["payment"])


def _create_progress() -> None:
    """How far reconciliations have come."""
    op.create_table(
        "comptroller_stripe_progress",
        words("mode"),
        instant("saved_at"),
        whole("place"),
        words("after", null=True),
        words("found"),
        sa.PrimaryKeyConstraint("mode"),
    )
