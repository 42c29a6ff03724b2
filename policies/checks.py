"""What must be right between the parts of a policy file: names that must exist, names that must differ.

Each check yields its findings with the path in the file. `formula_checks` holds those on weights and costs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from typing import Final

from policies.draft import Draft, Listed, PlanDraft, Wrong, path_of_source
from policies.fields import ANY_OPERATION, to_minor
from policies.formula_checks import check_formulas
from policies.part import Path
from policies.policy import Cap, Limit
from policies.rules import SPEND_CAP, named
from policies.suggest import did_you_mean, listed, shown
from policies.units import MINOR_MAX
from policies.waterfall import ACCOUNT

RESERVED_SOURCES: Final = ("by", "table", "base", "each")
"""Keys of weights: a source of such a name could not be told from them."""

RESERVED_LIMITS: Final = (SPEND_CAP, ACCOUNT)
"""What findings call the account's own spend cap, and a frozen account."""


def check_across(draft: Draft) -> Iterator[Wrong]:
    """Yield all that is wrong between the valid parts of a file."""
    checks: tuple[Callable[[Draft], Iterable[Wrong]], ...] = (
        _gpus,
        _extended_plans,
        _default_plan,
        _plans_without_sources,
        _names_of_sources,
        _names_of_limits,
        _sources_of_limits,
        _sources_of_budgets,
        _operations,
        _weights_by_source,
        _prices,
        check_formulas,
    )
    for check in checks:
        yield from check(draft)


def _gpus(draft: Draft) -> Iterator[Wrong]:
    for name, operation in draft.operations.parts.items():
        gpu = operation.gpu_cost.gpu if operation.gpu_cost else None
        if gpu is not None and draft.gpus.readable and gpu not in draft.gpus.names:
            hint = did_you_mean(gpu, draft.gpus.names)
            yield Wrong(("operations", name, "gpu_cost", "gpu"), f"unknown GPU {shown(gpu)}{hint}")


def _extended_plans(draft: Draft) -> Iterator[Wrong]:
    for plan in draft.plans.parts.values():
        path = ("plans", plan.name, "extends")
        if plan.extends is None:
            continue
        if plan.extends not in draft.plans.names:
            hint = did_you_mean(plan.extends, draft.plans.names - {plan.name})
            yield Wrong(path, f"unknown plan {shown(plan.extends)}{hint}")
            continue
        cycle = _cycle(draft, plan.name)
        if cycle:
            yield Wrong(path, f"extends itself ({' -> '.join(cycle)}): let one of them stand alone")


def _cycle(draft: Draft, name: str) -> list[str]:
    """Return the cycle of plans that this plan is part of, from it and back to it, if there is one."""
    steps = [name]
    while True:
        plan = draft.plans.parts.get(steps[-1])
        if plan is None or plan.extends is None:
            return []
        if plan.extends == name:
            return [*steps, name]
        if plan.extends in steps:
            return []
        steps.append(plan.extends)


def _default_plan(draft: Draft) -> Iterator[Wrong]:
    name = draft.value.get("default_plan")
    if isinstance(name, (str, int)) and draft.plans.readable and str(name) not in draft.plans.names:
        hint = did_you_mean(str(name), draft.plans.names)
        yield Wrong(("default_plan",), f"unknown plan {shown(name)}{hint}")


def _plans_without_sources(draft: Draft) -> Iterator[Wrong]:
    paid_for = [name for name, part in draft.operations.parts.items() if not part.limits_only]
    if not paid_for:
        return
    for plan in draft.plans.parts.values():
        if draft.chain(plan.name) is None:
            continue
        found = draft.sources_of(plan.name)
        if found is None or (not found[1].items and found[1].whole):
            own = found is not None and found[0] is plan
            what = f"so {shown(paid_for[0])} could never be granted: give it `sources`"
            path = ("plans", plan.name, *(("sources",) if own else ()))
            yield Wrong(path, f"has no sources, {what}", at_key=True)


def _names_of_sources(draft: Draft) -> Iterator[Wrong]:
    for plan in draft.plans.parts.values():
        seen: dict[str, int] = {}
        paid: int | None = None
        for index, source in plan.sources.items if plan.sources else ():
            path = path_of_source(plan.name, index)
            at = (*path, "name") if source.name else path
            if source.label in seen:
                first = f"`{source.label}` is the name of sources[{seen[source.label]}] already"
                yield Wrong(at, f"{first}: give each source a `name` of its own")
            elif source.label in RESERVED_SOURCES:
                yield Wrong(at, f"`{source.label}` has a meaning in weights: choose another name")
            elif source.paid and paid is not None:
                message = (
                    f"sources[{paid}] stands for the account's lots already: leave out one of them"
                )
                yield Wrong(path, message)
            seen.setdefault(source.label, index)
            paid = index if source.paid and paid is None else paid


def _names_of_limits(draft: Draft) -> Iterator[Wrong]:
    """Findings speak of limits, budgets and sources by name, so in a plan no two may share one."""
    taken = dict.fromkeys(RESERVED_LIMITS, "something else in findings")
    for name in draft.budgets.names & set(taken):
        message = f"`{name}` is the name of {taken[name]} already: choose another"
        yield Wrong(("budgets", name), message, at_key=True)
    taken |= dict.fromkeys(draft.budgets.names, "a budget")
    for plan in draft.plans.parts.values():
        found, own = draft.limits_of(plan.name), plan.sources is not None
        sources = draft.source_names(plan.name) or frozenset()
        for name in sorted(sources & draft.budgets.names) if own else ():
            message = f"the source `{name}` has the name of a budget: choose another"
            yield Wrong(("plans", plan.name, "sources"), message, at_key=True)
        if found is None or not found[1].whole:
            continue
        owner, limits = found
        for path, label, first in _labels(owner, limits):
            if first is not None and owner is plan:
                message = f"`{label}` is the name of limits[{first}] already"
                yield Wrong(path, f"{message}: give each limit a `name` of its own")
            elif label in taken and owner is plan:
                yield Wrong(
                    path, f"`{label}` is the name of {taken[label]} already: choose another"
                )
            elif label in sources and owner is plan:
                message = f"`{label}` is the name of a source of this plan already: choose another"
                yield Wrong(path, message)
            elif label in sources and label not in (draft.source_names(owner.name) or ()):
                message = f"its source `{label}` has the name of a limit of `{owner.name}`"
                yield Wrong(("plans", plan.name, "sources"), f"{message}: choose another")


def _labels(plan: PlanDraft, limits: Listed[Limit]) -> Iterator[tuple[Path, str, int | None]]:
    """Yield where each limit has its name, the name, and the index of an earlier one that has it."""
    labels = [limit.label for limit in named(tuple(limit for _, limit in limits.items))]
    first: dict[str, int] = {}
    for (index, limit), label in zip(limits.items, labels, strict=True):
        path: Path = ("plans", plan.name, "limits", index, *(("name",) if limit.name else ()))
        asked = limit.label if limit.name and limit.label in first else label
        yield path, asked, first.get(asked)
        first.setdefault(label, index)


def _sources_of_limits(draft: Draft) -> Iterator[Wrong]:
    for plan in draft.plans.parts.values():
        found, known = draft.limits_of(plan.name), draft.source_names(plan.name)
        if found is None or known is None:
            continue
        owner, limits = found
        for index, limit in limits.items:
            for position, source in enumerate(limit.sources if isinstance(limit, Cap) else ()):
                if source in known:
                    continue
                if owner is plan:
                    path: Path = ("plans", plan.name, "limits", index, "sources", position)
                    yield Wrong(
                        path, f"unknown source {shown(source)}{did_you_mean(source, known)}"
                    )
                elif source in (draft.source_names(owner.name) or ()):
                    message = (
                        f"inherits the limit `{limit.label}` of {shown(owner.name)}, which names"
                        f" the source {shown(source)}: this plan has none, so give it `limits`"
                    )
                    yield Wrong(("plans", plan.name), message)


def _sources_of_budgets(draft: Draft) -> Iterator[Wrong]:
    known = draft.every_source_name()
    for name, budget in draft.budgets.parts.items():
        if budget.name is not None and budget.name != name:
            yield Wrong(("budgets", name, "name"), "a budget's name is its key: leave this out")
        for position, source in enumerate(budget.sources if known is not None else ()):
            if known is not None and source not in known:
                path = ("budgets", name, "sources", position)
                yield Wrong(
                    path, f"no plan has the source {shown(source)}{did_you_mean(source, known)}"
                )


def _operations(draft: Draft) -> Iterator[Wrong]:
    if ANY_OPERATION in draft.operations.names:
        message = f"`{ANY_OPERATION}` cannot be a name: name each operation"
        yield Wrong(("operations", ANY_OPERATION), message, at_key=True)
    for plan in draft.plans.parts.values():
        overrides = _mapping_at(draft, plan.name, "operations")
        for name in overrides if draft.operations.readable else ():
            if name not in draft.operations.names:
                hint = did_you_mean(name, draft.operations.names)
                path = ("plans", plan.name, "operations", name)
                yield Wrong(path, f"unknown operation {shown(name)}{hint}", at_key=True)


def _mapping_at(draft: Draft, plan: str, key: str) -> tuple[str, ...]:
    value = draft.value["plans"][plan].get(key)
    return tuple(value) if isinstance(value, dict) else ()


def _weights_by_source(draft: Draft) -> Iterator[Wrong]:
    every = draft.every_source_name()
    for name, operation in draft.operations.parts.items():
        if operation.limits_only:
            continue
        path = ("operations", name, "weight")
        if isinstance(operation.weight, dict):
            for source in operation.weight:
                if every is not None and source not in every:
                    message = f"no plan has the source {shown(source)}{did_you_mean(source, every)}"
                    yield Wrong((*path, source), message, at_key=True)
        lacking: dict[str, list[str]] = {}
        for plan in draft.plans.parts.values():
            for source in _without_weight(draft, plan, name):
                lacking.setdefault(source, []).append(plan.name)
        for source, plans in lacking.items():
            of = f"plan{'s' if len(plans) > 1 else ''} {listed(plans)}"
            yield Wrong(path, f"has no weight for the source `{source}` of {of}: add it")
    for plan in draft.plans.parts.values():
        yield from _override_sources(draft, plan)


def _without_weight(draft: Draft, plan: PlanDraft, operation: str) -> Iterator[str]:
    chain, found = draft.chain(plan.name), draft.sources_of(plan.name)
    if chain is None or found is None:
        return
    override = None
    for step in chain:
        if operation in step.overrides or not step.overrides_whole:
            override = step.overrides.get(operation)
            if override is None:
                return
            break
    for _, source in found[1].items:
        if draft.operations.parts[operation].weight_in(source.label, override) is None:
            yield source.label


def _override_sources(draft: Draft, plan: PlanDraft) -> Iterator[Wrong]:
    known = [draft.source_names(heir) for heir in draft.heirs(plan.name)]
    if not known or any(names is None for names in known):
        return
    every = frozenset(name for names in known if names for name in names)
    for operation, weight in plan.overrides.items():
        for source in weight if isinstance(weight, dict) else ():
            if source not in every:
                path = ("plans", plan.name, "operations", operation, "weight", source)
                hint = did_you_mean(source, every)
                yield Wrong(path, f"this plan has no source {shown(source)}{hint}", at_key=True)


def _prices(draft: Draft) -> Iterator[Wrong]:
    for name, pack in draft.packs.parts.items():
        path: Path = ("packs", name, "price")
        if not isinstance(pack.price, Decimal):
            for currency, amount in pack.price.items():
                yield from _price((*path, currency), amount, currency)
        elif draft.currency is not None:
            yield from _price(path, pack.price, draft.currency)
    for plan in draft.plans.parts.values():
        for currency, amount in plan.price.amounts.items() if plan.price is not None else ():
            yield from _price(("plans", plan.name, "price", currency), amount, currency)


def _price(path: Path, amount: Decimal, currency: str) -> Iterator[Wrong]:
    try:
        minor = to_minor(amount, currency)
    except ValueError as error:
        yield Wrong(path, str(error))
        return
    if minor > MINOR_MAX:
        yield Wrong(path, f"must be at most {MINOR_MAX} minor units of {currency}")
