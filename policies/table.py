"""Formulas over a request's attributes: a table by one or several of them, or a linear sum."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from itertools import product
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, TypeAdapter, WithJsonSchema, model_validator

from policies.fields import Amount, Name, Number, as_decimal
from policies.part import ByShape, Fault, Part, canonical_decimal, refusal
from policies.request import AttributeValue
from policies.suggest import shown

Entry = tuple[tuple[str, ...], Decimal]
"""Attributes' values as text, outermost first, and what the table says for them."""


def _entries(value: Any) -> Any:
    """Spell keys and numbers as text, so that equal ones are equal."""
    if not isinstance(value, Mapping):
        raise ValueError(f"must be a mapping from an attribute's values, not {shown(value)}")
    faults: list[Fault] = []
    texts = _texts(value, (), faults)
    if faults:
        raise refusal(faults)
    return texts


def _texts(table: Mapping[Any, Any], path: tuple[str, ...], faults: list[Fault]) -> dict[str, Any]:
    if not table:
        faults.append(
            Fault(path, "must not be empty: give a value for each value of the attribute")
        )
    texts: dict[str, Any] = {}
    for key, leaf in table.items():
        text = spelled(key)
        here = (*path, text)
        if text in texts:
            faults.append(Fault(here, f"`{text}` is there already"))
        if isinstance(leaf, Mapping):
            texts[text] = _texts(leaf, here, faults)
            continue
        try:
            number = as_decimal(leaf)
        except ValueError as error:
            faults.append(Fault(here, str(error)))
            continue
        if number < 0:
            faults.append(Fault(here, f"must not be negative, but is `{number}`"))
        texts[text] = canonical_decimal(number)
    return texts


_SCHEMA_OF_TABLE = {
    "type": "object",
    "minProperties": 1,
    "additionalProperties": {"type": ["number", "object"]},
}


class Table(Part):
    """A value for each value of an attribute, nested for several: `{by: [a, b], table: {x: {y: 1}}}`."""

    by: Annotated[
        Name | list[Name],
        ByShape(lambda value: _names if isinstance(value, (list, tuple)) else _name),
    ] = Field(description="The attribute, or the attributes from outermost to innermost.")
    table: Annotated[
        dict[str, Any], BeforeValidator(_entries), WithJsonSchema(_SCHEMA_OF_TABLE)
    ] = Field(description="The value for each value of the attribute; nested for several.")

    @model_validator(mode="after")
    def _as_deep_as_by(self) -> Table:
        names = self.attributes
        if not names or len(set(names)) != len(names):
            raise refusal([Fault(("by",), "must name one attribute, or several different ones")])
        faults = [
            Fault(("table", *path), f"{_depth(len(path))}, but `by` names {_several(len(names))}")
            for path, _ in _leaves(self.table)
            if len(path) != len(names)
        ]
        if faults:
            raise refusal(faults)
        return self

    @property
    def attributes(self) -> tuple[str, ...]:
        """The attributes it reads, outermost first."""
        return (self.by,) if isinstance(self.by, str) else tuple(self.by)

    def value(self, attributes: Mapping[str, AttributeValue]) -> Fraction | None:
        """Return the value for these attributes, or None where the table has none."""
        try:
            key = tuple(spelled(attributes[name]) for name in self.attributes)
        except KeyError:
            return None
        return self._values.get(key)

    def entries(self) -> Iterator[Entry]:
        """Yield each entry: the attributes' values as text, and its value."""
        for path, leaf in _leaves(self.table):
            yield path, Decimal(leaf)

    def missing(
        self, values: Mapping[str, tuple[AttributeValue, ...]]
    ) -> Iterator[tuple[str, ...]]:
        """Yield each allowed combination of the attributes' values that has no entry."""
        for combination in product(*(values[name] for name in self.attributes)):
            key = tuple(spelled(value) for value in combination)
            if key not in self._values:
                yield key

    @cached_property
    def _values(self) -> dict[tuple[str, ...], Fraction]:
        return {path: Fraction(number) for path, number in self.entries()}


class Linear(Part):
    """`base` plus, for each named attribute, its value times a factor."""

    base: Amount = Field(default=Decimal(0), description="What every request takes.")
    each: dict[Name, Number] = Field(
        description="Added per unit of each attribute: {images: 1}.", min_length=1
    )

    @property
    def attributes(self) -> tuple[str, ...]:
        """The attributes it reads."""
        return tuple(self.each)

    def value(self, attributes: Mapping[str, AttributeValue]) -> Fraction | None:
        """Return the sum for these attributes, or None where one of them is missing."""
        total, factors = self._terms
        for name, factor in factors:
            value = attributes.get(name)
            if value is None or isinstance(value, str):
                return None
            total += factor * Fraction(value)
        return total

    @cached_property
    def _terms(self) -> tuple[Fraction, tuple[tuple[str, Fraction], ...]]:
        factors = tuple((name, Fraction(factor)) for name, factor in self.each.items())
        return Fraction(self.base), factors


_name: TypeAdapter[str] = TypeAdapter(Name)
_names: TypeAdapter[list[str]] = TypeAdapter(list[Name])
_table: TypeAdapter[Table] = TypeAdapter(Table)
_linear: TypeAdapter[Linear] = TypeAdapter(Linear)


def formula_by_shape(number: TypeAdapter[Any], what: str) -> ByShape:
    """Annotate a formula: a table or a sum where the value looks like one, else a number."""

    def choose(value: Any) -> TypeAdapter[Any]:
        if isinstance(value, Mapping) and not is_formula(value):
            raise ValueError(f"must be {what}, {{by, table}} or {{base, each}}")
        if isinstance(value, Table) or (isinstance(value, Mapping) and is_table(value)):
            return _table
        return _linear if isinstance(value, (Mapping, Linear)) else number

    return ByShape(choose)


def is_table(value: Mapping[Any, Any]) -> bool:
    """Whether a mapping is meant as a table."""
    return "by" in value or "table" in value


def is_formula(value: Mapping[Any, Any]) -> bool:
    """Whether a mapping is meant as a table or a sum."""
    return is_table(value) or "each" in value or "base" in value


def evaluate(
    formula: Decimal | Table | Linear, attributes: Mapping[str, AttributeValue]
) -> Fraction | None:
    """Return the formula's exact value for these attributes, or None where it has none."""
    return Fraction(formula) if isinstance(formula, Decimal) else formula.value(attributes)


def spelled(value: object) -> str:
    """Spell an attribute's value as a table's key: `10`, `true`, `standard`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return canonical_decimal(value) if isinstance(value, Decimal) else str(value)


def _leaves(
    table: Mapping[str, Any], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], str]]:
    for key, leaf in table.items():
        if isinstance(leaf, Mapping):
            yield from _leaves(leaf, (*path, key))
        else:
            yield (*path, key), leaf


def _depth(levels: int) -> str:
    return f"is {levels} level{'s' if levels > 1 else ''} deep"


def _several(count: int) -> str:
    return f"{count} attribute{'s' if count > 1 else ''}"


def combinations(values: Iterable[tuple[AttributeValue, ...]]) -> int:
    """Return how many combinations of these values there are."""
    count = 1
    for listed in values:
        count *= len(listed)
    return count
