"""Comparing what budgets have spent with what all books' records charged to them.

Books go on while they are verified. What records say therefore lies between what the rows said before, and what they
say after it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy import select

from billing.discrepancy import Discrepancy, discrepancy
from billing.sql import Db, Statement
from policies.instants import from_micros, micros
from quota.audit.state import BudgetSums
from quota.tables import BUDGET_BLOCKS, BUDGET_DAYS

_DAYS: Final = Statement(
    select(
        BUDGET_DAYS.c.name,
        BUDGET_DAYS.c.starts_at,
        BUDGET_DAYS.c.spent_micro_usd,
        BUDGET_DAYS.c.leased_micro_usd,
        BUDGET_DAYS.c.blocks,
    )
)
_BLOCKS: Final = Statement(
    select(
        BUDGET_BLOCKS.c.name,
        BUDGET_BLOCKS.c.starts_at,
        BUDGET_BLOCKS.c.number,
        BUDGET_BLOCKS.c.spent_micro_usd,
        BUDGET_BLOCKS.c.leased_micro_usd,
    )
)

DayKey = tuple[str, int]
BlockKey = tuple[str, int, int]


@dataclass(frozen=True, slots=True)
class BudgetRows:
    """What the rows of budgets say at one instant, in micro-dollars. `leased`: (by the days, by their blocks)."""

    spent: Mapping[DayKey, int]
    of_blocks: Mapping[BlockKey, int]
    leased: Mapping[DayKey, tuple[int, int]]
    blocks: Mapping[DayKey, int]


def budget_rows(db: Db) -> BudgetRows:
    """Load the rows of all budgets' days and blocks."""
    spent: dict[DayKey, int] = {}
    leased: dict[DayKey, tuple[int, int]] = {}
    blocks: dict[DayKey, int] = {}
    of_blocks: dict[BlockKey, int] = {}
    for name, day, spent_micro_usd, leased_micro_usd, number in db.rows(_DAYS):
        key = (str(name), micros(day))
        spent[key], leased[key] = int(spent_micro_usd), (int(leased_micro_usd), 0)
        blocks[key] = int(number)
    for name, day, number, spent_micro_usd, leased_micro_usd in db.rows(_BLOCKS):
        key = (str(name), micros(day))
        of_blocks[*key, int(number)] = int(spent_micro_usd)
        spent[key] = spent.get(key, 0) + int(spent_micro_usd)
        by_day, by_blocks = leased.get(key, (0, 0))
        leased[key] = (by_day, by_blocks + int(leased_micro_usd))
    return BudgetRows(spent, of_blocks, leased, blocks)


def check_budgets(sums: BudgetSums, before: BudgetRows, after: BudgetRows) -> Iterator[Discrepancy]:
    """A day has spent what records charged to it, a block what they charged to the block; a day leased what is out."""
    for key in sorted({*sums.spent, *before.spent, *after.spent}):
        charged = sums.spent[key]
        if not before.spent.get(key, 0) <= charged <= after.spent.get(key, 0):
            yield discrepancy(None, None, _spent(key), charged, after.spent.get(key))
        by_day, by_blocks = after.leased.get(key, (0, 0))
        if by_day != by_blocks:
            yield discrepancy(None, None, f"micro-USD leased of {_of(key)}", by_blocks, by_day)
    # A block that was returned meanwhile has no row: what was charged to it is part of what its day has spent.
    for block in sorted({*sums.of_blocks, *before.of_blocks, *after.of_blocks}):
        charged, key = sums.of_blocks[block], block[:2]
        most = after.of_blocks.get(block, charged)
        if not before.of_blocks.get(block, 0) <= charged <= most:
            what = f"micro-USD spent of block {block[2]} of {_of(key)}"
            yield discrepancy(None, None, what, charged, after.of_blocks.get(block))
        if block[2] > after.blocks.get(key, 0):
            what = f"blocks of {_of(key)}"
            yield discrepancy(None, None, what, f"{block[2]} or more", after.blocks.get(key))


def _spent(key: DayKey) -> str:
    return f"micro-USD spent of {_of(key)}"


def _of(key: DayKey) -> str:
    return f"budget {key[0]} on the day from {from_micros(key[1])}"
