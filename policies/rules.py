"""What applies to one operation under one plan: limits, sources, weights and cost, ready to be decided upon."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from policies.errors import InvalidRequest
from policies.kinds.spend import SpendLimit
from policies.operation import Operation, Weight, units_of
from policies.policy import Asked, Limit, Policy, Source
from policies.request import AttributeValue, Circumstances, PaidUse, Request, SpendCap
from policies.state import Read
from policies.table import Linear, Table

if TYPE_CHECKING:
    from policies.gpu_cost import Gpu
    from policies.policy_set import PolicySet

PolicyT = TypeVar("PolicyT", bound=Policy)
SPEND_CAP = "spend_cap"


WEIGHED_MAX = 4096
"""How many different sets of attribute values are remembered with their weights and cost."""


class Weighed(NamedTuple):
    """What a request weighs in each source, in units, and its estimated GPU cost in micro-dollars."""

    units: tuple[int, ...]
    gpu_cost_micro_usd: int


class InForce(NamedTuple):
    """The limits: those consulted first, and for each source those consulted with it."""

    unguarded: tuple[Limit, ...]
    guards: tuple[tuple[Limit, ...], ...]


@dataclass(frozen=True, slots=True)
class Ruleset:
    """The policies of a plan for one operation, each with a name of its own."""

    plan: str
    operation_name: str
    operation: Operation
    limits: tuple[Limit, ...]
    sources: tuple[Source, ...]
    weights: Mapping[str, Weight]
    gpus: Mapping[str, Gpu]
    paid_use: PaidUse
    currency: str
    formula_attributes: tuple[str, ...]
    _weighed: dict[tuple[AttributeValue, ...], Weighed] = field(default_factory=dict, compare=False)
    _in_force: dict[SpendCap | None, InForce] = field(default_factory=dict, compare=False)

    @classmethod
    def build(cls, policy_set: PolicySet, plan_name: str, operation_name: str) -> Ruleset:
        """Collect what applies to an operation under a plan.

        Raises:
            InvalidRequest: the plan or the operation is unknown.
        """
        plan, operation = policy_set.plan(plan_name), policy_set.operation(operation_name)
        sources = () if operation.limits_only else named(plan.sources)
        override = plan.operations.get(operation_name)
        weights = {}
        for source in sources:
            weight = operation.weight_in(source.label, override.weight if override else None)
            if weight is not None:
                weights[source.label] = weight
        budgets = () if operation.limits_only else tuple(policy_set.budgets.values())
        return cls(
            plan=plan_name,
            operation_name=operation_name,
            operation=operation,
            limits=(*named(plan.limits), *budgets),
            sources=tuple(source for source in sources if source.label in weights),
            weights=weights,
            gpus=policy_set.gpus,
            paid_use=plan.paid_use,
            currency=policy_set.currency,
            formula_attributes=_read_by_formulas(operation, weights.values()),
        )

    def in_force(self, cap: SpendCap | None) -> InForce:
        """Return the limits in force, with the account's own spend cap."""
        found = self._in_force.get(cap)
        if found is None:
            limits = self.limits_of(cap)
            found = InForce(
                tuple(limit for limit in limits if not limit.is_guard),
                tuple(
                    tuple(limit for limit in limits if limit.is_guard and limit.guards(source))
                    for source in self.sources
                ),
            )
            if len(self._in_force) < WEIGHED_MAX:
                self._in_force[cap] = found
        return found

    def weigh(self, attributes: Mapping[str, AttributeValue]) -> Weighed:
        """Return what a request weighs and costs. Only the attributes that formulas read make a difference.

        Raises:
            InvalidRequest: a weight or the GPU cost has no value for these attributes.
        """
        key = tuple([attributes.get(name) for name in self.formula_attributes])
        found = self._weighed.get(key)  # type: ignore[arg-type]
        if found is None:
            units = tuple(self.units(source, attributes) for source in self.sources)
            found = Weighed(units, self.estimate_micro_usd(attributes))
            if len(self._weighed) < WEIGHED_MAX:
                self._weighed[key] = found  # type: ignore[index]
        return found

    def limits_of(self, cap: SpendCap | None) -> tuple[Limit, ...]:
        """Return the plan's limits, and the account's own spend cap where it has one."""
        if cap is None:
            return self.limits
        length = {"day": "24h", "week": "7d", "month": "1mo"}[cap.per]
        own = SpendLimit.model_validate(
            {
                "kind": "spend",
                "name": SPEND_CAP,
                "limit": cap.minor,
                "per": length,
                "window": "calendar",
            }
        )
        return (*self.limits, own)

    def estimate_micro_usd(self, attributes: Mapping[str, AttributeValue]) -> int:
        """Return the estimated GPU cost in micro-dollars, rounded up once.

        Raises:
            InvalidRequest: it cannot be estimated for these attributes.
        """
        if self.operation.gpu_cost is None:
            return 0
        try:
            return self.operation.gpu_cost.estimate_micro_usd(attributes, self.gpus)
        except LookupError as error:
            raise InvalidRequest(
                f"the GPU cost of `{self.operation_name}` cannot be estimated: {error}"
            ) from None

    def units(self, source: Source, attributes: Mapping[str, AttributeValue]) -> int:
        """Return what a request weighs in a source, in units.

        Raises:
            InvalidRequest: the weight has no value for these attributes.
        """
        return units_of(self.weights[source.label], attributes)

    def asked(self, request: Request, circumstances: Circumstances) -> Asked:
        """Return the question that every policy is asked, before the units are known."""
        cost = self.weigh(request.attributes).gpu_cost_micro_usd
        return Asked(request, circumstances, 0, cost, self.currency)

    def asked_for_nothing(self, request: Request, circumstances: Circumstances) -> Asked:
        """Return the question of somebody who only looks: no units, no cost, any attributes."""
        return Asked(request, circumstances, 0, 0, self.currency)

    def reads(self, request: Request, circumstances: Circumstances) -> tuple[Read, ...]:
        """Return all that the policies read, each once, in a fixed order."""
        asked = self.asked(request, circumstances)
        policies: tuple[Policy, ...] = (*self.limits_of(circumstances.spend_cap), *self.sources)
        return tuple(dict.fromkeys(read for policy in policies for read in policy.reads(asked)))


def _read_by_formulas(operation: Operation, weights: Iterable[Weight]) -> tuple[str, ...]:
    """Return the attributes that weights and cost depend on."""
    formulas: list[object] = list(weights)
    if operation.gpu_cost is not None:
        formulas.append(operation.gpu_cost.formula)
    names = {
        name
        for formula in formulas
        if isinstance(formula, (Table, Linear))
        for name in formula.attributes
    }
    return tuple(sorted(names))


def named(policies: tuple[PolicyT, ...]) -> tuple[PolicyT, ...]:
    """Give each policy a name of its own: its kind, and a number from the second of the same name on."""
    seen: Counter[str] = Counter()
    result = []
    for policy in policies:
        seen[policy.label] += 1
        count = seen[policy.label]
        result.append(policy.renamed(policy.label if count == 1 else f"{policy.label}_{count}"))
    return tuple(result)
