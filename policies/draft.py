"""A policy file as far as its parts are valid: what the checks across parts work on.

A part that is wrong by itself is left out here, and is known to be missing, so that one mistake is reported once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from policies.fields import Currency
from policies.gpu_cost import Gpu
from policies.kinds.budget import Budget
from policies.operation import Operation, Weights
from policies.part import Path
from policies.policy import Limit, Policy, Source
from policies.policy_set import Pack, Plan
from policies.registry import as_limit, as_source

PartT = TypeVar("PartT")
PolicyT = TypeVar("PolicyT", bound=Policy)

USD = "usd"


@dataclass(frozen=True, slots=True)
class Wrong:
    """Something wrong between parts, and where to mend it: at a value, or at its key."""

    path: Path
    message: str
    at_key: bool = False


@dataclass(frozen=True, slots=True)
class Section(Generic[PartT]):
    """A section's valid parts by name, and all the names that it has."""

    parts: Mapping[str, PartT] = field(default_factory=dict)
    names: frozenset[str] = frozenset()
    readable: bool = True

    @property
    def whole(self) -> bool:
        """Whether each of its parts is valid."""
        return self.readable and len(self.parts) == len(self.names)


@dataclass(frozen=True, slots=True)
class Listed(Generic[PolicyT]):
    """The policies of a plan's list: those that are valid, with their index in the file."""

    items: tuple[tuple[int, PolicyT], ...] = ()
    whole: bool = True


@dataclass(frozen=True, slots=True)
class PlanDraft:
    """A plan as it stands in the file. `limits` and `sources` are None where it does not name them."""

    name: str
    extends: str | None
    limits: Listed[Limit] | None
    sources: Listed[Source] | None
    overrides: Mapping[str, Any]
    overrides_whole: bool
    price: Any


@dataclass(frozen=True, slots=True)
class Draft:
    """A policy file's valid parts."""

    value: Mapping[str, Any]
    currency: str | None
    gpus: Section[Gpu]
    operations: Section[Operation]
    packs: Section[Pack]
    plans: Section[PlanDraft]
    budgets: Section[Budget]

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> Draft:
        """Collect what is valid in a file's value."""
        return cls(
            value=value,
            currency=_attempt(_currency.validate_python, value.get("currency", USD)),
            gpus=_section(value.get("gpus"), Gpu.model_validate),
            operations=_section(value.get("operations"), Operation.model_validate),
            packs=_section(value.get("packs"), Pack.model_validate),
            plans=_plans(value.get("plans")),
            budgets=_section(value.get("budgets"), Budget.model_validate),
        )

    def chain(self, name: str) -> tuple[PlanDraft, ...] | None:
        """Return a plan and what it extends, nearest first; None where that cannot be followed."""
        chain: list[PlanDraft] = []
        step: str | None = name
        while step is not None:
            plan = self.plans.parts.get(step)
            if plan is None or any(plan is earlier for earlier in chain):
                return None
            chain.append(plan)
            step = plan.extends
        return tuple(chain)

    def sources_of(self, name: str) -> tuple[PlanDraft, Listed[Source]] | None:
        """Return the plan's sources and the plan that names them; None where that cannot be known."""
        for plan in self.chain(name) or ():
            if plan.sources is not None:
                return plan, plan.sources
        return None

    def limits_of(self, name: str) -> tuple[PlanDraft, Listed[Limit]] | None:
        """Return the plan's limits and the plan that names them; None where that cannot be known."""
        for plan in self.chain(name) or ():
            if plan.limits is not None:
                return plan, plan.limits
        return None

    def source_names(self, name: str) -> frozenset[str] | None:
        """Return the names of the plan's sources; None where not all of them are known."""
        if self.chain(name) is None:
            return None
        found = self.sources_of(name)
        if found is None:
            return frozenset()
        return frozenset(s.label for _, s in found[1].items) if found[1].whole else None

    def every_source_name(self) -> frozenset[str] | None:
        """Return the names of all plans' sources; None where not all of them are known."""
        names = [self.source_names(plan) for plan in self.plans.parts]
        if not self.plans.whole or any(plan is None for plan in names):
            return None
        return frozenset(name for plan in names if plan for name in plan)

    def heirs(self, name: str) -> Iterator[str]:
        """Yield the plan and every plan that extends it, directly or not."""
        for other in self.plans.parts:
            if any(plan.name == name for plan in self.chain(other) or ()):
                yield other


_currency: TypeAdapter[str] = TypeAdapter(Currency)
_weights: TypeAdapter[Any] = TypeAdapter(Weights)


def path_of_source(plan: str, index: int) -> Path:
    """Return where a plan's source stands."""
    return ("plans", plan, "sources", index)


def _attempt(build: Callable[[Any], PartT], value: Any) -> PartT | None:
    try:
        return build(value)
    except (ValidationError, ValueError):
        return None


def _section(value: Any, build: Callable[[Any], PartT]) -> Section[PartT]:
    if value is None:
        return Section()
    if not isinstance(value, Mapping):
        return Section(readable=False)
    built = {name: _attempt(build, item) for name, item in value.items()}
    parts = {name: part for name, part in built.items() if part is not None}
    return Section(parts, frozenset(value))


def _plans(value: Any) -> Section[PlanDraft]:
    if not isinstance(value, Mapping):
        return Section(readable=False)
    plans = {name: _plan(name, item) for name, item in value.items() if isinstance(item, Mapping)}
    return Section(plans, frozenset(value))


def _plan(name: str, value: Mapping[str, Any]) -> PlanDraft:
    extends, price = value.get("extends"), value.get("price")
    overrides = value.get("operations")
    known: dict[str, Any] = {}
    for operation, override in (overrides if isinstance(overrides, Mapping) else {}).items():
        weight = override.get("weight") if isinstance(override, Mapping) else None
        parsed = None if weight is None else _attempt(_weights.validate_python, weight)
        if parsed is not None:
            known[operation] = parsed
    return PlanDraft(
        name=name,
        extends=None if extends is None else str(extends),
        limits=_listed(value, "limits", as_limit),
        sources=_listed(value, "sources", as_source),
        overrides=known,
        overrides_whole=overrides is None
        or (isinstance(overrides, Mapping) and len(known) == len(overrides)),
        price=None if price is None else _attempt(_price, price),
    )


def _price(value: Any) -> Any:
    return Plan.model_validate({"price": value}).price


def _listed(
    plan: Mapping[str, Any], key: str, build: Callable[[Any], PolicyT]
) -> Listed[PolicyT] | None:
    if key not in plan:
        return None
    if not isinstance(plan[key], list):
        return Listed(whole=False)
    built = [_attempt(build, item) for item in plan[key]]
    items = tuple((index, item) for index, item in enumerate(built) if item is not None)
    return Listed(items, whole=len(items) == len(built))
