"""Formulas over a request's attributes: a table by one or several of them, or a linear sum."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from fractions import Fraction
from itertools import product
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from policies.fields import Amount, Name, Number, canonical_decimal
from policies.request import AttributeValue

COMBINATIONS_MAX = 100_000


class Table(BaseModel):
    """A value for each value of an attribute, or nested tables for several: `{by: [a, b], table: {x: {y: 1}}}`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    by: Name | list[Name] = Field(description="The attribute, or the attributes from outermost to innermost.")
    table: dict[str, Any] = Field(description="The value for each value of the attribute; nested for several.")

    @model_validator(mode="before")
    @classmethod
    def _keys_as_text(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and isinstance(value.get("table"), Mapping):
            return {**value, "table": _texts(value["table"])}
        return value

    @model_validator(mode="after")
    def _as_deep_as_by(self) -> Table:
        if not self.attributes or len(set(self.attributes)) != len(self.attributes):
            raise ValueError("`by` names one attribute, or several different ones")
        for path, leaf in _leaves(self.table):
            if len(path) != len(self.attributes):
                raise ValueError(
                    f"`{' > '.join(path)}` is {len(path)} deep, but `by` names {len(self.attributes)} attributes"
                )
            _amount(leaf, path)
        return self

    @property
    def attributes(self) -> tuple[str, ...]:
        """The attributes it reads, outermost first."""
        return (self.by,) if isinstance(self.by, str) else tuple(self.by)

    def value(self, attributes: Mapping[str, AttributeValue]) -> Fraction | None:
        """Return the value for these attributes, or None where the table has none."""
        node: Any = self.table
        for name in self.attributes:
            node = node.get(spelled(attributes[name])) if name in attributes else None
            if node is None:
                return None
        return Fraction(Decimal(str(node)))

    def entries(self) -> Iterator[tuple[tuple[str, ...], Decimal]]:
        """Yield each entry: the attributes' values as text, and its value."""
        for path, leaf in _leaves(self.table):
            yield path, Decimal(str(leaf))

    def missing(self, values: Mapping[str, tuple[AttributeValue, ...]]) -> Iterator[tuple[str, ...]]:
        """Yield each allowed combination of the attributes' values that has no entry."""
        for combination in product(*(values[name] for name in self.attributes)):
            if self.value(dict(zip(self.attributes, combination, strict=True))) is None:
                yield tuple(spelled(value) for value in combination)


class Linear(BaseModel):
    """`base` plus, for each named attribute, its value times a factor."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: Amount = Field(default=Decimal(0), description="What every request takes.")
    each: dict[Name, Number] = Field(description="Added per unit of each attribute.", min_length=1)

    @property
    def attributes(self) -> tuple[str, ...]:
        """The attributes it reads."""
        return tuple(self.each)

    def value(self, attributes: Mapping[str, AttributeValue]) -> Fraction | None:
        """Return the sum for these attributes, or None where one of them is missing."""
        total = Fraction(self.base)
        for name, factor in self.each.items():
            value = attributes.get(name)
            if value is None or isinstance(value, str):
                return None
            total += Fraction(factor) * Fraction(value)
        return total


def evaluate(formula: Decimal | Table | Linear, attributes: Mapping[str, AttributeValue]) -> Fraction | None:
    """Return the formula's exact value for these attributes, or None where it has none."""
    return Fraction(formula) if isinstance(formula, Decimal) else formula.value(attributes)


def spelled(value: object) -> str:
    """Spell an attribute's value as a table's key: `10`, `true`, `standard`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return canonical_decimal(value) if isinstance(value, Decimal) else str(value)


def _texts(table: Mapping[Any, Any]) -> dict[str, Any]:
    texts = {spelled(key): _texts(leaf) if isinstance(leaf, Mapping) else leaf for key, leaf in table.items()}
    if len(texts) != len(table):
        raise ValueError("two of its keys are the same value")
    return {key: _number_text(leaf) for key, leaf in texts.items()}


def _number_text(leaf: Any) -> Any:
    is_number = isinstance(leaf, (int, Decimal)) and not isinstance(leaf, bool)
    return canonical_decimal(Decimal(leaf)) if is_number else leaf


def _leaves(table: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if not table:
        raise ValueError(f"the table is empty{' at `' + ' > '.join(path) + '`' if path else ''}")
    for key, leaf in table.items():
        if isinstance(leaf, Mapping):
            yield from _leaves(leaf, (*path, key))
        else:
            yield (*path, key), leaf


def _amount(leaf: Any, path: tuple[str, ...]) -> None:
    where = " > ".join(path)
    if isinstance(leaf, bool) or not isinstance(leaf, (int, str, Decimal)):
        raise ValueError(f"`{where}` is not a number")
    try:
        number = Decimal(str(leaf))
    except ArithmeticError:
        raise ValueError(f"`{where}` is not a number") from None
    if not number.is_finite() or number < 0:
        raise ValueError(f"`{where}` must not be negative")
