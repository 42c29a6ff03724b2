"""What the books of one database add up to, for comparison with what the engine answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import func, literal_column, select

from billing.sql import Db, Statement
from billing.tables import LINES
from quota.tables import ENDINGS, GRANTS, HOLDS

_LINE: Final = LINES
_GRANT: Final = GRANTS
_END: Final = ENDINGS
_HOLD: Final = HOLDS
_ANY_GRANT: Final = Statement(select(_GRANT.c.number).limit(literal_column("1")))
_GRANTED: Final = Statement(
    select(func.count(), func.coalesce(func.sum(_GRANT.c.gpu_cost_micro_usd), 0)).select_from(
        _GRANT
    )
)
_OPEN: Final = Statement(select(func.count()).select_from(_HOLD))
_ENDED: Final = Statement(
    select(_END.c.status, func.count(), func.sum(_END.c.gpu_cost_micro_usd)).group_by(_END.c.status)
)
_UNITS: Final = Statement(
    select(_LINE.c.source, func.sum(_LINE.c.units))
    .where(_LINE.c.units != literal_column("0"))
    .group_by(_LINE.c.source)
)
_REVENUE: Final = Statement(select(func.coalesce(func.sum(_LINE.c.revenue_minor), 0)))


@dataclass(frozen=True, slots=True)
class BookTotals:
    """Totals over all books. Units by source, net of what came back, none where it is zero.

    GPU cost in micro-dollars, `actual` of settled and released grants; revenue in minor units.
    """

    granted: int
    settled: int
    released: int
    expired: int
    open: int
    units: dict[str, int]
    estimated_micro_usd: int
    actual_micro_usd: int
    revenue_minor: int


def has_grants(db: Db) -> bool:
    """Whether any account was ever granted anything."""
    return bool(db.rows(_ANY_GRANT))


def book_totals(db: Db) -> BookTotals:
    """Add up the books: units by source, GPU cost in micro-dollars, revenue in minor units."""
    granted, estimated = db.row(_GRANTED) or (0, 0)
    (still_open,) = db.row(_OPEN) or (0,)
    ended = {str(status): (int(count), int(cost)) for status, count, cost in db.rows(_ENDED)}
    settled, released = ended.get("settled", (0, 0)), ended.get("released", (0, 0))
    (revenue,) = db.row(_REVENUE) or (0,)
    return BookTotals(
        granted=int(granted),
        settled=settled[0],
        released=released[0],
        expired=ended.get("expired", (0, 0))[0],
        open=int(still_open),
        units={str(source): int(units) for source, units in db.rows(_UNITS) if units},
        estimated_micro_usd=int(estimated),
        actual_micro_usd=settled[1] + released[1],
        revenue_minor=int(revenue),
    )
