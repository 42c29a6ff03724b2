"""Adding up lines by group in the database, for reports: nothing is loaded but the sums."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import bindparam, case, func, literal_column, or_, select

from billing.lines import LINE
from billing.plans import RECOGNISED
from billing.posted import Posted
from billing.report import CALENDAR, COUNTED, Key, Tally
from billing.sql import Db, Statement
from billing.tables import ACCOUNT_NAMES

_NAME: Final[Any] = ACCOUNT_NAMES
_NAMES: Final = Statement(select(_NAME.c.book_id, _NAME.c.name))
_ZERO: Final[Any] = literal_column("0")


def load_names(db: Db) -> dict[int, str]:
    """Load whose book is whose, of all that were not erased."""
    return {int(book_id): str(name) for book_id, name in db.rows(_NAMES)}


def columns_of(by: Sequence[str]) -> tuple[str, ...]:
    """Return the columns that tell groups apart; members are told apart within their account."""
    names: list[str] = []
    for name in by:
        if name in {"account", "member"}:
            names.append("book_id")
        if name not in (*CALENDAR, "account"):
            names.append(name)
    return tuple(dict.fromkeys(names))


def key_of(by: tuple[str, ...], bucket: str, book_id: int, posted: Posted) -> Key:
    """Return the group that a line belongs to, as `load_tallies` calls it."""
    values = {
        "book_id": str(book_id),
        "plan": posted.plan,
        "operation": posted.operation,
        "source": posted.line.source,
        "member": posted.member,
        "currency": posted.line.currency or "",
    }
    return (bucket, *(values[name] for name in columns_of(by)))


def load_tallies(
    db: Db, by: tuple[str, ...], bucket: str, since: datetime, until: datetime
) -> dict[Key, Tally]:
    """Add up the lines of grants, and what plans have earned, from `since` on and before `until`, by group."""
    columns = columns_of(by)
    tallies: dict[Key, Tally] = {}
    for *group, currency, granted, returned, estimated, gpu, unreported, revenue in db.rows(
        _sums(columns), since=since, until=until
    ):
        tally = tallies.setdefault(_key(bucket, group), Tally())
        tally.units_granted += int(granted)
        tally.units_returned += int(returned)
        tally.gpu_estimated_micro_usd += int(estimated)
        tally.gpu_micro_usd += int(gpu)
        tally.gpu_unreported_micro_usd += int(unreported)
        if revenue:
            tally.revenue_minor[currency or ""] += int(revenue)
    for *group, kind, count in db.rows(_counts(columns), since=since, until=until):
        if kind in COUNTED:
            tallies.setdefault(_key(bucket, group), Tally()).counts[kind] += int(count)
    return tallies


def _key(bucket: str, group: Sequence[Any]) -> Key:
    return (bucket, *("" if value is None else str(value) for value in group))


@lru_cache(maxsize=64)
def _sums(columns: tuple[str, ...]) -> Statement:
    group = [LINE.c[name] for name in columns]
    units = LINE.c.units
    wanted = select(
        *group,
        LINE.c.currency,
        func.sum(case((units > _ZERO, units), else_=_ZERO)),
        func.sum(case((units < _ZERO, -units), else_=_ZERO)),
        func.sum(LINE.c.gpu_estimated_micro_usd),
        func.sum(LINE.c.gpu_micro_usd),
        func.sum(LINE.c.gpu_unreported_micro_usd),
        func.sum(LINE.c.revenue_minor),
    ).where(
        *_period(),
        or_(LINE.c.grant_no.is_not(None), LINE.c.kind == literal_column(f"'{RECOGNISED}'")),
    )
    return Statement(wanted.group_by(*group, LINE.c.currency))


@lru_cache(maxsize=64)
def _counts(columns: tuple[str, ...]) -> Statement:
    # A record has a line for each of its allocations, but is one grant, or one end of a grant.
    group = [LINE.c[name] for name in columns]
    records = (
        select(*group, LINE.c.kind, LINE.c.book_id.label("of_book"), LINE.c.seq)
        .where(*_period(), LINE.c.grant_no.is_not(None))
        .distinct()
        .subquery()
    )
    group = [records.c[name] for name in columns]
    return Statement(select(*group, records.c.kind, func.count()).group_by(*group, records.c.kind))


def _period() -> tuple[Any, ...]:
    return LINE.c.at >= bindparam("since"), LINE.c.at < bindparam("until")
