"""The books' tables. The database itself refuses wrong rows: see the CHECKs, the foreign keys and the triggers.

Every key of a table that holds a book's rows begins with the book, so that it can be sharded by it. Names, payment
references and assets are global: no foreign key leads from or to them, so that they may live elsewhere than a book;
`verify` compares them with the records. Ledger rows (record, transfer, line, lot, ledger_account, payment_reference)
are append-only, which triggers enforce (billing/migrations). Names carry a prefix, so that a host's own `account`
table does not notice us; where there are schemas, they stand for a schema of our own (billing/placement).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar, Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    UniqueConstraint,
    text,
)
from sqlalchemy import Table as SqlTable
from sqlmodel import Field, SQLModel

from billing.columns import WORDS, Instant

PREFIX = "comptroller_"

CLUSTERED = {"sqlite_with_rowid": False}
"""SQLite keeps the rows in the order of their key, with no second index."""


class Table(SQLModel):
    """Base of our tables: a catalogue of their own."""

    metadata: ClassVar[MetaData] = MetaData()


def whole(
    name: str, *, primary_key: bool = False, nullable: bool = False, default: str | None = None
) -> Any:
    """A 64-bit integer column."""
    return Column(
        name,
        BigInteger,
        primary_key=primary_key,
        nullable=nullable,
        server_default=default,
        autoincrement=False,
    )


def words(
    name: str, *, primary_key: bool = False, nullable: bool = False, default: str | None = None
) -> Any:
    """A text column."""
    return Column(name, WORDS, primary_key=primary_key, nullable=nullable, server_default=default)


def instant(name: str, *, primary_key: bool = False, nullable: bool = False) -> Any:
    """A column for an instant in UTC."""
    return Column(name, Instant, primary_key=primary_key, nullable=nullable)


def octets(name: str, *, nullable: bool = False) -> Any:
    """A column for exact bytes."""
    return Column(name, LargeBinary, nullable=nullable)


def _book() -> Any:
    return whole("book_id", primary_key=True)


def _of_record(*, columns: tuple[str, str] = ("book_id", "seq")) -> ForeignKeyConstraint:
    return ForeignKeyConstraint(columns, [f"{PREFIX}record.book_id", f"{PREFIX}record.seq"])


class Asset(Table, table=True):
    """What can be counted: credits, a currency's minor units, GPU micro-dollars."""

    __tablename__ = f"{PREFIX}asset"
    __table_args__ = (CheckConstraint("scale BETWEEN 0 AND 12"),)
    code: str = Field(sa_column=words("code", primary_key=True))
    scale: int = Field(sa_column=Column("scale", Integer, nullable=False))


class Book(Table, table=True):
    """One account's chain: how far it reaches, and the account's settings. The row that every writer locks first."""

    __tablename__ = f"{PREFIX}book"
    __table_args__ = (
        CheckConstraint("seq >= 0"),
        CheckConstraint("paid_use IN ('auto', 'ask', 'never')"),
        CheckConstraint("spend_cap_per IN ('day', 'week', 'month')"),
        Index(
            f"{PREFIX}book_plan_due",
            "plan_due",
            sqlite_where=text("plan_due IS NOT NULL"),
            postgresql_where=text("plan_due IS NOT NULL"),
        ),
    )
    id: int = Field(
        sa_column=Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    )
    seq: int = Field(sa_column=whole("seq"))
    head: bytes = Field(sa_column=octets("head"))
    at: datetime = Field(sa_column=instant("at"))
    grants: int = Field(sa_column=whole("grants", default="0"))
    lots: int = Field(sa_column=whole("lots", default="0"))
    plan: str | None = Field(sa_column=words("plan", nullable=True))
    zones: str = Field(sa_column=words("zones"))
    paid_use: str | None = Field(sa_column=words("paid_use", nullable=True))
    spend_cap_minor: int | None = Field(sa_column=whole("spend_cap_minor", nullable=True))
    spend_cap_per: str | None = Field(sa_column=words("spend_cap_per", nullable=True))
    frozen: str | None = Field(sa_column=words("frozen", nullable=True))
    rates: str = Field(sa_column=words("rates"))
    disputes: int = Field(sa_column=whole("disputes", default="0"))
    plan_due: datetime | None = Field(sa_column=instant("plan_due", nullable=True))


class AccountName(Table, table=True):
    """Which book is whose. The name and the salt of the book's hashes are erased by `forget`."""

    __tablename__ = f"{PREFIX}account_name"
    name: str = Field(sa_column=words("name", primary_key=True))
    book_id: int = Field(sa_column=Column("book_id", BigInteger, nullable=False, unique=True))
    salt: bytes = Field(sa_column=octets("salt"))
    tags: str = Field(sa_column=words("tags", default="{}"))


class Erasable(Table, table=True):
    """The values behind the salted hashes in records: member names, keys and free text. Erased by `forget`."""

    __tablename__ = f"{PREFIX}erasable"
    book_id: int = Field(
        sa_column=Column("book_id", BigInteger, ForeignKey(f"{PREFIX}book.id"), primary_key=True)
    )
    hash: str = Field(sa_column=words("hash", primary_key=True))
    value: str = Field(sa_column=words("value"))


class LedgerAccount(Table, table=True):
    """An account of a book's ledger, in one asset."""

    __tablename__ = f"{PREFIX}ledger_account"
    __table_args__ = (UniqueConstraint("book_id", "id", "asset"), CLUSTERED)
    book_id: int = Field(
        sa_column=Column("book_id", BigInteger, ForeignKey(f"{PREFIX}book.id"), primary_key=True)
    )
    id: str = Field(sa_column=words("id", primary_key=True))
    asset: str = Field(sa_column=words("asset"))


class Record(Table, table=True):
    """One link of a book's hash chain: the exact bytes that were hashed."""

    __tablename__ = f"{PREFIX}record"
    __table_args__ = (
        UniqueConstraint("book_id", "once"),
        CheckConstraint("seq > 0"),
        ForeignKeyConstraint(["book_id"], [f"{PREFIX}book.id"]),
        Index(f"{PREFIX}record_at", "at"),
    )
    book_id: int = Field(sa_column=_book())
    seq: int = Field(sa_column=whole("seq", primary_key=True))
    kind: str = Field(sa_column=words("kind"))
    at: datetime = Field(sa_column=instant("at"))
    recorded_at: datetime = Field(sa_column=instant("recorded_at"))
    once: str | None = Field(sa_column=words("once", nullable=True))
    body: bytes = Field(sa_column=octets("body"))
    prev_hash: bytes = Field(sa_column=octets("prev_hash"))
    hash: bytes = Field(sa_column=octets("hash"))


class TransferRow(Table, table=True):
    """One transfer. Both accounts must be kept in its asset: a transfer across assets cannot be written."""

    __tablename__ = f"{PREFIX}transfer"
    __table_args__ = (
        CheckConstraint("amount > 0"),
        CheckConstraint("debit <> credit"),
        CheckConstraint("phase BETWEEN 0 AND 3"),
        _of_record(),
        ForeignKeyConstraint(
            ["book_id", "debit", "asset"],
            [
                f"{PREFIX}ledger_account.book_id",
                f"{PREFIX}ledger_account.id",
                f"{PREFIX}ledger_account.asset",
            ],
        ),
        ForeignKeyConstraint(
            ["book_id", "credit", "asset"],
            [
                f"{PREFIX}ledger_account.book_id",
                f"{PREFIX}ledger_account.id",
                f"{PREFIX}ledger_account.asset",
            ],
        ),
        CLUSTERED,
    )
    book_id: int = Field(sa_column=_book())
    seq: int = Field(sa_column=whole("seq", primary_key=True))
    idx: int = Field(sa_column=whole("idx", primary_key=True))
    debit: str = Field(sa_column=words("debit"))
    credit: str = Field(sa_column=words("credit"))
    asset: str = Field(sa_column=words("asset"))
    amount: int = Field(sa_column=whole("amount"))
    phase: int = Field(sa_column=whole("phase"))
    grant_no: int | None = Field(sa_column=whole("grant_no", nullable=True))
    lot_no: int | None = Field(sa_column=whole("lot_no", nullable=True))


class LotRow(Table, table=True):
    """What one purchase or promotion gave."""

    __tablename__ = f"{PREFIX}lot"
    __table_args__ = (
        CheckConstraint("units > 0"),
        CheckConstraint("price_minor >= 0"),
        _of_record(),
        CLUSTERED,
    )
    book_id: int = Field(sa_column=_book())
    number: int = Field(sa_column=whole("number", primary_key=True))
    seq: int = Field(sa_column=whole("seq"))
    origin: str = Field(sa_column=words("origin"))
    reference: str = Field(sa_column=words("reference"))
    pack: str | None = Field(sa_column=words("pack", nullable=True))
    units: int = Field(sa_column=whole("units"))
    price_minor: int = Field(sa_column=whole("price_minor"))
    currency: str = Field(sa_column=words("currency"))
    priority: int = Field(sa_column=whole("priority"))
    created_at: datetime = Field(sa_column=instant("created_at"))
    expires_at: datetime | None = Field(sa_column=instant("expires_at", nullable=True))


class LotBalance(Table, table=True):
    """A lot's balance, guarded: neither its units nor its unearned money can be overdrawn."""

    __tablename__ = f"{PREFIX}lot_balance"
    __table_args__ = (
        ForeignKeyConstraint(
            ["book_id", "lot_no"], [f"{PREFIX}lot.book_id", f"{PREFIX}lot.number"]
        ),
        CheckConstraint("units_used >= 0 AND units_gone >= 0 AND units_held >= 0"),
        CheckConstraint("units_in - units_used - units_gone - units_held >= 0"),
        CheckConstraint(
            "money_in_minor >= 0 AND money_out_minor >= 0 AND money_in_minor - money_out_minor >= 0"
        ),
        CheckConstraint("units_revoked >= 0 AND units_revoked <= units_gone"),
        CheckConstraint("units_suspended >= 0 AND units_suspended <= units_held"),
        CheckConstraint("money_revoked_minor >= 0 AND money_revoked_minor <= money_out_minor"),
        CheckConstraint("charged_back_minor >= 0 AND charged_back_minor <= returned_minor"),
        CheckConstraint("disputed = 0 OR disputed = 1"),
        CheckConstraint("open = 0 OR open = 1"),
        Index(
            f"{PREFIX}lot_open",
            "book_id",
            sqlite_where=text("open = 1"),
            postgresql_where=text("open = 1"),
        ),
        Index(
            f"{PREFIX}lot_expiring",
            "expires_at",
            sqlite_where=text("open = 1"),
            postgresql_where=text("open = 1"),
        ),
        CLUSTERED,
    )
    book_id: int = Field(sa_column=_book())
    lot_no: int = Field(sa_column=whole("lot_no", primary_key=True))
    units_in: int = Field(sa_column=whole("units_in"))
    units_used: int = Field(sa_column=whole("units_used"))
    units_gone: int = Field(sa_column=whole("units_gone"))
    units_held: int = Field(sa_column=whole("units_held"))
    money_in_minor: int = Field(sa_column=whole("money_in_minor"))
    units_revoked: int = Field(sa_column=whole("units_revoked", default="0"))
    units_suspended: int = Field(sa_column=whole("units_suspended", default="0"))
    money_out_minor: int = Field(sa_column=whole("money_out_minor"))
    money_revoked_minor: int = Field(sa_column=whole("money_revoked_minor", default="0"))
    returned_minor: int = Field(sa_column=whole("returned_minor", default="0"))
    charged_back_minor: int = Field(sa_column=whole("charged_back_minor", default="0"))
    disputed: int = Field(sa_column=whole("disputed", default="0"))
    refunded: int = Field(sa_column=whole("refunded", default="0"))
    open: int = Field(sa_column=whole("open"))
    expires_at: datetime | None = Field(sa_column=instant("expires_at", nullable=True))


class LineRow(Table, table=True):
    """One line of a statement: what windows count, what reports add up."""

    __tablename__ = f"{PREFIX}line"
    __table_args__ = (
        _of_record(),
        CheckConstraint(
            "sold_minor >= 0 AND breakage_minor >= 0"
            " AND (revenue_minor >= 0 OR kind = 'recognised')"
        ),
        Index(
            f"{PREFIX}line_window",
            "book_id",
            "counts_at",
            "source",
            "member",
            "units",
            "spend_minor",
            "currency",
            sqlite_where=text("units <> 0"),
            postgresql_where=text("units <> 0"),
        ),
        Index(f"{PREFIX}line_at", "at"),
        Index(f"{PREFIX}line_grant", "book_id", "grant_no", "gpu_micro_usd"),
        CLUSTERED,
    )
    book_id: int = Field(sa_column=_book())
    seq: int = Field(sa_column=whole("seq", primary_key=True))
    idx: int = Field(sa_column=whole("idx", primary_key=True))
    kind: str = Field(sa_column=words("kind"))
    at: datetime = Field(sa_column=instant("at"))
    grant_no: int | None = Field(sa_column=whole("grant_no", nullable=True))
    plan: str = Field(sa_column=words("plan"))
    operation: str = Field(sa_column=words("operation"))
    member: str = Field(sa_column=words("member"))
    source: str = Field(sa_column=words("source"))
    lot_no: int | None = Field(sa_column=whole("lot_no", nullable=True))
    units: int = Field(sa_column=whole("units"))
    lot_units: int = Field(sa_column=whole("lot_units"))
    counts_at: datetime | None = Field(sa_column=instant("counts_at", nullable=True))
    spend_minor: int = Field(sa_column=whole("spend_minor"))
    currency: str | None = Field(sa_column=words("currency", nullable=True))
    sold_minor: int = Field(sa_column=whole("sold_minor"))
    revenue_minor: int = Field(sa_column=whole("revenue_minor"))
    breakage_minor: int = Field(sa_column=whole("breakage_minor"))
    refunded_minor: int = Field(sa_column=whole("refunded_minor"))
    returned_minor: int = Field(sa_column=whole("returned_minor", default="0"))
    fee_minor: int = Field(sa_column=whole("fee_minor", default="0"))
    gpu_estimated_micro_usd: int = Field(sa_column=whole("gpu_estimated_micro_usd"))
    gpu_micro_usd: int = Field(sa_column=whole("gpu_micro_usd"))
    gpu_unreported_micro_usd: int = Field(sa_column=whole("gpu_unreported_micro_usd"))


class PaymentReference(Table, table=True):
    """Which payment, promotion or refund was booked already, and where: once per reference, over all books."""

    __tablename__ = f"{PREFIX}payment_reference"
    __table_args__ = (Index(f"{PREFIX}payment_reference_book", "book_id"),)
    origin: str = Field(sa_column=words("origin", primary_key=True))
    reference: str = Field(sa_column=words("reference", primary_key=True))
    book_id: int = Field(sa_column=whole("book_id"))
    lot_no: int = Field(sa_column=whole("lot_no"))
    seq: int = Field(sa_column=whole("seq"))
    request_hash: str = Field(sa_column=words("request_hash"))


def core(model: type[Table]) -> SqlTable:
    """Return a table for statements of SQLAlchemy Core: hot paths use those, not the ORM."""
    table: SqlTable = model.__table__  # type: ignore[attr-defined]
    return table


ASSETS: Final = core(Asset)
BOOKS: Final = core(Book)
ACCOUNT_NAMES: Final = core(AccountName)
ERASABLES: Final = core(Erasable)
LEDGER_ACCOUNTS: Final = core(LedgerAccount)
RECORDS: Final = core(Record)
TRANSFERS: Final = core(TransferRow)
LOTS: Final = core(LotRow)
LOT_BALANCES: Final = core(LotBalance)
LINES: Final = core(LineRow)
PAYMENT_REFERENCES: Final = core(PaymentReference)
