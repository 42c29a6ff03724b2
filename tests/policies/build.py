"""Small policy sets, histories and requests for the tests of the pure floor."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from policies import (
    Asked,
    Circumstances,
    Decision,
    History,
    Limit,
    LotView,
    PolicySet,
    Request,
    Source,
    decide,
)
from policies.registry import as_limit, as_source

if TYPE_CHECKING:
    from collections.abc import Mapping

NOW = datetime(2025, 10, 1, 12, tzinfo=UTC)
"""A Wednesday."""

HOUR = timedelta(hours=1)
MICRO = timedelta(microseconds=1)

BASE = """\
schema: 1
gpus: {h100: {usd_per_hour: 3.60}}
operations:
  make:
    attributes:
      size: {type: integer, default: 1, min: 1, max: 9}
    weight: WEIGHT
    gpu_cost: {gpu: h100, gpu_seconds: 1000}
packs:
  ten: {units: 10, price: 4.00}
plans:
  plan:
PLAN
default_plan: plan
"""
"""One operation that costs a dollar."""


def policy_set(plan: str, weight: str = "1", more: str = "") -> PolicySet:
    """Build a set of one operation, `make`, and one plan, `plan`."""
    body = "\n".join(f"    {line}" for line in plan.strip("\n").splitlines())
    return PolicySet.parse(BASE.replace("WEIGHT", weight).replace("PLAN", body) + more)


def lot(
    lot_id: str = "lot",
    available: int = 10,
    *,
    units: int = 10,
    price_minor: int = 400,
    currency: str = "usd",
    priority: int = 0,
    expires_at: datetime | None = None,
    created_at: datetime = NOW - 24 * HOUR,
    number: int = 1,
) -> LotView:
    """Build a lot: by default ten units for four dollars."""
    return LotView(
        lot_id,
        units,
        price_minor,
        currency,
        available,
        priority,
        expires_at,
        created_at,
        number,
    )


def ask(
    policies: PolicySet,
    history: History | None = None,
    *,
    now: datetime = NOW,
    plan: str = "plan",
    consent: bool | int = False,
    member: str | None = None,
    attributes: Mapping[str, object] | None = None,
    **circumstances: Any,
) -> Decision:
    """Decide one request for `make`."""
    request = policies.request("make", attributes, member, consent)
    rules = policies.rules(plan, "make")
    state = History() if history is None else history
    return decide(request, rules, Circumstances(plan, **circumstances), state, now)


def question(
    units: int = 1,
    *,
    member: str | None = None,
    cost_micro_usd: int = 0,
    currency: str = "usd",
    **circumstances: Any,
) -> Asked:
    """Build the question that a single policy is asked."""
    request = Request("make", {}, member)
    return Asked(request, Circumstances("plan", **circumstances), units, cost_micro_usd, currency)


def limit(**parameters: Any) -> Any:
    """Build a limit as a policy file would."""
    built = as_limit(parameters)
    assert isinstance(built, Limit)
    return built


def source(**parameters: Any) -> Any:
    """Build a source as a policy file would."""
    built = as_source(parameters)
    assert isinstance(built, Source)
    return built
