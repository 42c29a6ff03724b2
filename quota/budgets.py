"""The operator's budgets: one row per budget and day, shared by all books."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from billing.sql import Db, insert_or_add
from policies.decision import Decision
from policies.instants import micros
from policies.window import Window
from quota.tables import BUDGET_DAYS

_ADD: Final = insert_or_add(BUDGET_DAYS, "spent_micro_usd")


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
    db.run(_ADD, name=budget, starts_at=day, spent_micro_usd=cost_micro_usd)
    return [budget, micros(day), cost_micro_usd]
