"""Loading lots with their balances."""

from __future__ import annotations

from typing import Final

from sqlalchemy import bindparam, literal_column, select

from billing.lots import Lot
from billing.sql import Db, Row, Statement
from billing.tables import LOT_BALANCES, LOTS

_LOT_COLUMNS: Final = (
    LOTS.c.number,
    LOTS.c.origin,
    LOTS.c.reference,
    LOTS.c.pack,
    LOTS.c.units,
    LOTS.c.price_minor,
    LOTS.c.currency,
    LOTS.c.priority,
    LOTS.c.created_at,
    LOTS.c.expires_at,
    LOT_BALANCES.c.units_used,
    LOT_BALANCES.c.units_gone,
    LOT_BALANCES.c.units_held,
    LOT_BALANCES.c.refunded,
    LOT_BALANCES.c.units_revoked,
    LOT_BALANCES.c.money_revoked_minor,
    LOT_BALANCES.c.units_suspended,
    LOT_BALANCES.c.returned_minor,
    LOT_BALANCES.c.charged_back_minor,
    LOT_BALANCES.c.disputed,
)
_LOT_FLAGS: Final = tuple(
    place for place, column in enumerate(_LOT_COLUMNS) if column.name in ("refunded", "disputed")
)
_ALL_LOTS: Final = (
    select(*_LOT_COLUMNS)
    .join(
        LOT_BALANCES,
        (LOT_BALANCES.c.book_id == LOTS.c.book_id) & (LOT_BALANCES.c.lot_no == LOTS.c.number),
    )
    .where(LOT_BALANCES.c.book_id == bindparam("book_id"))
    .order_by(LOT_BALANCES.c.lot_no)
)
OPEN_LOTS: Final = Statement(_ALL_LOTS.where(LOT_BALANCES.c.open == literal_column("1")))
_EVERY_LOT: Final = Statement(_ALL_LOTS)
_ONE_LOT: Final = Statement(_ALL_LOTS.where(LOT_BALANCES.c.lot_no == bindparam("number")))


def load_lots(db: Db, book_id: int, *, every: bool = False) -> tuple[Lot, ...]:
    """Load a book's lots that still have units available or held, or every lot."""
    return tuple(_lot(row) for row in db.rows(_EVERY_LOT if every else OPEN_LOTS, book_id=book_id))


def load_lot(db: Db, book_id: int, number: int) -> Lot | None:
    """Load one lot."""
    row = db.row(_ONE_LOT, book_id=book_id, number=number)
    return None if row is None else _lot(row)


def _lot(row: Row) -> Lot:
    values = list(row)
    for flag in _LOT_FLAGS:
        values[flag] = bool(values[flag])
    return Lot(*values)
