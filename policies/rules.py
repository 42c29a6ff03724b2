"""What applies to one operation under one plan: limits, sources, weights and cost, ready to be decided upon."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from policies.errors import InvalidRequest
from policies.kinds.spend import SpendLimit
from policies.operation import Operation, Weight, units_of
from policies.policy import Asked, Limit, Policy, Source
from policies.request import AttributeValue, Circumstances, PaidUse, Request
from policies.state import Read

if TYPE_CHECKING:
    from policies.gpu_cost import Gpu
    from policies.policy_set import PolicySet

PolicyT = TypeVar("PolicyT", bound=Policy)
SPEND_CAP = "spend_cap"


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
        )

    def limits_of(self, circumstances: Circumstances) -> tuple[Limit, ...]:
        """Return the plan's limits, and the account's own spend cap where it has one."""
        cap = circumstances.spend_cap
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
        cost = self.estimate_micro_usd(request.attributes)
        return Asked(request, circumstances, 0, cost, self.currency)

    def asked_for_nothing(self, request: Request, circumstances: Circumstances) -> Asked:
        """Return the question of somebody who only looks: no units, no cost, any attributes."""
        return Asked(request, circumstances, 0, 0, self.currency)

    def reads(self, request: Request, circumstances: Circumstances) -> tuple[Read, ...]:
        """Return all that the policies read, each once, in a fixed order."""
        asked = self.asked(request, circumstances)
        policies: tuple[Policy, ...] = (*self.limits_of(circumstances), *self.sources)
        return tuple(dict.fromkeys(read for policy in policies for read in policy.reads(asked)))

    @property
    def reads_lots(self) -> bool:
        """Whether a source here is paid use, so that lots matter."""
        return any(source.paid for source in self.sources)


def named(policies: tuple[PolicyT, ...]) -> tuple[PolicyT, ...]:
    """Give each policy a name of its own: its kind, and a number from the second of the same name on."""
    seen: Counter[str] = Counter()
    result = []
    for policy in policies:
        seen[policy.label] += 1
        count = seen[policy.label]
        result.append(
            policy.model_copy(
                update={"name": policy.label if count == 1 else f"{policy.label}_{count}"}
            )
        )
    return tuple(result)
