"""What a valid policy file may not have meant: nothing here is wrong, and each line says what it does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice, product
from typing import TYPE_CHECKING, Final

from policies.errors import InvalidRequest
from policies.kinds.allowance import Renewing
from policies.kinds.spend import SpendLimit
from policies.operation import Operation, units_of
from policies.part import Path
from policies.policy import Cap, Policy
from policies.request import AttributeValue
from policies.rules import named
from policies.suggest import listed
from policies.table import Linear

if TYPE_CHECKING:
    from policies.policy_set import Plan, PolicySet

TRIED_MAX: Final = 2_000
"""How many kinds of request are weighed to find one that no source can pay for."""


@dataclass(frozen=True, slots=True)
class Note:
    """Something to know about a valid policy file, and where it stands."""

    path: Path
    message: str


def notes(policy_set: PolicySet) -> tuple[Note, ...]:
    """Return what a reader of this policy set may want to know, in order of path."""
    checks: tuple[Callable[[PolicySet], Iterable[Note]], ...] = (
        _dropped,
        _unused_gpus,
        _packs,
        _paid_use,
        _guards,
        _unbounded_weights,
        _too_heavy,
        _limits_only,
    )
    found = (note for check in checks for note in check(policy_set))
    return tuple(sorted(found, key=lambda note: (tuple(map(str, note.path)), note.message)))


def _dropped(policy_set: PolicySet) -> Iterator[Note]:
    """A list that a plan names replaces the inherited one: say what that drops."""
    for name, plan in policy_set.plans.items():
        if plan.extends is None:
            continue
        parent = policy_set.plan(plan.extends)
        for key, verb in (("limits", "holds"), ("sources", "pays")):
            if key not in plan.model_fields_set:
                continue
            own = _labels(getattr(plan, key))
            gone = [label for label in _labels(getattr(parent, key)) if label not in own]
            if gone:
                replaced = f"its `{key}` replace those of `{plan.extends}`"
                message = (
                    f"{replaced}: {listed(gone)} no longer {verb if len(gone) == 1 else verb[:-1]}"
                )
                yield Note(("plans", name, key), message)


def _labels(policies: tuple[Policy, ...]) -> list[str]:
    return [policy.label for policy in named(policies)]


def _unused_gpus(policy_set: PolicySet) -> Iterator[Note]:
    used = {op.gpu_cost.gpu for op in policy_set.operations.values() if op.gpu_cost}
    for name in policy_set.gpus:
        if name not in used:
            yield Note(("gpus", name), "no operation runs on it: it serves `settle(gpu=...)` alone")


def _packs(policy_set: PolicySet) -> Iterator[Note]:
    if policy_set.packs and not any(_sells(policy_set, plan) for plan in policy_set.plans):
        yield Note(
            ("packs",), "no plan has a `credits` source, so what they give could not be used"
        )
    for name, pack in policy_set.packs.items():
        if not isinstance(pack.price, Decimal) and policy_set.currency not in pack.price:
            message = (
                f"is not sold in {policy_set.currency}, the file's currency, so it is never offered"
            )
            yield Note(("packs", name, "price"), message)


def _sells(policy_set: PolicySet, plan: str) -> bool:
    return any(source.paid for source in policy_set.plan(plan).sources)


def _paid_use(policy_set: PolicySet) -> Iterator[Note]:
    for name, plan in policy_set.plans.items():
        if _sells(policy_set, name):
            continue
        if "paid_use" in plan.model_fields_set:
            yield Note(
                ("plans", name, "paid_use"), "has no effect: the plan has no `credits` source"
            )
        for index, limit in enumerate(plan.limits):
            if isinstance(limit, SpendLimit):
                message = "has no effect: the plan has no `credits` source"
                yield Note(("plans", name, "limits", index), message)


def _guards(policy_set: PolicySet) -> Iterator[Note]:
    caps: list[tuple[Path, Policy]] = [
        (("plans", name, "limits", index), limit)
        for name, plan in policy_set.plans.items()
        for index, limit in enumerate(plan.limits)
    ]
    caps += [(("budgets", name), budget) for name, budget in policy_set.budgets.items()]
    for path, cap in caps:
        if isinstance(cap, Cap) and cap.when_exhausted == "next_source" and not cap.sources:
            message = "has no effect without `sources`: a cap that names none denies"
            yield Note((*path, "when_exhausted"), message)


def _unbounded_weights(policy_set: PolicySet) -> Iterator[Note]:
    for name, operation in policy_set.operations.items():
        weights = operation.weight if isinstance(operation.weight, dict) else {"": operation.weight}
        for source, weight in weights.items():
            for attribute in weight.each if isinstance(weight, Linear) else ():
                if operation.attributes[attribute].greatest() is None:
                    path = ("operations", name, "weight", *((source,) if source else ()))
                    message = (
                        f"`{attribute}` has no `max`: one request may weigh any number of units"
                    )
                    yield Note((*path, "each", attribute), message)


def _too_heavy(policy_set: PolicySet) -> Iterator[Note]:
    """Say where an allowed request weighs more than each source of a plan ever gives."""
    for plan_name in policy_set.plans:
        plan = policy_set.plan(plan_name)
        if not plan.sources or not all(isinstance(source, Renewing) for source in plan.sources):
            continue
        for name, operation in policy_set.operations.items():
            attributes = _too_heavy_request(policy_set, plan, plan_name, name, operation)
            if attributes is None:
                continue
            asked = ", ".join(f"{key}={value}" for key, value in attributes.items())
            request = f"`{name}`{f' with {asked}' if asked else ''}"
            message = f"{request} weighs more than any source gives: it is never granted"
            yield Note(("plans", plan_name), message)


def _too_heavy_request(
    policy_set: PolicySet, plan: Plan, plan_name: str, name: str, operation: Operation
) -> dict[str, AttributeValue] | None:
    rules = policy_set.rules(plan_name, name)
    if operation.limits_only or any(source.split for source in plan.sources):
        return None
    limits = {
        source.label: source.units for source in rules.sources if isinstance(source, Renewing)
    }
    relevant = sorted({a for weight in rules.weights.values() for a in _attributes(weight)})
    values = [operation.attributes[attribute].values() or () for attribute in relevant]
    for combination in islice(product(*values), TRIED_MAX):
        attributes = dict(zip(relevant, combination, strict=True))
        try:
            weighed = {label: units_of(rules.weights[label], attributes) for label in limits}
        except InvalidRequest:
            continue
        if all(weighed[label] > limits[label] for label in limits):
            return attributes
    return None


def _attributes(weight: object) -> tuple[str, ...]:
    return getattr(weight, "attributes", ())


def _limits_only(policy_set: PolicySet) -> Iterator[Note]:
    for name, operation in policy_set.operations.items():
        if operation.limits_only and "weight" in operation.model_fields_set:
            message = "has no effect: `limits_only` takes no units"
            yield Note(("operations", name, "weight"), message)
