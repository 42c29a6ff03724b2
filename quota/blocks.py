"""Blocks of a budget's day: leased by a process before it grants, returned when they end.

Each call is a transaction of its own that locks the day's row, and waits for nobody while it does: blocks that a
transaction is charging are skipped. A block's row holds what grants have charged to it, written in the grants' own
transactions. So what it has left is a fact of the database, whatever has become of the process that leased it; and a
process whose block was returned under its feet finds no row, charges nothing, and leases another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Final, NamedTuple

from sqlalchemy import bindparam, delete, func, or_, select, update

from billing.sql import Db, Statement, insert_into
from quota.budgets import Day, Holder, NoBlock, lock_day
from quota.tables import BUDGET_BLOCKS, BUDGET_DAYS

UNHURRIED: Final = "SET LOCAL synchronous_commit = off"
"""A lease that a crash of the server takes back takes nothing with it: a grant that has charged it commits after it."""

_BLOCK: Final = BUDGET_BLOCKS.c
_OF_DAY: Final = (_BLOCK.name == bindparam("name")) & (_BLOCK.starts_at == bindparam("starts_at"))
_ENDED_OR_OF: Final = or_(
    _BLOCK.holder == bindparam("holder"), _BLOCK.ends_at <= bindparam("ended")
)
_FREE: Final = Statement(
    select(
        _BLOCK.number,
        _BLOCK.holder,
        _BLOCK.leased_micro_usd,
        _BLOCK.spent_micro_usd,
        _BLOCK.leased_at,
        _BLOCK.ends_at,
    )
    .where(_OF_DAY, _ENDED_OR_OF)
    .order_by(_BLOCK.number)
    .with_for_update(skip_locked=True)
)
_OPEN: Final = Statement(
    select(
        func.coalesce(func.sum(_BLOCK.spent_micro_usd), 0),
        func.coalesce(
            func.max(_BLOCK.leased_micro_usd).filter(_BLOCK.holder == bindparam("holder")), 0
        ),
    ).where(_OF_DAY)
)
_DELETE: Final = Statement(
    delete(BUDGET_BLOCKS).where(
        _BLOCK.name == bindparam("of_name"),
        _BLOCK.starts_at == bindparam("of_day"),
        _BLOCK.number == bindparam("of_number"),
    )
)
_INSERT: Final = insert_into(BUDGET_BLOCKS)
_SET: Final = Statement(
    update(BUDGET_DAYS)
    .where(
        BUDGET_DAYS.c.name == bindparam("of_name"), BUDGET_DAYS.c.starts_at == bindparam("of_day")
    )
    .values(
        spent_micro_usd=BUDGET_DAYS.c.spent_micro_usd + bindparam("spent"),
        leased_micro_usd=BUDGET_DAYS.c.leased_micro_usd + bindparam("leased"),
        blocks=BUDGET_DAYS.c.blocks + bindparam("more"),
    )
)
_DAYS: Final = Statement(
    select(_BLOCK.name, _BLOCK.starts_at)
    .where(_ENDED_OR_OF)
    .distinct()
    .order_by(_BLOCK.name, _BLOCK.starts_at)
)


class Block(NamedTuple):
    """A block that nobody is charging now. Amounts in micro-dollars."""

    number: int
    holder: str
    leased: int
    spent: int
    leased_at: datetime
    ends_at: datetime


def lease(db: Db, short: NoBlock) -> bool:
    """Lease a block that covers a charge, and return whether there is one at hand now.

    What this process has no use for any more is returned first, and what is left of others' dead blocks. A block is
    no larger than `Terms` allows, so that whatever becomes of processes most of the day's budget stays to be had.
    """
    holder, day, now = short.holder, short.day, short.now
    terms, cost = holder.terms, short.cost_micro_usd
    db.driver_sql(UNHURRIED)
    spent, leased, blocks = lock_day(db, day)
    free = _free(db, day, holder, now - terms.grace)
    # Another transaction has just let these go: one that looks for a block when all are taken shows that it takes more.
    covering = [block for block in free if _covers(block, short)]
    useless = [block for block in free if block not in covering]
    returned = _return(db, day, useless)
    spent, leased = spent + returned.spent, leased - returned.leased
    open_spent, largest = map(
        int, db.row(_OPEN, name=day[0], starts_at=day[1], holder=holder.name) or (0, 0)
    )
    limit = short.limit_micro_usd
    unspent, left = leased - open_spent, limit - spent - open_spent
    most = min((left // terms.share - unspent) // terms.part, limit - spent - leased)
    size = min(max(_wanted(useless, short), largest), most)
    if not covering and limit - spent - leased < cost:
        # Days past are nobody's to ask for any more.
        recent = {known: at for known, at in holder.tight.items() if known[1] >= day[1]}
        holder.tight = {**recent, day: now}
    if size < cost:
        return bool(covering)
    holder.leased = True
    db.run(
        _INSERT,
        name=day[0],
        starts_at=day[1],
        number=blocks + 1,
        holder=holder.name,
        leased_micro_usd=size,
        spent_micro_usd=0,
        leased_at=now,
        ends_at=max(now, min(now + terms.lease, short.ends_at)),
    )
    db.run(_SET, of_name=day[0], of_day=day[1], spent=0, leased=size, more=1)
    return True


def days_with_blocks(db: Db, now: datetime, holder: Holder, *, own: bool) -> list[Day]:
    """Return the days of budgets on which blocks have ended and their grace is over; or on which one holder has any."""
    rows = db.rows(_DAYS, holder=holder.name if own else "", ended=now - holder.terms.grace)
    return [(str(name), starts_at) for name, starts_at in rows]


def return_blocks(db: Db, day: Day, now: datetime, holder: Holder, *, own: bool) -> int:
    """Return what dead blocks have left, and all of a holder's own with `own`: how many micro-dollars that frees.

    Blocks that a transaction is charging stay.
    """
    db.driver_sql(UNHURRIED)
    lock_day(db, day)
    free = _free(db, day, holder, now - holder.terms.grace)
    dead = [block for block in free if own or block.ends_at <= now - holder.terms.grace]
    returned = _return(db, day, dead)
    return returned.leased - returned.spent


class _Returned(NamedTuple):
    spent: int
    leased: int


def _free(db: Db, day: Day, holder: Holder, ended: datetime) -> list[Block]:
    """Lock the blocks of one holder, and those that ended before an instant, unless they are being charged."""
    rows = db.rows(_FREE, name=day[0], starts_at=day[1], holder=holder.name, ended=ended)
    return [Block(*row) for row in rows]


def _return(db: Db, day: Day, blocks: Iterable[Block]) -> _Returned:
    """Delete blocks that are locked: what grants have spent of them is spent on the day, the rest is free again."""
    spent = leased = 0
    for block in blocks:
        db.run(_DELETE, of_name=day[0], of_day=day[1], of_number=block.number)
        spent, leased = spent + block.spent, leased + block.leased
    if leased:
        db.run(_SET, of_name=day[0], of_day=day[1], spent=spent, leased=-leased, more=0)
    return _Returned(spent, leased)


def _covers(block: Block, short: NoBlock) -> bool:
    """Whether a block is at hand after all: another transaction of this process has just let it go."""
    return (
        block.holder == short.holder.name
        and block.ends_at > short.now
        and block.leased - block.spent >= short.cost_micro_usd
    )


def _wanted(returned: Iterable[Block], short: NoBlock) -> int:
    """Return how large the next block should be, in micro-dollars: blocks that last about a second are right."""
    terms, small = short.holder.terms, short.holder.terms.first * short.cost_micro_usd
    when: Callable[[Block], datetime] = lambda block: block.leased_at  # noqa: E731 - a key with its type
    last = max(
        (each for each in returned if each.holder == short.holder.name), key=when, default=None
    )
    if last is None:
        return small
    lasted = short.now - last.leased_at
    if lasted <= terms.quick:
        return max(small, 2 * last.leased)
    return max(small, last.leased // 2 if lasted > terms.slow else last.leased)
