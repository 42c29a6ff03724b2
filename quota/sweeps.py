"""Writing down what has fallen due on quiet accounts. Changes no answer: reads fold dues, writes post them first."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import ColumnElement, bindparam, func, literal_column, select, union

from billing.books import lock_book_by_id, save_book
from billing.sql import Db, Statement
from billing.tables import BOOKS, LOT_BALANCES, RECORDS
from quota.dues import post_dues
from quota.tables import HOLDS

BATCH: Final = 500
ENDS: Final[tuple[ColumnElement[str], ...]] = tuple(
    literal_column(f"'{kind}'") for kind in ("settled", "released", "expired")
)

_DUE_LOTS: Final = select(LOT_BALANCES.c.book_id).where(
    LOT_BALANCES.c.open == literal_column("1"),
    LOT_BALANCES.c.expires_at <= bindparam("now"),
    LOT_BALANCES.c.units_in
    - LOT_BALANCES.c.units_used
    - LOT_BALANCES.c.units_gone
    - LOT_BALANCES.c.units_held
    > 0,
    LOT_BALANCES.c.book_id > bindparam("after"),
)
_DUE_HOLDS: Final = select(HOLDS.c.book_id).where(
    HOLDS.c.expires_at <= bindparam("now"), HOLDS.c.book_id > bindparam("after")
)
_DUE_PLANS: Final = select(BOOKS.c.id.label("book_id")).where(
    BOOKS.c.plan_due <= bindparam("now"), BOOKS.c.id > bindparam("after")
)
_DUE: Final = Statement(
    union(_DUE_LOTS, _DUE_HOLDS, _DUE_PLANS).order_by("book_id").limit(bindparam("most"))
)
_OVERDUE: Final = Statement(
    select(func.count()).select_from(HOLDS).where(HOLDS.c.expires_at <= bindparam("now"))
)
_ENDED: Final = Statement(
    select(RECORDS.c.kind, func.count())
    .where(RECORDS.c.at >= bindparam("since"), RECORDS.c.kind.in_(ENDS))
    .group_by(RECORDS.c.kind)
)


def books_with_dues(db: Db, now: datetime, after: int, most: int = BATCH) -> list[int]:
    """Return books on which something is due that is not written yet, by number."""
    return [int(row[0]) for row in db.rows(_DUE, now=now, after=after, most=most)]


def sweep_book(db: Db, book_id: int, now: datetime) -> int:
    """Write what is due on one book, and return how many records that took."""
    book = lock_book_by_id(db, book_id)
    if book is None:
        return 0
    before = book.seq
    post_dues(db, book, max(now, book.at))
    save_book(db, book)
    return book.seq - before


def overdue_holds(db: Db, now: datetime) -> int:
    """Return how many grants have expired without it being written yet."""
    row = db.row(_OVERDUE, now=now)
    return 0 if row is None else int(row[0])


def share_expired(db: Db, since: datetime) -> tuple[int, int]:
    """Return how many grants ended since an instant, and how many of them by expiry."""
    counts = {str(status): int(count) for status, count in db.rows(_ENDED, since=since)}
    return sum(counts.values()), counts.get("expired", 0)
