"""Loading what a decision reads: numbers for the instant of the decision, or the rows behind them.

Numbers (`Readings`) cost one statement for all windows and are what a grant is decided on. The rows (`History`) are
loaded for a denial, to find out when waiting helps, and wherever something has fallen due that is not yet written.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple

from sqlalchemy import bindparam, func, literal_column, select

from billing.books import BookState
from billing.lots import Lot
from billing.sql import Db, Question, Statement
from billing.tables import LINES
from policies.state import (
    BudgetRead,
    History,
    LotView,
    OpenGrant,
    OpenRead,
    RateRead,
    Read,
    Readings,
    UsageRead,
    Use,
    burn_order,
    rescaled,
)
from quota.budgets import load_spent
from quota.ids import lot_id
from quota.lot_rows import OPEN_LOTS, load_lots
from quota.tables import GRANTS, HOLDS

LINE: Final = LINES
FOREVER: Final = datetime.max.replace(tzinfo=UTC)
_TAKEN: Final = LINE.c.units != literal_column("0")
_HOLDS: Final = Statement(
    select(
        HOLDS.c.grant_no,
        HOLDS.c.granted_at,
        HOLDS.c.expires_at,
        HOLDS.c.started_at,
        HOLDS.c.returns,
        HOLDS.c.member,
    )
    .where(HOLDS.c.book_id == bindparam("book_id"))
    .order_by(HOLDS.c.grant_no)
)
USES: Final = Statement(
    select(
        LINE.c.grant_no,
        LINE.c.source,
        LINE.c.lot_no,
        LINE.c.member,
        LINE.c.counts_at,
        LINE.c.currency,
        func.sum(LINE.c.units),
        func.sum(LINE.c.spend_minor),
    )
    .where(LINE.c.book_id == bindparam("book_id"), _TAKEN, LINE.c.counts_at >= bindparam("since"))
    .group_by(
        LINE.c.grant_no,
        LINE.c.source,
        LINE.c.lot_no,
        LINE.c.member,
        LINE.c.counts_at,
        LINE.c.currency,
    )
    .having(func.sum(LINE.c.units) != 0)
    .order_by(LINE.c.counts_at)
)
_ALLOCATED: Final = Statement(
    select(GRANTS.c.allocations).where(
        GRANTS.c.book_id == bindparam("book_id"), GRANTS.c.number == bindparam("number")
    )
)


class HoldView(NamedTuple):
    """An open grant. `returns`: whether its expiry gives the units back."""

    grant_no: int
    granted_at: datetime
    expires_at: datetime
    started_at: datetime | None
    returns: int
    member: str


@dataclass(frozen=True, slots=True)
class Picture:
    """What of a book matters to every decision: its row, its open grants and its open lots."""

    book: BookState
    holds: tuple[HoldView, ...]
    lots: tuple[Lot, ...]

    def next_dues(self) -> Iterator[datetime]:
        """Yield when each open grant expires, each lot that has units available, and what is paid for plans."""
        yield from (hold.expires_at for hold in self.holds)
        yield from (lot.expires_at for lot in self.lots if lot.expires_at and lot.available > 0)
        if self.book.plan_due is not None:
            yield self.book.plan_due

    def has_dues(self, now: datetime) -> bool:
        """Whether something has fallen due that is not yet written."""
        if self.book.plan_due is not None and self.book.plan_due <= now:
            return True
        return any(hold.expires_at <= now for hold in self.holds) or any(
            lot.available > 0 and lot.expires_at is not None and lot.expires_at <= now
            for lot in self.lots
        )


def load_picture(db: Db, book: BookState) -> Picture:
    """Load a book's open grants and lots."""
    return Picture(
        book,
        load_holds(db, book.id) if book.grants else (),
        load_lots(db, book.id) if book.lots else (),
    )


def picture_questions(book: BookState) -> Iterator[Question]:
    """Yield what `load_picture` will ask."""
    holds, lots = every_picture_question(book.id)
    if book.grants:
        yield holds
    if book.lots:
        yield lots


def every_picture_question(book_id: int) -> tuple[Question, Question]:
    """Return what `load_picture` may ask of a book that is not known yet."""
    return (_HOLDS, {"book_id": book_id}), (OPEN_LOTS, {"book_id": book_id})


def load_holds(db: Db, book_id: int) -> tuple[HoldView, ...]:
    """Load a book's open grants, in order of their numbers."""
    return tuple(map(HoldView._make, db.rows(_HOLDS, book_id=book_id)))


def load_readings(db: Db, picture: Picture, reads: Sequence[Read], now: datetime) -> Readings:
    """Load the numbers that these reads ask for. Nothing may be due."""
    book = picture.book
    usage = [read for read in reads if isinstance(read, UsageRead)]
    totals, steady_until = load_usage(db, book.id, usage, now)
    numbers: dict[Read, int] = dict(zip(usage, totals, strict=True))
    for read in reads:
        match read:
            case OpenRead(member=member):
                numbers[read] = sum(
                    1 for hold in picture.holds if member is None or member == hold.member
                )
            case RateRead():
                tat, scale = book.tats.get(tat_key(read.policy, read.member), (0, 1))
                numbers[read] = rescaled(tat, scale, read.scale)
            case BudgetRead():
                numbers[read] = load_spent(db, read, now)
                steady_until = min(steady_until, read.window.bounds(now)[1])
            case UsageRead():
                pass
    steady_until = min((steady_until, *picture.next_dues()))
    views = (view_of(book.id, lot) for lot in picture.lots if lot.available > 0)
    return Readings(numbers, tuple(sorted(views, key=burn_order)), steady_until)


def load_usage(
    db: Db, book_id: int, reads: Sequence[UsageRead], now: datetime
) -> tuple[list[int], datetime]:
    """Load the units, or the money, that each window holds: one statement for all of them.

    Also returns until when these stay the same, if nothing else happens.
    """
    if not reads:
        return [], FOREVER
    statement, values = usage_question(book_id, reads, now)
    row = db.row(statement, **values) or ()
    totals, steady_until = [], FOREVER
    for index, read in enumerate(reads):
        total, oldest = row[2 * index : 2 * index + 2]
        if read.window.since(now) == values[f"since_{index}"]:
            steady_until = min(steady_until, _steady_until(read, oldest, now))
        else:
            total, steady_until = total + _doubtful(db, book_id, read, now), now
        totals.append(int(total))
    return totals, steady_until


def usage_question(book_id: int, reads: Sequence[UsageRead], now: datetime) -> Question:
    """Return what `load_usage` asks of some windows."""
    shapes: list[tuple[int, bool, str]] = []
    values: dict[str, Any] = {"book_id": book_id}
    for index, read in enumerate(reads):
        shapes.append((len(read.sources), read.member is not None, read.measure))
        values |= {f"source_{index}_{place}": source for place, source in enumerate(read.sources)}
        values[f"since_{index}"] = read.window.sure(now)
        if read.member is not None:
            values[f"member_{index}"] = read.member
        if read.measure == "spend":
            values[f"currency_{index}"] = read.currency
    return _sums(tuple(shapes)), values


def _steady_until(read: UsageRead, oldest: datetime | None, now: datetime) -> datetime:
    """Return until when a window holds what it holds now, if nothing else happens."""
    if read.window.kind == "calendar":
        return read.window.bounds(now)[1]
    return FOREVER if oldest is None else read.window.leaves(oldest, now)


def load_history(db: Db, picture: Picture, reads: Iterable[Read], now: datetime) -> History:
    """Load the rows behind the numbers: they answer for later instants too, and fold what has fallen due."""
    book, reads = picture.book, tuple(reads)
    since = min(
        (read.window.since(now) for read in reads if isinstance(read, UsageRead)), default=now
    )
    since = min((since, *(hold.granted_at for hold in picture.holds)))
    returns = {hold.grant_no: hold.expires_at for hold in picture.holds if hold.returns}
    uses = tuple(
        Use(
            source,
            counts_at,
            units,
            member,
            spend,
            currency,
            _lot_id(book.id, lot_no),
            returns.get(grant_no),
        )
        for grant_no, source, lot_no, member, counts_at, currency, units, spend in db.rows(
            USES, book_id=book.id, since=since
        )
    )
    budgets = {
        (read.budget, read.window.bounds(now)[0]): load_spent(db, read, now)
        for read in reads
        if isinstance(read, BudgetRead)
    }
    return History(
        uses=uses,
        grants=tuple(OpenGrant(hold.expires_at, hold.member) for hold in picture.holds),
        all_lots=tuple(view_of(book.id, lot) for lot in picture.lots if lot.takes_back),
        rates={split_tat_key(key): tat for key, tat in book.tats.items()},
        budgets=budgets,
    )


def empty_readings(db: Db, reads: Sequence[Read], now: datetime) -> Readings:
    """Return the numbers of an account that has no book yet."""
    history = empty_history(db, reads, now)
    days = (read.window.bounds(now)[1] for read in reads if isinstance(read, BudgetRead))
    numbers = {read: history.read(read, now) for read in reads}
    return Readings(numbers, steady_until=min(days, default=FOREVER))


def empty_history(db: Db, reads: Iterable[Read], now: datetime) -> History:
    """Return the history of an account that has no book yet: only what all accounts share."""
    budgets = {
        (read.budget, read.window.bounds(now)[0]): load_spent(db, read, now)
        for read in reads
        if isinstance(read, BudgetRead)
    }
    return History(budgets=budgets)


def load_allocations(db: Db, book_id: int, grant_no: int) -> list[list[Any]]:
    """Load what a grant took: (source, lot number, units, price in minor units, currency)."""
    row = db.row(_ALLOCATED, book_id=book_id, number=grant_no)
    return [] if row is None else list(json.loads(row[0]))


def view_of(book_id: int, lot: Lot) -> LotView:
    """Return a lot as the waterfall sees it."""
    return LotView(
        id=lot_id(book_id, lot.number),
        units=lot.units,
        price_minor=lot.price_minor,
        currency=lot.currency,
        # What comes back first makes up for what is owed: below zero, it is not to be had yet.
        available=lot.available - lot.owed,
        priority=lot.priority,
        expires_at=lot.expires_at,
        created_at=lot.created_at,
        number=lot.number,
    )


def tat_key(policy: str, member: str | None) -> str:
    """Return the key under which a book keeps a rate limit's state."""
    return policy if member is None else f"{policy}|{member}"


def split_tat_key(key: str) -> tuple[str, str | None]:
    """Return the policy and the member of such a key."""
    policy, bar, member = key.partition("|")
    return policy, member if bar else None


@lru_cache(maxsize=512)
def _sums(shapes: tuple[tuple[int, bool, str], ...]) -> Statement:
    windows = []
    for index, shape in enumerate(shapes):
        amount = LINE.c.units if shape[2] == "units" else LINE.c.spend_minor
        window = select(
            func.coalesce(func.sum(amount), 0).label("total"),
            func.min(LINE.c.counts_at).label("oldest"),
        ).where(
            LINE.c.book_id == bindparam("book_id"),
            _TAKEN,
            LINE.c.counts_at >= bindparam(f"since_{index}"),
            *_narrowed(shape, index),
        )
        windows.append(window.subquery(f"window_{index}"))
    columns = [column for window in windows for column in (window.c.total, window.c.oldest)]
    return Statement(select(*columns))


def _narrowed(shape: tuple[int, bool, str], index: int) -> list[Any]:
    sources, of_member, measure = shape
    conditions: list[Any] = []
    if sources == 1:
        conditions.append(LINE.c.source == bindparam(f"source_{index}_0"))
    elif sources > 1:
        conditions.append(
            LINE.c.source.in_([bindparam(f"source_{index}_{place}") for place in range(sources)])
        )
    if of_member:
        conditions.append(LINE.c.member == bindparam(f"member_{index}"))
    if measure == "spend":
        conditions.append(LINE.c.currency == bindparam(f"currency_{index}"))
    return conditions


def _doubtful(db: Db, book_id: int, read: UsageRead, now: datetime) -> int:
    """Add up what the statement left out: where months are clipped, each unit near the window's edge is asked."""
    since, sure, total = read.window.since(now), read.window.sure(now), 0
    for _, source, _, member, counts_at, currency, units, spend in db.rows(
        USES, book_id=book_id, since=since
    ):
        named = not read.sources or source in read.sources
        if counts_at >= sure or not named or not read.window.counts(counts_at, now):
            continue
        if read.member is not None and member != read.member:
            continue
        if read.measure == "units":
            total += units
        elif currency == read.currency:
            total += spend
    return total


def _lot_id(book_id: int, number: int | None) -> str | None:
    return None if number is None else lot_id(book_id, number)
