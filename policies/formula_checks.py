"""Whether weights and GPU costs have a value for every request that their operation allows.

A table lists each allowed combination; a sum stays within its range for the least and greatest allowed values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from itertools import islice
from typing import Final

from policies.draft import Draft, Wrong
from policies.operation import Attribute, Operation, Weight
from policies.part import Path, canonical_decimal
from policies.request import AttributeValue
from policies.suggest import did_you_mean, listed, one_line, shown
from policies.table import Linear, Table, combinations, spelled
from policies.units import GPU_COST_MICRO_USD_MAX, GPU_SECONDS_MAX, MICRO_USD, UNITS_MAX

EXAMPLES: Final = 3

_KINDS: Final = {
    "string": "text",
    "integer": "whole numbers",
    "decimal": "numbers",
    "boolean": "true and false",
}


@dataclass(frozen=True, slots=True)
class Quantity:
    """What a formula gives: its name, its range, and what to do where a table cannot list its values."""

    name: str
    least: int
    most: int
    whole: bool
    ceiling: bool
    advice: str


WEIGHT: Final = Quantity(
    "weight", 1, UNITS_MAX, whole=True, ceiling=False, advice="give it `choices`"
)
_OR_CEILING: Final = "give it `choices`, or the cost a `ceiling_gpu_seconds`"
SECONDS: Final = Quantity(
    "GPU time", 0, GPU_SECONDS_MAX, whole=False, ceiling=False, advice=_OR_CEILING
)
CAPPED_SECONDS: Final = Quantity(
    "GPU time", 0, GPU_SECONDS_MAX, whole=False, ceiling=True, advice=""
)
DOLLARS: Final = Quantity(
    "cost",
    0,
    GPU_COST_MICRO_USD_MAX // MICRO_USD,
    whole=False,
    ceiling=False,
    advice="give it `choices`",
)


def check_formulas(draft: Draft) -> Iterator[Wrong]:
    """Yield what is wrong with weights and GPU costs, given the attributes of their operation."""
    for name, operation in draft.operations.parts.items():
        path: Path = ("operations", name)
        if not operation.limits_only:
            yield from _weights(operation.weight, operation, (*path, "weight"))
        cost = operation.gpu_cost
        if cost is None:
            continue
        if cost.gpu_seconds is not None:
            quantity = SECONDS if cost.ceiling_gpu_seconds is None else CAPPED_SECONDS
            yield from _formula(
                cost.gpu_seconds, operation, (*path, "gpu_cost", "gpu_seconds"), quantity
            )
        elif cost.usd is not None:
            yield from _formula(cost.usd, operation, (*path, "gpu_cost", "usd"), DOLLARS)
    for plan in draft.plans.parts.values():
        for name, weight in plan.overrides.items():
            declared = draft.operations.parts.get(name)
            if declared is not None and not declared.limits_only:
                at = ("plans", plan.name, "operations", name, "weight")
                yield from _weights(weight, declared, at)


def _weights(
    weight: Weight | Mapping[str, Weight], operation: Operation, path: Path
) -> Iterator[Wrong]:
    if isinstance(weight, Mapping):
        for source, each in weight.items():
            yield from _formula(each, operation, (*path, source), WEIGHT)
    else:
        yield from _formula(weight, operation, path, WEIGHT)


def _formula(
    formula: int | Decimal | Table | Linear, operation: Operation, path: Path, quantity: Quantity
) -> Iterator[Wrong]:
    if isinstance(formula, Table):
        yield from _table(formula, operation.attributes, path, quantity)
    elif isinstance(formula, Linear):
        yield from _linear(formula, operation.attributes, path, quantity)
    elif formula > quantity.most:
        yield Wrong(path, f"must be at most {quantity.most}, not {shown(formula)}")


def _table(
    table: Table, attributes: Mapping[str, Attribute], path: Path, quantity: Quantity
) -> Iterator[Wrong]:
    unknown = [name for name in table.attributes if name not in attributes]
    for name in unknown:
        at = (*path, "by") if isinstance(table.by, str) else (*path, "by", table.by.index(name))
        yield Wrong(at, f"unknown attribute {shown(name)}{did_you_mean(name, attributes)}")
    if unknown:
        return
    by = {name: attributes[name] for name in table.attributes}
    dead = {wrong.path: wrong for wrong in _dead_entries(table, by, (*path, "table"))}
    yield from dead.values()
    for entry, number in table.entries():
        yield from _entry(number, (*path, "table", *entry), quantity)
    if not quantity.ceiling:
        yield from _missing_entries(table, by, path, quantity, dead=bool(dead))


def _dead_entries(table: Table, by: Mapping[str, Attribute], path: Path) -> Iterator[Wrong]:
    """Yield the keys that no request can have, each once."""
    for entry, _ in table.entries():
        for depth, (text, (name, attribute)) in enumerate(zip(entry, by.items(), strict=True)):
            if not _allowed(attribute, text):
                message = (
                    f"`{one_line(text)}` is no value of `{name}`: {_what_is_allowed(attribute)}"
                )
                yield Wrong((*path, *entry[: depth + 1]), message, at_key=True)
                break


def _allowed(attribute: Attribute, text: str) -> bool:
    if attribute.spellings is not None:
        return text in attribute.spellings
    if attribute.type == "string":
        return True
    try:
        number = Decimal(text)
    except ArithmeticError:
        return False
    if not number.is_finite() or canonical_decimal(number) != text:
        return False
    least, most = attribute.least(), attribute.greatest()
    if attribute.type == "integer" and number != number.to_integral_value():
        return False
    return (least is None or number >= least) and (most is None or number <= most)


def _what_is_allowed(attribute: Attribute) -> str:
    values = attribute.values()
    if values is not None and (attribute.choices is not None or attribute.type == "boolean"):
        return f"allowed are {listed(spelled(value) for value in values)}"
    least, most = attribute.least(), attribute.greatest()
    bounds = [
        f"from {least}" if least is not None else "",
        f"to {most}" if most is not None else "",
    ]
    return f"allowed are {' '.join([_KINDS[attribute.type], *filter(None, bounds)])}"


def _entry(number: Decimal, path: Path, quantity: Quantity) -> Iterator[Wrong]:
    whole = number == number.to_integral_value() or not quantity.whole
    if not whole or not quantity.least <= number <= quantity.most:
        what = "a whole number" if quantity.whole else "a number"
        yield Wrong(
            path, f"must be {what} from {quantity.least} to {quantity.most}, not {shown(number)}"
        )


def _missing_entries(
    table: Table, by: Mapping[str, Attribute], path: Path, quantity: Quantity, *, dead: bool
) -> Iterator[Wrong]:
    values = {name: attribute.values() for name, attribute in by.items()}
    known = {name: listed for name, listed in values.items() if listed is not None}
    for index, name in enumerate(by):
        if name not in known:
            at = (*path, "by") if isinstance(table.by, str) else (*path, "by", index)
            yield Wrong(at, f"the values of `{name}` cannot be listed: {quantity.advice}")
    if len(known) < len(by):
        return
    examples = list(islice(table.missing(known), EXAMPLES + 1))
    if not examples:
        return
    shown_ones = "; ".join(
        ", ".join(f"{name}={text}" for name, text in zip(by, example, strict=True))
        for example in examples[:EXAMPLES]
    )
    more = "" if len(examples) <= EXAMPLES else _more(table, known, dead=dead)
    yield Wrong(
        (*path, "table"), f"has no {quantity.name} for {shown_ones}{more}: add what is missing"
    )


def _more(table: Table, known: Mapping[str, tuple[AttributeValue, ...]], *, dead: bool) -> str:
    count = combinations(known.values()) - sum(1 for _ in table.entries()) - EXAMPLES
    return ", and others" if dead or count < 1 else f" and {count} more"


def _linear(
    linear: Linear, attributes: Mapping[str, Attribute], path: Path, quantity: Quantity
) -> Iterator[Wrong]:
    wrong = False
    for name in linear.each:
        at = (*path, "each", name)
        if name not in attributes:
            yield Wrong(
                at, f"unknown attribute {shown(name)}{did_you_mean(name, attributes)}", at_key=True
            )
            wrong = True
        elif attributes[name].type == "string":
            yield Wrong(
                at, f"`{name}` is text, which cannot be multiplied: use {{by, table}}", at_key=True
            )
            wrong = True
    if wrong:
        return
    least, low_cause = _bound(linear, attributes, lowest=True)
    most, _ = _bound(linear, attributes, lowest=False)
    if quantity.ceiling:
        return
    if least is None:
        yield Wrong(path, f"may give a {quantity.name} below {quantity.least}: give {low_cause}")
    elif (least <= 0) if quantity.whole else (least < 0):
        yield Wrong(
            path,
            f"may give a {quantity.name} of {_text(least)}: it must be at least {quantity.least}",
        )
    if most is not None and most > quantity.most:
        yield Wrong(
            path, f"may give a {quantity.name} of {_text(most)}: it must be at most {quantity.most}"
        )


def _bound(
    linear: Linear, attributes: Mapping[str, Attribute], *, lowest: bool
) -> tuple[Fraction | None, str]:
    """Return the least or greatest value of a sum; None and what is missing where it has none."""
    total = Fraction(linear.base)
    for name, factor in linear.each.items():
        downward = (factor > 0) is lowest
        attribute = attributes[name]
        bound = attribute.least() if downward else attribute.greatest()
        if factor == 0:
            continue
        if bound is None:
            return None, f"`{name}` a `{'min' if downward else 'max'}`"
        total += Fraction(factor) * Fraction(bound)
    return total, ""


def _text(number: Fraction) -> str:
    whole = number.numerator // number.denominator
    return str(whole) if number.denominator == 1 else f"about {whole}"
