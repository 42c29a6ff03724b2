"""The tables of grants: what was granted, what is held, how each grant ended, and which denials there were."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    UniqueConstraint,
)
from sqlmodel import Field

from billing.tables import CLUSTERED, PREFIX, Table, core, instant, whole, words


def _of_grant() -> ForeignKeyConstraint:
    return ForeignKeyConstraint(
        ["book_id", "grant_no"], [f"{PREFIX}grant.book_id", f"{PREFIX}grant.number"]
    )


def _of_record() -> ForeignKeyConstraint:
    return ForeignKeyConstraint(
        ["book_id", "seq"], [f"{PREFIX}record.book_id", f"{PREFIX}record.seq"]
    )


class PolicyVersion(Table, table=True):
    """Every policy set that was ever used, by the hash of its content."""

    __tablename__ = f"{PREFIX}policy_version"
    version: str = Field(sa_column=words("version", primary_key=True))
    content: str = Field(sa_column=words("content"))


class GrantRow(Table, table=True):
    """An admitted request. Never changed: its end is a row of its own."""

    __tablename__ = f"{PREFIX}grant"
    __table_args__ = (
        UniqueConstraint("book_id", "key_hash"),
        CheckConstraint("gpu_cost_micro_usd >= 0"),
        _of_record(),
    )
    book_id: int = Field(sa_column=whole("book_id", primary_key=True))
    number: int = Field(sa_column=whole("number", primary_key=True))
    seq: int = Field(sa_column=whole("seq"))
    key_hash: str = Field(sa_column=words("key_hash"))
    request_hash: str = Field(sa_column=words("request_hash"))
    at: datetime = Field(sa_column=instant("at"))
    plan: str = Field(sa_column=words("plan"))
    operation: str = Field(sa_column=words("operation"))
    attributes: str = Field(sa_column=words("attributes"))
    member: str = Field(sa_column=words("member"))
    policy_version: str = Field(sa_column=words("policy_version"))
    gpu_cost_micro_usd: int = Field(sa_column=whole("gpu_cost_micro_usd"))
    allocations: str = Field(sa_column=words("allocations"))


class Hold(Table, table=True):
    """A grant that has not ended, and until when it lives. Deleted with its end."""

    __tablename__ = f"{PREFIX}hold"
    __table_args__ = (_of_grant(), Index(f"{PREFIX}hold_expiring", "expires_at"), CLUSTERED)
    book_id: int = Field(sa_column=whole("book_id", primary_key=True))
    grant_no: int = Field(sa_column=whole("grant_no", primary_key=True))
    granted_at: datetime = Field(sa_column=instant("granted_at"))
    expires_at: datetime = Field(sa_column=instant("expires_at"))
    started_at: datetime | None = Field(sa_column=instant("started_at", nullable=True))
    returns: int = Field(sa_column=whole("returns"))
    member: str = Field(sa_column=words("member"))


class Ending(Table, table=True):
    """How a grant ended. All who try compete for this one primary key."""

    __tablename__ = f"{PREFIX}ending"
    __table_args__ = (
        CheckConstraint("status IN ('settled', 'released', 'expired')"),
        CheckConstraint("units_charged >= 0 AND gpu_cost_micro_usd >= 0"),
        _of_grant(),
        _of_record(),
        CLUSTERED,
    )
    book_id: int = Field(sa_column=whole("book_id", primary_key=True))
    grant_no: int = Field(sa_column=whole("grant_no", primary_key=True))
    seq: int = Field(sa_column=whole("seq"))
    status: str = Field(sa_column=words("status"))
    reason: str | None = Field(sa_column=words("reason", nullable=True))
    at: datetime = Field(sa_column=instant("at"))
    units_charged: int = Field(sa_column=whole("units_charged"))
    gpu_cost_micro_usd: int = Field(sa_column=whole("gpu_cost_micro_usd"))
    gpu_reported: int = Field(sa_column=whole("gpu_reported"))


class LateEnding(Table, table=True):
    """The one report of work that finished after its grant had expired."""

    __tablename__ = f"{PREFIX}late_ending"
    __table_args__ = (
        CheckConstraint("units_charged >= 0 AND gpu_cost_micro_usd >= 0"),
        ForeignKeyConstraint(
            ["book_id", "grant_no"], [f"{PREFIX}ending.book_id", f"{PREFIX}ending.grant_no"]
        ),
        _of_record(),
        CLUSTERED,
    )
    book_id: int = Field(sa_column=whole("book_id", primary_key=True))
    grant_no: int = Field(sa_column=whole("grant_no", primary_key=True))
    seq: int = Field(sa_column=whole("seq"))
    at: datetime = Field(sa_column=instant("at"))
    units_charged: int = Field(sa_column=whole("units_charged"))
    gpu_cost_micro_usd: int = Field(sa_column=whole("gpu_cost_micro_usd"))
    gpu_reported: int = Field(sa_column=whole("gpu_reported"))


class GpuAttempt(Table, table=True):
    """GPU time of a crashed attempt: booked once per attempt."""

    __tablename__ = f"{PREFIX}gpu_attempt"
    __table_args__ = (
        CheckConstraint("gpu_cost_micro_usd >= 0"),
        _of_grant(),
        _of_record(),
        CLUSTERED,
    )
    book_id: int = Field(sa_column=whole("book_id", primary_key=True))
    grant_no: int = Field(sa_column=whole("grant_no", primary_key=True))
    attempt: str = Field(sa_column=words("attempt", primary_key=True))
    seq: int = Field(sa_column=whole("seq"))
    gpu_cost_micro_usd: int = Field(sa_column=whole("gpu_cost_micro_usd"))
    gpu_seconds: str = Field(sa_column=words("gpu_seconds"))
    gpu: str = Field(sa_column=words("gpu"))


class BudgetDay(Table, table=True):
    """What a budget has spent on one of its days outside blocks, and what of it is leased in blocks.

    `blocks`: how many there were, so that no two of a day have one number.
    """

    __tablename__ = f"{PREFIX}budget_day"
    __table_args__ = (
        CheckConstraint("spent_micro_usd >= 0"),
        CheckConstraint("leased_micro_usd >= 0 AND blocks >= 0"),
        CLUSTERED,
    )
    name: str = Field(sa_column=words("name", primary_key=True))
    starts_at: datetime = Field(sa_column=instant("starts_at", primary_key=True))
    spent_micro_usd: int = Field(sa_column=whole("spent_micro_usd"))
    leased_micro_usd: int = Field(sa_column=whole("leased_micro_usd", default="0"))
    blocks: int = Field(sa_column=whole("blocks", default="0"))


class BudgetBlock(Table, table=True):
    """A part of a budget's day that one process has leased. Deleted when it is returned; PostgreSQL only."""

    __tablename__ = f"{PREFIX}budget_block"
    __table_args__ = (CheckConstraint("spent_micro_usd BETWEEN 0 AND leased_micro_usd"), CLUSTERED)
    name: str = Field(sa_column=words("name", primary_key=True))
    starts_at: datetime = Field(sa_column=instant("starts_at", primary_key=True))
    number: int = Field(sa_column=whole("number", primary_key=True))
    holder: str = Field(sa_column=words("holder"))
    leased_micro_usd: int = Field(sa_column=whole("leased_micro_usd"))
    spent_micro_usd: int = Field(sa_column=whole("spent_micro_usd", default="0"))
    leased_at: datetime = Field(sa_column=instant("leased_at"))
    ends_at: datetime = Field(sa_column=instant("ends_at"))


class DenialRow(Table, table=True):
    """Denials of one account for one reason, coalesced. Not part of the books: a denial took nothing."""

    __tablename__ = f"{PREFIX}denial"
    __table_args__ = (
        Index(f"{PREFIX}denial_account", "account", "last_at"),
        CheckConstraint("count > 0"),
    )
    id: int = Field(
        sa_column=Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    )
    account: str = Field(sa_column=words("account"))
    member: str | None = Field(sa_column=words("member", nullable=True))
    operation: str = Field(sa_column=words("operation"))
    plan: str = Field(sa_column=words("plan"))
    reason: str = Field(sa_column=words("reason"))
    first_at: datetime = Field(sa_column=instant("first_at"))
    last_at: datetime = Field(sa_column=instant("last_at"))
    count: int = Field(sa_column=whole("count"))
    retry_at: datetime | None = Field(sa_column=instant("retry_at", nullable=True))
    findings: str = Field(sa_column=words("findings"))
    policy_version: str = Field(sa_column=words("policy_version"))


class DenialLoss(Table, table=True):
    """How many denials could not be recorded, by the process that lost them: losses are counted, never silent."""

    __tablename__ = f"{PREFIX}denial_loss"
    at: datetime = Field(sa_column=instant("at", primary_key=True))
    lost: int = Field(sa_column=whole("lost"))


POLICY_VERSIONS: Final = core(PolicyVersion)
GRANTS: Final = core(GrantRow)
HOLDS: Final = core(Hold)
ENDINGS: Final = core(Ending)
LATE_ENDINGS: Final = core(LateEnding)
GPU_ATTEMPTS: Final = core(GpuAttempt)
BUDGET_DAYS: Final = core(BudgetDay)
BUDGET_BLOCKS: Final = core(BudgetBlock)
DENIALS: Final = core(DenialRow)
DENIAL_LOSSES: Final = core(DenialLoss)
