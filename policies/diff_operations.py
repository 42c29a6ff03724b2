"""What changes about operations: who can ask for what, its weight in each source, its estimated GPU cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from typing import TYPE_CHECKING, Final

from policies.change import Change, Effect, Part, grouped, more_is
from policies.errors import InvalidRequest
from policies.operation import Attribute, Operation, Weight, units_of
from policies.part import spell
from policies.request import AttributeValue
from policies.suggest import listed
from policies.table import Linear, Table, combinations
from policies.units import micro_usd
from policies.words import at_attributes, dollars, formula_words, hold_words, percent

if TYPE_CHECKING:
    from policies.gpu_cost import GpuCost
    from policies.policy_set import PolicySet

COMPARED_MAX: Final = 5_000
"""How many kinds of request are compared one by one."""

LINES_MAX: Final = 8
"""How many of them are told one by one."""

ALIKE_MAX: Final = 2
"""How many of them are told one by one where all change by the same share."""

Attributes = dict[str, AttributeValue]


@dataclass(frozen=True, slots=True)
class _Moved:
    """A number that changes for some attributes; `ratio`: exactly by how much."""

    attributes: Attributes
    old: int
    new: int
    ratio: Fraction


def diff_operations(old: PolicySet, new: PolicySet) -> Iterator[Change]:
    """Return what changes about operations, in order of name."""
    for name in sorted({*old.operations, *new.operations}):
        where, before, after = (
            f"operations.{name}",
            old.operations.get(name),
            new.operations.get(name),
        )
        if before is None:
            text = f"operation {name} is new"
            yield Change("operation", where, (name,), text, "loosens")
        elif after is None:
            text = f"operation {name} is removed: requests for it are refused"
            yield Change("operation", where, (name,), text, "tightens")
        else:
            yield from _attributes(where, name, before, after)
            yield from _weights(where, name, old, new)
            yield from _costs(where, name, old, new)
            yield from _hold(where, name, before, after)


# --- attributes ---------------------------------------------------------------------------------


def _attributes(where: str, name: str, old: Operation, new: Operation) -> Iterator[Change]:
    for key in sorted({*old.attributes, *new.attributes}):
        at, before, after = (
            f"{where}.attributes.{key}",
            old.attributes.get(key),
            new.attributes.get(key),
        )
        effect: Effect = "neutral"
        if before == after:
            continue
        if before is None and after is not None:
            required = after.default is None
            what = f"attribute {key} is new{', and must be given' if required else ''}"
            effect = "tightens" if required else "loosens"
        elif after is None:
            what, effect = (
                f"attribute {key} is removed: requests that name it are refused",
                "tightens",
            )
        else:
            assert before is not None, "they differ"
            what, effect = _attribute(key, before, after)
        yield Change("operation", at, (name,), f"operation {name}: {what}", effect)


def _attribute(key: str, old: Attribute, new: Attribute) -> tuple[str, Effect]:
    if old.type == new.type and old.choices is not None and new.choices is not None:
        before, after = old.values() or (), new.values() or ()
        gone = [str(spell(value)) for value in before if value not in after]
        more = [str(spell(value)) for value in after if value not in before]
        if gone or more:
            lost = f"no longer allows {listed(gone)}" if gone else ""
            won = f"allows {listed(more)}" if more else ""
            effect: Effect = "neutral" if gone and more else "tightens" if gone else "loosens"
            return f"attribute {key} {', and '.join(filter(None, (lost, won)))}", effect
    return f"attribute {key}: {_described(old)} -> {_described(new)}", "neutral"


def _described(attribute: Attribute) -> str:
    content = {**spell(attribute)}
    kind = content.pop("type")
    rest = ", ".join(f"{key} {_flat(value)}" for key, value in sorted(content.items()))
    return f"{kind}{f' ({rest})' if rest else ''}"


def _flat(value: object) -> str:
    return "/".join(str(item) for item in value) if isinstance(value, list) else str(value)


# --- weights ------------------------------------------------------------------------------------


def _weights(where: str, name: str, old: PolicySet, new: PolicySet) -> Iterator[Change]:
    parts: list[tuple[str, Part]] = []
    inherits: dict[str, str | None] = {}
    for plan in sorted(set(old.plans) & set(new.plans)):
        before, after = old.rules(plan, name), new.rules(plan, name)
        inherits[plan] = new.plans[plan].extends
        for source in before.weights:
            if source in after.weights and before.weights[source] != after.weights[source]:
                pair = (before.weights[source], after.weights[source])
                operations = (before.operation, after.operation)
                for what, effect in _weight(name, source, pair, operations):
                    parts.append((plan, Part(f"{where}.weight.{source}", what, effect)))
    yield from grouped("weight", parts, inherits)
    if old.operations[name].limits_only != new.operations[name].limits_only:
        free = new.operations[name].limits_only
        text = "takes no units any more, only limits apply" if free else "takes units from now on"
        freed: Effect = "loosens" if free else "tightens"
        yield Change(
            "operation", f"{where}.limits_only", (name,), f"operation {name} {text}", freed
        )


def _weight(
    name: str, source: str, pair: tuple[Weight, Weight], operations: tuple[Operation, Operation]
) -> Iterator[tuple[str, Effect]]:
    head = f"{name} weighs in {source}"
    tried = _common_requests(operations, [*_reads(pair[0]), *_reads(pair[1])])
    if tried is None:
        yield f"{head}: {formula_words(pair[0])} -> {formula_words(pair[1])}", "neutral"
        return
    moved = [m for m in (_moved_weight(pair, attributes) for attributes in tried) if m is not None]
    if len(moved) > LINES_MAX:
        yield f"{head}: {formula_words(pair[0])} -> {formula_words(pair[1])}", _effect(moved)
        return
    for each in moved:
        at = f" at {at_attributes(each.attributes)}" if each.attributes else ""
        yield f"{head}{at}: {each.old:,} -> {each.new:,} units", _effect([each])


def _moved_weight(pair: tuple[Weight, Weight], attributes: Attributes) -> _Moved | None:
    try:
        old, new = units_of(pair[0], attributes), units_of(pair[1], attributes)
    except InvalidRequest:
        return None
    return None if old == new else _Moved(attributes, old, new, Fraction(new, old))


def _effect(moved: list[_Moved], more: Effect = "tightens") -> Effect:
    effects = {more_is(more, each.old, each.new) for each in moved}
    return effects.pop() if len(effects) == 1 else "neutral"


def _reads(formula: object) -> tuple[str, ...]:
    return formula.attributes if isinstance(formula, (Table, Linear)) else ()


def _common_requests(
    operations: tuple[Operation, Operation], names: list[str]
) -> list[Attributes] | None:
    """List the values of these attributes that both operations allow; None: they are too many."""
    values: dict[str, tuple[AttributeValue, ...]] = {}
    for name in sorted(set(names)):
        if any(name not in operation.attributes for operation in operations):
            return None
        old, new = (operation.attributes[name].values() for operation in operations)
        if old is None or new is None:
            return None
        values[name] = tuple(value for value in old if value in set(new))
    if combinations(values.values()) > COMPARED_MAX:
        return None
    return [
        dict(zip(values, combination, strict=True)) for combination in product(*values.values())
    ]


# --- cost and holds -----------------------------------------------------------------------------


def _costs(where: str, name: str, old: PolicySet, new: PolicySet) -> Iterator[Change]:
    before, after = old.operations[name].gpu_cost, new.operations[name].gpu_cost
    if before is None or after is None:
        return
    at, head = f"{where}.gpu_cost", f"operation {name}: estimated GPU cost"
    operations = (old.operations[name], new.operations[name])
    tried = _common_requests(operations, [*_reads(before.formula), *_reads(after.formula)])
    if tried is None:
        words, new_words = _cost_words(before), _cost_words(after)
        if words != new_words:
            yield Change("gpu_cost", at, (name,), f"{head}: {words} -> {new_words}")
        return
    costs = ((before, old), (after, new))
    moved = [m for m in (_moved_cost(costs, attributes) for attributes in tried) if m is not None]
    alike = len({each.ratio for each in moved}) == 1
    if len(moved) > LINES_MAX or (len(moved) > ALIKE_MAX and alike):
        yield Change("gpu_cost", at, (name,), f"{head} changes for {_span(moved)}")
        return
    for each in moved:
        yield Change("gpu_cost", at, (name,), f"{head}{_cost_line(each)}")


def _cost_line(moved: _Moved) -> str:
    at = f" at {at_attributes(moved.attributes)}" if moved.attributes else ""
    return f"{at}: {dollars(moved.old)} -> {dollars(moved.new)} ({_share(moved)})"


def _share(moved: _Moved) -> str:
    return percent(1, moved.ratio) if moved.old else "from nothing"


def _span(moved: list[_Moved]) -> str:
    """Say in one line how the cost of many kinds of request changes."""
    ordered = sorted(moved, key=lambda each: (each.ratio, each.new, at_attributes(each.attributes)))
    low, high = ordered[0], ordered[-1]
    count = f"{len(moved):,} kinds of request"
    if low.ratio == high.ratio:
        return f"{count}, such as{_cost_line(low)}"
    return f"{count}, from{_cost_line(low)} to{_cost_line(high)}"


def _moved_cost(
    costs: tuple[tuple[GpuCost, PolicySet], tuple[GpuCost, PolicySet]], attributes: Attributes
) -> _Moved | None:
    try:
        old, new = (cost.estimate_usd(attributes, each.gpus) for cost, each in costs)
    except LookupError:
        return None
    ratio = new / old if old else new
    return None if old == new else _Moved(attributes, micro_usd(old), micro_usd(new), ratio)


def _cost_words(cost: GpuCost) -> str:
    if cost.gpu is None:
        return f"${formula_words(cost.formula)}"
    ceiling = cost.ceiling_gpu_seconds
    most = f", at most {formula_words(ceiling)} s" if ceiling is not None else ""
    return f"{formula_words(cost.formula)} s on {cost.gpu}{most}"


def _hold(where: str, name: str, old: Operation, new: Operation) -> Iterator[Change]:
    before, after = hold_words(old), hold_words(new)
    if before != after:
        text = f"operation {name}: a grant stays open for {before} -> {after}"
        yield Change("operation", f"{where}.hold_for", (name,), text)
