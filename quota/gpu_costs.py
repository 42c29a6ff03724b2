"""What GPU time costs, and what of it goes over the estimate."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

from sqlalchemy import bindparam, func, select

from billing.draft import Line
from billing.sql import Db, Question, Statement
from policies.errors import InvalidRequest
from policies.policy_set import PolicySet
from policies.units import gpu_micro_usd
from quota.budgets import charge_overrun
from quota.endings import split_cost
from quota.grant_rows import GrantFacts
from quota.ids import parse_lot_id
from quota.load import LINE
from quota.locked import Locked
from quota.records import record_facts

_BOOKED: Final = Statement(
    select(func.coalesce(func.sum(LINE.c.gpu_micro_usd), 0)).where(
        LINE.c.book_id == bindparam("book_id"), LINE.c.grant_no == bindparam("grant_no")
    )
)


def price_gpu(
    grant: GrantFacts, then: PolicySet, today: PolicySet, gpu_seconds: Decimal, gpu: str | None
) -> int:
    """Return what GPU time, in seconds, costs in micro-dollars, at the prices that the grant was made under.

    Raises:
        InvalidRequest: the GPU type is unknown, or none is known for the operation.
    """
    model = then.operation(grant.operation).gpu_cost
    name = gpu or (None if model is None else model.gpu)
    if name is None:
        if gpu_seconds == 0:
            return 0
        raise InvalidRequest(
            f"`{grant.operation}` runs on no GPU of the policy file: say which one with gpu="
        )
    source = then if name in then.gpus else today
    return gpu_micro_usd(gpu_seconds, source.gpu(name).usd_per_hour)


def booked_question(book_id: int, grant_no: int) -> Question:
    """Return what `debit_overrun` asks first."""
    return _BOOKED, {"book_id": book_id, "grant_no": grant_no}


def debit_overrun(db: Db, locked: Locked, then: PolicySet, more_micro_usd: int) -> list[list[Any]]:
    """Debit what the known cost goes over the estimate to the budgets that took the estimate.

    An expired grant's estimate, posted as unreported, is no known cost: budgets took it before.
    """
    grant = locked.grant
    booked, values = booked_question(grant.book_id, grant.number)
    row = db.row(booked, **values) or (0,)
    before = max(int(row[0]), grant.gpu_cost_micro_usd)
    over = int(row[0]) + more_micro_usd - before
    if over <= 0:
        return []
    charged = record_facts(db, grant.book_id, grant.seq)["budgets"]
    known = [name for name, *_ in charged if name in then.budgets]
    return [
        charge_overrun(db, name, then.budgets[name].read.window, over, locked.now) for name in known
    ]


def gpu_lines(
    grant: GrantFacts, cost_micro_usd: int, unreported_micro_usd: int
) -> tuple[Line, ...]:
    """Return the lines of a GPU cost, in micro-dollars, divided over what the grant took."""
    units = [part.units for part in grant.allocations]
    if not units:
        return (Line(gpu_micro_usd=cost_micro_usd, gpu_unreported_micro_usd=unreported_micro_usd),)
    known, unknown = split_cost(cost_micro_usd, units), split_cost(-unreported_micro_usd, units)
    return tuple(
        Line(
            source=part.source,
            lot_no=None if part.lot_id is None else parse_lot_id(part.lot_id)[1],
            gpu_micro_usd=share,
            gpu_unreported_micro_usd=-less,
        )
        for part, share, less in zip(grant.allocations, known, unknown, strict=True)
    )
