"""The operator's budgets, shared by all books: what each has spent today, and charging it.

Where there is one writer (SQLite), a budget's day is one plain row. On PostgreSQL that row would keep all accounts
waiting for each other: there an estimate is charged to a block that this process has leased of the day
(quota/blocks.py), by a statement that waits for nobody. Where no block covers it, nothing is charged: `NoBlock` undoes
the transaction, a block is leased, and the request is decided again. Where none can be leased, the day's own row is
locked for the rest of the transaction, which is exact for the price of waiting.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import uuid4

from sqlalchemy import bindparam, func, select, update

from billing.sql import Db, Question, Row, Statement, insert_once, insert_or_add
from policies.decision import Decision
from policies.errors import AccountBusy
from policies.instants import micros
from policies.policy_set import PolicySet
from policies.state import BudgetRead
from policies.window import Window
from quota.tables import BUDGET_BLOCKS, BUDGET_DAYS

Day = tuple[str, datetime]
"""A budget and the start of one of its days."""

_OF_DAY: Final = (
    (BUDGET_DAYS.c.name == bindparam("name")) & (BUDGET_DAYS.c.starts_at == bindparam("starts_at")),
    (BUDGET_BLOCKS.c.name == bindparam("name"))
    & (BUDGET_BLOCKS.c.starts_at == bindparam("starts_at")),
)
_IN_BLOCKS: Final = (
    select(func.coalesce(func.sum(BUDGET_BLOCKS.c.spent_micro_usd), 0))
    .where(_OF_DAY[1])
    .scalar_subquery()
)
_SPENT: Final = Statement(
    select(BUDGET_DAYS.c.spent_micro_usd).where(_OF_DAY[0]),
    postgresql=select(BUDGET_DAYS.c.spent_micro_usd + _IN_BLOCKS).where(_OF_DAY[0]),
)
_ROW: Final = select(
    BUDGET_DAYS.c.spent_micro_usd, BUDGET_DAYS.c.leased_micro_usd, BUDGET_DAYS.c.blocks
).where(_OF_DAY[0])
_OUT: Final = Statement(_ROW)
_AT_HAND: Final = (
    select(
        func.coalesce(
            func.sum(BUDGET_BLOCKS.c.leased_micro_usd - BUDGET_BLOCKS.c.spent_micro_usd), 0
        )
    )
    .where(
        _OF_DAY[1],
        (BUDGET_BLOCKS.c.holder == bindparam("holder"))
        | (BUDGET_BLOCKS.c.ends_at <= bindparam("ended")),
    )
    .scalar_subquery()
)
_TAKEN: Final = Statement(
    select(
        BUDGET_DAYS.c.spent_micro_usd + BUDGET_DAYS.c.leased_micro_usd - _AT_HAND,
    ).where(_OF_DAY[0])
)
_LOCKED: Final = Statement(_ROW.with_for_update())
_ADD: Final = insert_or_add(BUDGET_DAYS, "spent_micro_usd")
_FIRST: Final = insert_once(BUDGET_DAYS)

_FREE: Final = BUDGET_BLOCKS.alias("free")
_ENOUGH: Final = BUDGET_BLOCKS.c.leased_micro_usd - BUDGET_BLOCKS.c.spent_micro_usd
_TAKE: Final = Statement(
    update(BUDGET_BLOCKS)
    .where(
        BUDGET_BLOCKS.c.name == bindparam("of_name"),
        BUDGET_BLOCKS.c.starts_at == bindparam("of_day"),
        bindparam("amount") <= _ENOUGH,
        BUDGET_BLOCKS.c.number
        == select(_FREE.c.number)
        .where(
            _FREE.c.name == bindparam("of_name"),
            _FREE.c.starts_at == bindparam("of_day"),
            _FREE.c.holder == bindparam("of_holder"),
            _FREE.c.leased_micro_usd - _FREE.c.spent_micro_usd >= bindparam("amount"),
            _FREE.c.ends_at > bindparam("now"),
        )
        .order_by(_FREE.c.number)
        .limit(1)
        # Another transaction of this process has the others: whoever waited for it would wait for its commit.
        .with_for_update(skip_locked=True)
        .scalar_subquery(),
    )
    .values(spent_micro_usd=BUDGET_BLOCKS.c.spent_micro_usd + bindparam("amount"))
    .returning(BUDGET_BLOCKS.c.number)
)


@dataclass(frozen=True, slots=True)
class Terms:
    """On which terms blocks are leased. decisions/0020 says what bounds follow from them.

    A block lives for `lease`; what is left of it then returns after `grace` more. All blocks together hold unspent at
    most one part in `share` of what the day has left, and one block at most one part in `part` of what they may still
    hold. The first is for `first` requests; one that is spent within `quick` is followed by one twice as large, one
    that lasted longer than `slow` by one half as large.
    """

    lease: timedelta = timedelta(seconds=60)
    grace: timedelta = timedelta(seconds=30)
    share: int = 8
    part: int = 16
    first: int = 16
    quick: timedelta = timedelta(seconds=1)
    slow: timedelta = timedelta(seconds=8)


@dataclass(slots=True)
class Holder:
    """Who leases blocks: one process, as long as it has the database open.

    `leased`: whether it ever has. `tight`: the days of which nothing more could be leased, and when that was tried.
    """

    terms: Terms = Terms()
    name: str = field(default_factory=lambda: uuid4().hex)
    leased: bool = False
    tight: dict[Day, datetime] = field(default_factory=dict)

    def is_tight(self, day: Day, now: datetime) -> bool:
        """Whether nothing more could be leased of a day a moment ago."""
        tried_at = self.tight.get(day)
        return tried_at is not None and tried_at <= now < tried_at + self.terms.quick


@dataclass(slots=True)
class Charging:
    """How one transaction charges budgets where they are leased: from whose blocks, or `plain`, on the day's row."""

    holder: Holder
    plain: frozenset[Day] = frozenset()
    locked: bool = False


class NoBlock(AccountBusy):
    """No block at hand covers a charge. Nothing was changed: lease one, and decide again."""

    def __init__(self, holder: Holder, budget: str, window: Window, now: datetime) -> None:
        super().__init__(f"budget `{budget}` has no block at hand: try again")
        self.holder, self.budget, self.now = holder, budget, now
        self.starts_at, self.ends_at = window.bounds(now)
        self.cost_micro_usd = self.limit_micro_usd = 0

    @property
    def day(self) -> Day:
        """The budget, and the start of its day."""
        return self.budget, self.starts_at


def load_spent(db: Db, read: BudgetRead, now: datetime) -> int:
    """Load what a budget has spent on the day that holds `now`, in micro-dollars.

    Where the day's own row is to be charged, that row is locked first, and what is leased counts as spent: to whoever
    has no block it is not there. Where that was found a moment ago, what others have leased counts as spent already
    when nothing is locked, so that those who are denied for it do not queue for the row.
    """
    day = (read.budget, read.window.bounds(now)[0])
    charging: Charging | None = db.budgets
    if charging is None:
        return _number(db.row(_SPENT, name=day[0], starts_at=day[1]))
    if day in charging.plain:
        _lock_plain(db, charging)
        spent, leased, _ = db.row(_OUT, name=day[0], starts_at=day[1]) or (0, 0, 0)
        return int(spent) + int(leased)
    holder = charging.holder
    if holder.is_tight(day, now):
        ended = now - holder.terms.grace
        taken = {"holder": holder.name, "ended": ended}
        return _number(db.row(_TAKEN, name=day[0], starts_at=day[1], **taken))
    return _number(db.row(_SPENT, name=day[0], starts_at=day[1]))


def spent_question(read: BudgetRead, now: datetime) -> Question:
    """Return what `load_spent` asks, where the day's own row is not the one to be charged."""
    return _SPENT, {"name": read.budget, "starts_at": read.window.bounds(now)[0]}


def is_vouched_for(db: Db, read: BudgetRead, now: datetime) -> bool:
    """Whether the cap holds whatever others have spent meanwhile: a block will be charged, and was set aside before."""
    charging: Charging | None = db.budgets
    return charging is not None and (read.budget, read.window.bounds(now)[0]) not in charging.plain


def charge_budgets(
    db: Db, policy_set: PolicySet, decision: Decision, now: datetime
) -> list[list[Any]]:
    """Charge a grant's estimate to the budgets it falls under.

    Returns (budget, start of its day, micro-dollars), and the number of the block where it was one.

    Raises:
        NoBlock: where budgets are leased, and no block at hand covers it.
    """
    cost = decision.gpu_cost_micro_usd
    if not cost:
        return []
    # In one order, whatever order policies name them in: who waits for one must not hold another's.
    charged = {
        read: _charge_estimate(db, policy_set, read, cost, now)
        for read in sorted(decision.budgets, key=lambda read: read.budget)
    }
    return [charged[read] for read in decision.budgets]


def charge_overrun(
    db: Db, budget: str, window: Window, over_micro_usd: int, now: datetime
) -> list[Any]:
    """Debit micro-dollars over the estimate to a budget's current day, whatever is left of it."""
    starts_at, charging = window.bounds(now)[0], db.budgets
    number = None
    if charging is not None and (budget, starts_at) not in charging.plain:
        number = _take(db, charging.holder, (budget, starts_at), over_micro_usd, now)
    if number is None:
        _add(db, (budget, starts_at), over_micro_usd)
    return _told(budget, starts_at, over_micro_usd, number)


def charge_plainly(db: Db, days: frozenset[Day]) -> None:
    """Charge these days of budgets on their own rows in this transaction, also where budgets are leased."""
    if days:
        db.budgets.plain = days


def lock_day(db: Db, day: Day) -> tuple[int, int, int]:
    """Lock a budget's day until the transaction ends.

    Returns (micro-dollars spent outside blocks, micro-dollars leased, how many blocks there were).
    """
    budget, starts_at = day
    _first(db, day)
    spent, leased, blocks = db.row(_LOCKED, name=budget, starts_at=starts_at) or (0, 0, 0)
    return int(spent), int(leased), int(blocks)


def _charge_estimate(
    db: Db, policy_set: PolicySet, read: BudgetRead, cost_micro_usd: int, now: datetime
) -> list[Any]:
    starts_at, charging = read.window.bounds(now)[0], db.budgets
    number = None
    if charging is None or (read.budget, starts_at) in charging.plain:
        _add(db, (read.budget, starts_at), cost_micro_usd)
    else:
        number = _take(db, charging.holder, (read.budget, starts_at), cost_micro_usd, now)
        if number is None:
            short = NoBlock(charging.holder, read.budget, read.window, now)
            short.cost_micro_usd = cost_micro_usd
            short.limit_micro_usd = policy_set.budgets[read.budget].limit_micro_usd
            raise short
    return _told(read.budget, starts_at, cost_micro_usd, number)


def _take(db: Db, holder: Holder, day: Day, amount_micro_usd: int, now: datetime) -> int | None:
    """Charge a block that this process has at hand, and return its number; None: none covers it."""
    row = db.row(
        _TAKE,
        of_name=day[0],
        of_day=day[1],
        of_holder=holder.name,
        amount=amount_micro_usd,
        now=now,
    )
    return None if row is None else int(row[0])


def _add(db: Db, day: Day, amount_micro_usd: int) -> None:
    db.run(
        _ADD,
        name=day[0],
        starts_at=day[1],
        spent_micro_usd=amount_micro_usd,
        leased_micro_usd=0,
        blocks=0,
    )


def _first(db: Db, day: Day) -> None:
    """Insert a day's row if it is not there, so that it can be locked."""
    db.run(_FIRST, name=day[0], starts_at=day[1], spent_micro_usd=0, leased_micro_usd=0, blocks=0)


def _lock_plain(db: Db, charging: Charging) -> None:
    """Lock all days that this transaction charges plainly, in one order, before any of them is read."""
    if not charging.locked:
        for day in sorted(charging.plain):
            lock_day(db, day)
        charging.locked = True


def _number(row: Row | None) -> int:
    return 0 if row is None else int(row[0])


def _told(budget: str, starts_at: datetime, micro_usd: int, number: int | None) -> list[Any]:
    told = [budget, micros(starts_at), micro_usd]
    return told if number is None else [*told, number]
