"""What the engine answers, in the model's form."""

from __future__ import annotations

from typing import Any

from quota import Grant


def seen(grant: Grant) -> tuple[Any, ...]:
    return (
        grant.id,
        grant.at,
        grant.plan,
        grant.member,
        grant.policy_version,
        grant.allocations,
        grant.findings,
        grant.gpu_cost_micro_usd,
        grant.status,
    )


def ending(made: Any) -> tuple[Any, ...]:
    return (
        made.status,
        made.by_this_call,
        made.late,
        made.units_charged,
        made.gpu_cost_micro_usd,
        made.gpu_reported,
    )


def issued(lot: Any) -> tuple[Any, ...]:
    return (lot.id, lot.units, lot.price_minor, lot.expires_at, lot.replayed)
