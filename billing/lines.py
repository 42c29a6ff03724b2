"""Loading lines as they were posted, and what lines, transfers and balances add up to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import Select, bindparam, case, func, select

from billing.draft import Line
from billing.posted import Posted
from billing.posting import LINE_FIELDS
from billing.sql import Db, Statement
from billing.stripe.plan_rows import load_deferred
from billing.sums import MONEY_FIELDS, Sums
from billing.tables import LINES, LOT_BALANCES, LOTS, RECORDS, TRANSFERS
from billing.transfer import Phase

LINE: Final[Any] = LINES
_TRANSFER: Final[Any] = TRANSFERS
_RECORD: Final[Any] = RECORDS
_BALANCE: Final[Any] = LOT_BALANCES
_LOT: Final[Any] = LOTS

_HEAD: Final = ("seq", "kind", "at", "grant_no", "plan", "operation", "member")
_POSTED: Final = Statement(
    select(*(LINE.c[name] for name in (*_HEAD, *LINE_FIELDS)))
    .where(
        LINE.c.book_id == bindparam("book_id"),
        LINE.c.at >= bindparam("since"),
        LINE.c.at < bindparam("until"),
    )
    .order_by(LINE.c.seq, LINE.c.idx)
)


def load_posted(db: Db, book_id: int, since: datetime, until: datetime) -> list[Posted]:
    """Load a book's lines from `since` on and before `until`, in order."""
    rows = db.rows(_POSTED, book_id=book_id, since=since, until=until)
    return [
        Posted(seq, kind, at, grant_no, plan, operation, member, line_from(rest))
        for seq, kind, at, grant_no, plan, operation, member, *rest in rows
    ]


def line_from(row: Sequence[Any]) -> Line:
    """Return the line whose columns these are, in the order of `LINE_FIELDS`."""
    return Line(**dict(zip(LINE_FIELDS, row, strict=True)))


def load_line_sums(
    db: Db, since: datetime | None, until: datetime | None, book_id: int | None = None
) -> Sums:
    """Add up lines, of one book or of all: from `since` on and before `until`, where given."""
    sums = Sums()
    values = _given(since=since, until=until, book_id=book_id)
    for currency, units, gpu, *money in db.rows(_line_sums(tuple(values)), **values):
        sums.credits += int(units)
        sums.gpu_micro_usd += int(gpu)
        for name, amount in zip(MONEY_FIELDS, money, strict=True):
            if amount:
                getattr(sums, name)[currency or ""] += int(amount)
    return sums


def load_transfer_sums(
    db: Db, since: datetime | None, until: datetime | None, book_id: int | None = None
) -> Sums:
    """Add up transfers, of one book or of all: from `since` on and before `until`, where given."""
    sums = Sums()
    values = _given(since=since, until=until, book_id=book_id)
    for side in ("debit", "credit"):
        for account, asset, phase, amount in db.rows(_transfer_sums(side, tuple(values)), **values):
            sums.add_moved(account, asset, int(amount), Phase(phase), debit=side == "debit")
    return sums


def load_balance_sums(db: Db, book_id: int | None = None) -> tuple[int, dict[str, int]]:
    """Add up balances of lots and of plans, of one book or of all: units available, and unearned money.

    Money is in minor units, by currency.
    """
    values = _given(book_id=book_id)
    rows = db.rows(_balance_sums(tuple(values)), **values)
    money = Counter({str(row[0]): int(row[2]) for row in rows})
    money.update(load_deferred(db, book_id))
    return sum(int(units) for _, units, _ in rows), dict(money)


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _within(wanted: Select[Any], table: Any, given: tuple[str, ...], dated: Any) -> Select[Any]:
    if "since" in given:
        wanted = wanted.where(dated.c.at >= bindparam("since"))
    if "until" in given:
        wanted = wanted.where(dated.c.at < bindparam("until"))
    if "book_id" in given:
        wanted = wanted.where(table.c.book_id == bindparam("book_id"))
    return wanted


@lru_cache(maxsize=32)
def _line_sums(given: tuple[str, ...]) -> Statement:
    columns = (
        func.sum(LINE.c.lot_units),
        func.sum(LINE.c.gpu_micro_usd + LINE.c.gpu_unreported_micro_usd),
        *(func.sum(LINE.c[name]) for name in MONEY_FIELDS),
    )
    wanted = _within(select(LINE.c.currency, *columns), LINE, given, LINE)
    return Statement(wanted.group_by(LINE.c.currency))


@lru_cache(maxsize=32)
def _transfer_sums(side: str, given: tuple[str, ...]) -> Statement:
    # All lots count alike, and there may be millions of them: the database adds them up.
    account = case(
        (_TRANSFER.c[side].like("lot:%"), "lot"),
        (_TRANSFER.c[side].like("deferred:%"), "deferred"),
        else_=_TRANSFER.c[side],
    ).label("account")
    columns = (account, _TRANSFER.c.asset, _TRANSFER.c.phase)
    wanted = select(*columns, func.sum(_TRANSFER.c.amount))
    if "since" in given or "until" in given:
        of_record = (_RECORD.c.book_id == _TRANSFER.c.book_id) & (_RECORD.c.seq == _TRANSFER.c.seq)
        wanted = wanted.join(_RECORD, of_record)
    wanted = _within(wanted, _TRANSFER, given, _RECORD)
    return Statement(wanted.group_by(account, _TRANSFER.c.asset, _TRANSFER.c.phase))


@lru_cache(maxsize=32)
def _balance_sums(given: tuple[str, ...]) -> Statement:
    left = _BALANCE.c.units_in - _BALANCE.c.units_used - _BALANCE.c.units_gone
    wanted = select(
        _LOT.c.currency,
        func.sum(left - _BALANCE.c.units_held),
        func.sum(_BALANCE.c.money_in_minor - _BALANCE.c.money_out_minor),
    ).join(_BALANCE, (_BALANCE.c.book_id == _LOT.c.book_id) & (_BALANCE.c.lot_no == _LOT.c.number))
    return Statement(_within(wanted, _BALANCE, given, _BALANCE).group_by(_LOT.c.currency))
