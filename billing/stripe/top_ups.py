"""Automatic top-ups, in SQL: who has opted in to what, and what was tried."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import bindparam, delete, func, literal_column, select, update

from billing.sql import Db, Row, Statement, insert_into
from billing.stripe.purchases import Sale, sales_of
from billing.stripe.tables import PURCHASES, TOP_UPS

TOP_UP: Final = "top_up"
BATCH: Final = 500

_TOP_UP: Final[Any] = TOP_UPS
_COLUMNS: Final = (TOP_UPS.c.pack, TOP_UPS.c.below_units, TOP_UPS.c.cap_minor, TOP_UPS.c.currency)
_ONE: Final = Statement(
    select(*_COLUMNS, TOP_UPS.c.off).where(TOP_UPS.c.book_id == bindparam("book_id"))
)
_FORGET: Final = Statement(delete(TOP_UPS).where(TOP_UPS.c.book_id == bindparam("of_book")))
_KEEP: Final = insert_into(TOP_UPS)
_ON: Final = Statement(
    select(TOP_UPS.c.book_id)
    .where(TOP_UPS.c.off.is_(None), TOP_UPS.c.book_id > bindparam("after"))
    .order_by(TOP_UPS.c.book_id)
    .limit(bindparam("most"))
)
_SPENT: Final = Statement(
    select(func.coalesce(func.sum(PURCHASES.c.price_minor), 0)).where(
        PURCHASES.c.book_id == bindparam("book_id"),
        PURCHASES.c.kind == literal_column(f"'{TOP_UP}'"),
        PURCHASES.c.problem.is_(None),
        PURCHASES.c.currency == bindparam("currency"),
        PURCHASES.c.created_at >= bindparam("since"),
    )
)
_GIVE_UP: Final = Statement(
    update(PURCHASES)
    .where(PURCHASES.c.id == bindparam("this"))
    .values(problem=bindparam("new_problem"))
)


class TopUp(NamedTuple):
    """What an account has opted in to: the pack to buy whenever fewer than `below_units` credits are left.

    At most `cap_minor` of `currency` are spent on it per calendar month (UTC). `off`: why it is switched off; None: on.
    """

    pack: str
    below_units: int
    cap_minor: int
    currency: str
    off: str | None = None

    def facts(self) -> dict[str, Any]:
        """Return what its record says."""
        return self._asdict()


def load_top_up(db: Db, book_id: int) -> TopUp | None:
    """Load what a book's account has opted in to."""
    row: Row | None = db.row(_ONE, book_id=book_id)
    return None if row is None else TopUp(*row)


def keep_top_up(db: Db, book_id: int, top_up: TopUp) -> None:
    """Replace what a book's account has opted in to."""
    db.run(_FORGET, of_book=book_id)
    db.run(_KEEP, book_id=book_id, **top_up._asdict())


def books_that_top_up(db: Db, after: int) -> list[int]:
    """Load the books, by number, whose accounts have opted in."""
    return [int(row[0]) for row in db.rows(_ON, after=after, most=BATCH)]


def spent_minor(db: Db, book_id: int, currency: str, since: datetime) -> int:
    """Return what top-ups since an instant have cost, or will if those under way are paid, in minor units."""
    row = db.row(_SPENT, book_id=book_id, currency=currency, since=since)
    return 0 if row is None else int(row[0])


def under_way(db: Db, book_id: int) -> Sale | None:
    """Return the top-up that is neither paid nor given up."""
    return next(
        (
            sale
            for sale in sales_of(db, book_id)
            if sale.kind == TOP_UP and not sale.state.paid and sale.problem is None
        ),
        None,
    )


def give_up(db: Db, purchase_id: str, why: str) -> None:
    """Say why nothing will come of a top-up."""
    db.run(_GIVE_UP, this=purchase_id, new_problem=why)
