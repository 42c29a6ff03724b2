"""Reading back what records and grants say."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import bindparam, select

from billing.sql import Db, Statement
from billing.tables import ACCOUNT_NAMES, ERASABLES, RECORDS
from policies.request import AttributeValue
from quota.grant_rows import GrantFacts

ERASED: Final = "(erased)"

_BODY: Final = Statement(
    select(RECORDS.c.body).where(
        RECORDS.c.book_id == bindparam("book_id"), RECORDS.c.seq == bindparam("seq")
    )
)
_VALUE: Final = Statement(
    select(ERASABLES.c.value).where(
        ERASABLES.c.book_id == bindparam("book_id"), ERASABLES.c.hash == bindparam("hash")
    )
)
_NAME: Final = Statement(
    select(ACCOUNT_NAMES.c.name).where(ACCOUNT_NAMES.c.book_id == bindparam("book_id"))
)


def record_body_bytes(db: Db, book_id: int, seq: int) -> bytes:
    """Return the exact bytes of a record."""
    row = db.row(_BODY, book_id=book_id, seq=seq)
    if row is None:
        raise LookupError(f"book {book_id} has no record {seq}")
    return bytes(row[0])


def record_body(db: Db, book_id: int, seq: int) -> dict[str, Any]:
    """Return what a record says."""
    return dict(json.loads(record_body_bytes(db, book_id, seq)))


def record_facts(db: Db, book_id: int, seq: int) -> dict[str, Any]:
    """Return the facts of a record."""
    return dict(record_body(db, book_id, seq)["facts"])


def account_name(db: Db, book_id: int) -> str:
    """Return whose book it is."""
    row = db.row(_NAME, book_id=book_id)
    return ERASED if row is None else str(row[0])


def value_of(db: Db, book_id: int, hashed: str) -> str:
    """Return the value behind a salted hash, unless it was erased."""
    row = db.row(_VALUE, book_id=book_id, hash=hashed)
    return ERASED if row is None else str(row[0])


def attributes_of(db: Db, grant: GrantFacts) -> dict[str, AttributeValue]:
    """Return a grant's attributes, free text included, unless it was erased."""
    return {name: _attribute(db, grant.book_id, value) for name, value in grant.attributes.items()}


def _attribute(db: Db, book_id: int, value: Any) -> AttributeValue:
    if isinstance(value, dict):
        return (
            Decimal(value["decimal"])
            if "decimal" in value
            else value_of(db, book_id, value["hash"])
        )
    return value if isinstance(value, (bool, int)) else str(value)
