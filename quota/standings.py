"""How budgets stand today, for people and monitors. Nothing is decided on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import bindparam, func, select

from billing.sql import Db, Statement
from policies.policy_set import PolicySet
from quota.tables import BUDGET_BLOCKS, BUDGET_DAYS

_IN_BLOCKS: Final = (
    select(func.coalesce(func.sum(BUDGET_BLOCKS.c.spent_micro_usd), 0))
    .where(
        BUDGET_BLOCKS.c.name == bindparam("name"),
        BUDGET_BLOCKS.c.starts_at == bindparam("starts_at"),
    )
    .scalar_subquery()
)
_DAY: Final = Statement(
    select(BUDGET_DAYS.c.spent_micro_usd, BUDGET_DAYS.c.leased_micro_usd, _IN_BLOCKS).where(
        BUDGET_DAYS.c.name == bindparam("name"), BUDGET_DAYS.c.starts_at == bindparam("starts_at")
    )
)


@dataclass(frozen=True, slots=True)
class Standing:
    """A budget's current day, in micro-dollars. `leased`: what processes have set aside, and not spent."""

    name: str
    limit_micro_usd: int
    spent_micro_usd: int
    leased_micro_usd: int


def standings(db: Db, policy_set: PolicySet, now: datetime) -> Iterator[Standing]:
    """Yield how each budget stands on the day that holds `now`, in the order of the policy file."""
    for name, budget in policy_set.budgets.items():
        row = db.row(_DAY, name=name, starts_at=budget.read.window.bounds(now)[0]) or (0, 0, 0)
        outside, leased, inside = map(int, row)
        yield Standing(name, budget.limit_micro_usd, outside + inside, leased - inside)
