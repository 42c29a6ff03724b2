"""The operator's budgets: one row per budget and day, shared by all books."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from sqlalchemy import bindparam, insert, update

from billing.sql import Db, Statement
from policies.decision import Decision
from policies.instants import micros
from policies.window import Window
from quota.tables import BUDGET_DAYS

_ADD: Final = Statement(
    update(BUDGET_DAYS)
    .where(
        BUDGET_DAYS.c.name == bindparam("of_name"), BUDGET_DAYS.c.starts_at == bindparam("of_day")
    )
    .values(spent_micro_usd=BUDGET_DAYS.c.spent_micro_usd + bindparam("amount"))
)
_FIRST: Final = Statement(
    insert(BUDGET_DAYS).values(
        name=bindparam("name"),
        starts_at=bindparam("starts_at"),
        spent_micro_usd=bindparam("spent_micro_usd"),
    )
)


def charge_budgets(db: Db, decision: Decision, now: datetime) -> list[list[Any]]:
    """Charge a grant's estimate to the budgets it falls under. Returns (budget, start of its day, micro-dollars)."""
    if not decision.gpu_cost_micro_usd:
        return []
    return [
        charge(db, read.budget, read.window, decision.gpu_cost_micro_usd, now)
        for read in decision.budgets
    ]


def charge(db: Db, budget: str, window: Window, cost_micro_usd: int, now: datetime) -> list[Any]:
    """Charge micro-dollars to a budget's current day."""
    day = window.bounds(now)[0]
    if not db.count(_ADD, of_name=budget, of_day=day, amount=cost_micro_usd):
        db.run(_FIRST, name=budget, starts_at=day, spent_micro_usd=cost_micro_usd)
    return [budget, micros(day), cost_micro_usd]
