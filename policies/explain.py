"""What one request would take and cost, plan by plan, before anybody asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

from policies.part import spell
from policies.policy import Cap, Limit
from policies.policy_set import PolicySet
from policies.request import AttributeValue
from policies.rules import Ruleset
from policies.words import dollars, formula_words, hold_words, policy_words, release_words


@dataclass(frozen=True, slots=True)
class SourceLine:
    """One source of a plan: what it gives, what the request weighs in it, in units, and why."""

    name: str
    gives: str
    units: int
    weight: str
    requests: int | None
    """How many such requests the source pays for per window; None where that depends on the account."""


@dataclass(frozen=True, slots=True)
class LimitLine:
    """One limit of a plan, or a budget: what it allows, and the sources that it guards."""

    name: str
    allows: str
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PlanLine:
    """What the request takes under one plan."""

    plan: str
    paid_use: str
    sources: tuple[SourceLine, ...]
    limits: tuple[LimitLine, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """What one request would take and cost. `gpu_cost_micro_usd` is the estimate, in micro-dollars."""

    operation: str
    attributes: Mapping[str, AttributeValue]
    gpu: str | None
    gpu_seconds: str | None
    gpu_cost_micro_usd: int
    gpu_cost: str
    hold: str
    queued: str
    running: str
    limits_only: bool
    plans: tuple[PlanLine, ...]
    releases: Mapping[str, str]
    on_expire: str

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values, for JSON. Units are integers, cost is in micro-dollars."""
        values = asdict(self)
        values["attributes"] = {name: spell(value) for name, value in self.attributes.items()}
        return values


def explain(
    policy_set: PolicySet,
    operation: str,
    attributes: Mapping[str, object] | None = None,
    plan: str | None = None,
) -> Explanation:
    """Say what a request would take under one plan, or under every plan.

    Raises:
        InvalidRequest: the operation, the plan or an attribute is unknown, or a value is not allowed.
    """
    declared = policy_set.operation(operation)
    request = policy_set.request(operation, attributes, None, consent=False)
    names = list(policy_set.plans) if plan is None else [plan]
    rulesets = [policy_set.rules(name, operation) for name in names]
    cost = rulesets[0].estimate_micro_usd(request.attributes)
    model = declared.gpu_cost
    seconds = model.estimate_seconds(request.attributes) if model and model.gpu else None
    reasons = sorted(policy_set.on_release, key=lambda reason: (reason == "default", reason))
    return Explanation(
        operation=operation,
        attributes=request.attributes,
        gpu=model.gpu if model else None,
        gpu_seconds=None if seconds is None else _exactly(seconds),
        gpu_cost_micro_usd=cost,
        gpu_cost=dollars(cost),
        hold=hold_words(declared),
        queued=str(declared.hold.queued),
        running=str(declared.hold.running),
        limits_only=declared.limits_only,
        plans=tuple(_plan(rules, request.attributes) for rules in rulesets),
        releases={reason: release_words(policy_set.release_rule(reason)) for reason in reasons},
        on_expire="units come back"
        if policy_set.on_expire == "return_units"
        else "units are charged",
    )


def _plan(rules: Ruleset, attributes: Mapping[str, AttributeValue]) -> PlanLine:
    sources = []
    for source in rules.sources:
        units = rules.units(source, attributes)
        limit = getattr(source, "units", None)
        weight = formula_words(rules.weights[source.label])
        requests = limit // units if isinstance(limit, int) else None
        sources.append(SourceLine(source.label, policy_words(source), units, weight, requests))
    limits = tuple(_limit(limit, rules) for limit in rules.limits)
    return PlanLine(rules.plan, rules.paid_use, tuple(sources), limits)


def _limit(limit: Limit, rules: Ruleset) -> LimitLine:
    guarded = tuple(source.label for source in rules.sources if limit.guards(source))
    named = limit.sources if isinstance(limit, Cap) else guarded
    return LimitLine(limit.label, policy_words(limit), named)


def _exactly(seconds: Fraction) -> str:
    """Spell seconds: factors and bounds are decimals, so their sum is one."""
    numerator, denominator, digits = seconds.numerator, seconds.denominator, 0
    while denominator != 1:
        numerator, digits = numerator * 10, digits + 1
        common = Fraction(numerator, denominator)
        numerator, denominator = common.numerator, common.denominator
    whole = f"{numerator:0{digits + 1}d}"
    return f"{whole[:-digits]}.{whole[-digits:]}" if digits else whole
