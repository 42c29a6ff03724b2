"""The tables of selling: what was offered, what Stripe says of each payment, its customers, its events.

All books share them, since a message of Stripe's names no book. What counts is in the books' records: `verify`
compares purchases with them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import CheckConstraint, Index, UniqueConstraint, text
from sqlmodel import Field

from billing.tables import PREFIX, Table, core, instant, octets, whole, words

OPEN: Final = "status IN ('received', 'failed')"
IGNORED: Final = "status = 'ignored' AND payload IS NOT NULL"


class PurchaseRow(Table, table=True):
    """What was offered to a buyer, the payment that it led to, and the last state of that which was posted."""

    __tablename__ = f"{PREFIX}purchase"
    __table_args__ = (
        CheckConstraint("units >= 0 AND price_minor >= 0 AND revision >= 0"),
        CheckConstraint("kind IN ('pack', 'top_up', 'plan')"),
        UniqueConstraint("session_id"),
        UniqueConstraint("payment"),
        Index(f"{PREFIX}purchase_book", "book_id"),
    )
    id: str = Field(sa_column=words("id", primary_key=True))
    book_id: int = Field(sa_column=whole("book_id"))
    kind: str = Field(sa_column=words("kind"))
    item: str = Field(sa_column=words("item"))
    units: int = Field(sa_column=whole("units"))
    price_minor: int = Field(sa_column=whole("price_minor"))
    currency: str = Field(sa_column=words("currency"))
    priority: int = Field(sa_column=whole("priority"))
    valid_for: str | None = Field(sa_column=words("valid_for", nullable=True))
    policy_version: str = Field(sa_column=words("policy_version"))
    created_at: datetime = Field(sa_column=instant("created_at"))
    session_id: str | None = Field(sa_column=words("session_id", nullable=True))
    payment: str | None = Field(sa_column=words("payment", nullable=True))
    lot_no: int | None = Field(sa_column=whole("lot_no", nullable=True))
    revision: int = Field(sa_column=whole("revision", default="0"))
    state: str = Field(sa_column=words("state", default="{}"))
    problem: str | None = Field(sa_column=words("problem", nullable=True))


class PlanInvoice(Table, table=True):
    """What a subscription was billed and has paid, the last state of it that was posted, and what of it is earned."""

    __tablename__ = f"{PREFIX}plan_invoice"
    __table_args__ = (
        CheckConstraint("revision >= 0 AND revoked_minor >= 0"),
        UniqueConstraint("payment"),
        Index(f"{PREFIX}plan_invoice_book", "book_id"),
    )
    id: str = Field(sa_column=words("id", primary_key=True))
    book_id: int = Field(sa_column=whole("book_id"))
    purchase: str = Field(sa_column=words("purchase"))
    currency: str = Field(sa_column=words("currency"))
    payment: str | None = Field(sa_column=words("payment", nullable=True))
    revision: int = Field(sa_column=whole("revision", default="0"))
    state: str = Field(sa_column=words("state", default="{}"))
    spans: str = Field(sa_column=words("spans", default="[]"))
    recognised: str = Field(sa_column=words("recognised", default="{}"))
    revoked_minor: int = Field(sa_column=whole("revoked_minor", default="0"))
    deferred_minor: int = Field(sa_column=whole("deferred_minor", default="0"))


class StripeFact(Table, table=True):
    """All that is known of a payment at Stripe: the row that whoever learns more of it locks first."""

    __tablename__ = f"{PREFIX}stripe_fact"
    payment: str = Field(sa_column=words("payment", primary_key=True))
    facts: str = Field(sa_column=words("facts"))


class StripeCustomer(Table, table=True):
    """Who the buyer of a book is at Stripe. Erased by `forget`."""

    __tablename__ = f"{PREFIX}stripe_customer"
    __table_args__ = (UniqueConstraint("customer_id"),)
    book_id: int = Field(sa_column=whole("book_id", primary_key=True))
    customer_id: str = Field(sa_column=words("customer_id"))


class TopUpRow(Table, table=True):
    """What an account has opted in to buy whenever its credits run low. `off`: why it is switched off."""

    __tablename__ = f"{PREFIX}top_up"
    __table_args__ = (CheckConstraint("below_units > 0 AND cap_minor >= 0"),)
    book_id: int = Field(sa_column=whole("book_id", primary_key=True))
    pack: str = Field(sa_column=words("pack"))
    below_units: int = Field(sa_column=whole("below_units"))
    cap_minor: int = Field(sa_column=whole("cap_minor"))
    currency: str = Field(sa_column=words("currency"))
    off: str | None = Field(sa_column=words("off", nullable=True))


class StripeEvent(Table, table=True):
    """One event in the inbox, with its exact bytes until they are erased."""

    __tablename__ = f"{PREFIX}stripe_event"
    __table_args__ = (
        CheckConstraint("status IN ('received', 'done', 'ignored', 'failed')"),
        Index(
            f"{PREFIX}stripe_event_open",
            "received_at",
            sqlite_where=text(OPEN),
            postgresql_where=text(OPEN),
        ),
        Index(
            f"{PREFIX}stripe_event_ignored",
            "received_at",
            sqlite_where=text(IGNORED),
            postgresql_where=text(IGNORED),
        ),
        Index(f"{PREFIX}stripe_event_customer", "customer"),
        Index(f"{PREFIX}stripe_event_payment", "payment"),
    )
    id: str = Field(sa_column=words("id", primary_key=True))
    type: str = Field(sa_column=words("type"))
    created: datetime = Field(sa_column=instant("created"))
    api_version: str | None = Field(sa_column=words("api_version", nullable=True))
    payment: str | None = Field(sa_column=words("payment", nullable=True))
    customer: str | None = Field(sa_column=words("customer", nullable=True))
    payload: bytes | None = Field(sa_column=octets("payload", nullable=True))
    received_at: datetime = Field(sa_column=instant("received_at"))
    attempts: int = Field(sa_column=whole("attempts", default="0"))
    status: str = Field(sa_column=words("status"))
    effect: str | None = Field(sa_column=words("effect", nullable=True))


class StripeProgress(Table, table=True):
    """How far a reconciliation has come, and what it has found so far: what an interrupted one goes on from."""

    __tablename__ = f"{PREFIX}stripe_progress"
    mode: str = Field(sa_column=words("mode", primary_key=True))
    saved_at: datetime = Field(sa_column=instant("saved_at"))
    place: int = Field(sa_column=whole("place"))
    after: str | None = Field(sa_column=words("after", nullable=True))
    found: str = Field(sa_column=words("found"))


PURCHASES: Final = core(PurchaseRow)
PLAN_INVOICES: Final = core(PlanInvoice)
STRIPE_FACTS: Final = core(StripeFact)
STRIPE_CUSTOMERS: Final = core(StripeCustomer)
TOP_UPS: Final = core(TopUpRow)
STRIPE_EVENTS: Final = core(StripeEvent)
STRIPE_PROGRESS: Final = core(StripeProgress)
