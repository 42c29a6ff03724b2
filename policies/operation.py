"""Operations: what can be asked for, with typed attributes, and what it weighs and costs."""

from __future__ import annotations

import numbers
from collections.abc import Iterator, Mapping
from decimal import Decimal
from functools import cached_property
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field, TypeAdapter, model_validator

from policies.errors import InvalidRequest
from policies.fields import Flag, LengthOfTime, Name, Number, PositiveInt, as_decimal
from policies.gpu_cost import GpuCost
from policies.instants import Length
from policies.part import AT_KEY, ByShape, Fault, Part, canonical_decimal, refusal
from policies.request import AttributeValue
from policies.suggest import did_you_mean, one_line, shown
from policies.table import Linear, Table, evaluate, formula_by_shape, is_formula, spelled
from policies.units import UNITS_MAX

TEXT_MAX: Final = 500
VALUES_MAX: Final = 10_000
HOUR: Final = Length.parse("1h")

Kind = Literal["string", "integer", "decimal", "boolean"]


class Attribute(Part):
    """An attribute of an operation: its type and allowed values. Without a default it must be given."""

    example: ClassVar[str] = "{type: integer, min: 1, max: 16}"

    type: Kind = Field(description="The type of its values: string, integer, decimal or boolean.")
    choices: tuple[Any, ...] | None = Field(
        default=None, description="The only values allowed.", min_length=1
    )
    default: Any = Field(default=None, description="Its value where a request names none.")
    min: Number | None = Field(default=None, description="The least value, for numbers.")
    max: Number | None = Field(default=None, description="The greatest value, for numbers.")

    @model_validator(mode="before")
    @classmethod
    def _exact_numbers(cls, value: Any) -> Any:
        # Equal numbers get one spelling, so that they give one content hash.
        if isinstance(value, Mapping) and value.get("type") in ("integer", "decimal"):
            numbers = {
                name: _as_number(value[name], value["type"])
                for name in ("default", "choices")
                if value.get(name) is not None
            }
            return {**value, **numbers}
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Attribute:
        faults = [*self._range_faults()]
        if not faults:
            faults += self._value_faults()
        if faults:
            raise refusal(faults)
        return self

    @property
    def is_free_text(self) -> bool:
        """Whether a user may have written anything into it, so that it must be erasable."""
        return self.type == "string" and self.choices is None

    def normalise(self, name: str, value: object) -> AttributeValue:
        """Return the value in its declared type.

        Raises:
            InvalidRequest: it is of another type, or not allowed.
        """
        typed = self._typed(name, value)
        if self._allowed is not None and typed not in self._allowed:
            allowed = ", ".join(spelled(choice) for choice in self._allowed)
            raise InvalidRequest(f"`{name}` must be one of {allowed}, not {shown(typed)}")
        self._within(name, typed)
        return typed

    def values(self) -> tuple[AttributeValue, ...] | None:
        """Return all allowed values, or None where they cannot be listed."""
        if self._allowed is not None:
            return tuple(self._allowed)
        if self.type == "boolean":
            return (False, True)
        if self.type == "integer" and self.min is not None and self.max is not None:
            low, high = int(self.min), int(self.max)
            return tuple(range(low, high + 1)) if high - low < VALUES_MAX else None
        return None

    @cached_property
    def spellings(self) -> frozenset[str] | None:
        """All allowed values as a table spells them, or None where they cannot be listed."""
        values = self.values()
        return None if values is None else frozenset(spelled(value) for value in values)

    def least(self) -> Decimal | None:
        """Return the least allowed number, or None where there is no bound."""
        return min(self._numbers, default=self.min)

    def greatest(self) -> Decimal | None:
        """Return the greatest allowed number, or None where there is no bound."""
        return max(self._numbers, default=self.max)

    @cached_property
    def _allowed(self) -> dict[AttributeValue, None] | None:
        if self.choices is None:
            return None
        return dict.fromkeys(self._typed("choices", choice) for choice in self.choices)

    @cached_property
    def _numbers(self) -> tuple[Decimal, ...]:
        listed = self.values() or ()
        return tuple(Decimal(value) for value in listed if not isinstance(value, str))

    def _range_faults(self) -> Iterator[Fault]:
        for key, bound in (("min", self.min), ("max", self.max)):
            if bound is not None and self.type in ("string", "boolean"):
                yield Fault((key,), f"is for numbers: leave it out of a {self.type}")
            elif (
                bound is not None and self.type == "integer" and bound != bound.to_integral_value()
            ):
                yield Fault((key,), f"must be a whole number as its type is, not {shown(bound)}")
        if self.min is not None and self.max is not None and self.min > self.max:
            yield Fault(("min",), f"must not be above `max`, but {self.min} is above {self.max}")

    def _value_faults(self) -> Iterator[Fault]:
        seen: dict[AttributeValue, None] = {}
        for index, choice in enumerate(self.choices or ()):
            try:
                typed = self._typed("choices", choice)
                self._within("choices", typed)
            except InvalidRequest as error:
                yield Fault(("choices", index), _unnamed(error))
                continue
            if typed in seen:
                yield Fault(("choices", index), f"{shown(typed)} is there already")
            seen[typed] = None
        if self.default is None:
            return
        try:
            typed = self._typed("default", self.default)
            self._within("default", typed)
        except InvalidRequest as error:
            yield Fault(("default",), _unnamed(error))
            return
        if self.choices is not None and len(seen) == len(self.choices) and typed not in seen:
            choices = ", ".join(spelled(choice) for choice in seen)
            yield Fault(("default",), f"must be one of {choices}, not {shown(typed)}")

    def _within(self, name: str, typed: AttributeValue) -> None:
        if not isinstance(typed, str) and (
            (self.min is not None and typed < self.min)
            or (self.max is not None and typed > self.max)
        ):
            raise InvalidRequest(f"`{name}` must be {self._range()}, not {shown(typed)}")

    def _range(self) -> str:
        if self.min is None or self.max is None:
            return f"at least {self.min}" if self.max is None else f"at most {self.max}"
        return f"between {self.min} and {self.max}"

    def _typed(self, name: str, value: object) -> AttributeValue:
        match self.type:
            case "string":
                if isinstance(value, str) and len(value) <= TEXT_MAX and is_storable(value):
                    return value
            case "boolean":
                if isinstance(value, bool):
                    return value
            case _:
                number = _number(value)
                if self.type == "integer" and not isinstance(value, (numbers.Integral, Decimal)):
                    number = None  # a float is no whole number
                if number is not None and self.type == "decimal":
                    return Decimal(canonical_decimal(number))
                if number is not None and number == number.to_integral_value():
                    return int(number)
        limit = f" of at most {TEXT_MAX} characters" if self.type == "string" else ""
        article = "an" if self.type == "integer" else "a"
        raise InvalidRequest(f"`{name}` must be {article} {self.type}{limit}, not {shown(value)}")


_whole: TypeAdapter[int] = TypeAdapter(PositiveInt)
Weight = Annotated[PositiveInt | Table | Linear, formula_by_shape(_whole, "a whole number")]
"""Units that a request takes."""

_weight: TypeAdapter[Any] = TypeAdapter(Weight)
_weight_by_source: TypeAdapter[Any] = TypeAdapter(
    Annotated[dict[Name, Weight], Field(min_length=1)]
)


def _weights_shape(value: Any) -> TypeAdapter[Any]:
    return _weight_by_source if isinstance(value, Mapping) and not is_formula(value) else _weight


Weights = Annotated[Weight | dict[Name, Weight], ByShape(_weights_shape)]
"""Units that a request takes, the same in each source or one weight per source."""


class HoldFor(Part):
    """How long a grant may stay open: until it is started, and after."""

    example: ClassVar[str] = "{queued: 2h, running: 30m}"

    queued: LengthOfTime = Field(description="Until `start` is called.")
    running: LengthOfTime = Field(description="After `start` was called.")


_length: TypeAdapter[Length] = TypeAdapter(LengthOfTime)
_hold_for: TypeAdapter[HoldFor] = TypeAdapter(HoldFor)


class Operation(Part):
    """What can be asked for: its attributes, its weight in each source, and its GPU cost."""

    example: ClassVar[str] = "{weight: 1, gpu_cost: ...}"

    attributes: dict[Name, Attribute] = Field(
        default_factory=dict, description="Its typed attributes."
    )
    weight: Weights = Field(
        default=1,
        description="Units it takes: a whole number, {by, table}, {each}, or one of these per source.",
    )
    gpu_cost: GpuCost | None = Field(default=None, description="What it is estimated to cost.")
    hold_for: Annotated[
        LengthOfTime | HoldFor,
        ByShape(lambda value: _hold_for if isinstance(value, (Mapping, HoldFor)) else _length),
    ] = Field(
        default=HOUR,
        description="How long a grant may stay open: one length, or {queued, running}.",
    )
    limits_only: Flag = Field(
        default=False, description="Only limits apply: it takes no units and costs no GPU."
    )

    @classmethod
    def faults(cls, value: Mapping[str, Any]) -> Iterator[Fault]:
        """Return what is wrong with the combination of keys: it has a cost, or limits alone."""
        limits_only = value.get("limits_only") is True
        if limits_only and value.get("gpu_cost") is not None:
            message = "goes with no `limits_only`, which costs no GPU time: leave out one of them"
            yield Fault(("gpu_cost",), message, AT_KEY)
        if not limits_only and value.get("gpu_cost") is None:
            message = (
                "`gpu_cost` is missing: give one, or `limits_only: true` if it costs no GPU time"
            )
            yield Fault((), message)

    @cached_property
    def hold(self) -> HoldFor:
        """How long a grant may stay open, before and after it is started."""
        if isinstance(self.hold_for, Length):
            return HoldFor(queued=self.hold_for, running=self.hold_for)
        return self.hold_for

    def normalise(self, attributes: Mapping[str, object] | None) -> dict[str, AttributeValue]:
        """Fill in defaults and return every attribute in its declared type, by name.

        Raises:
            InvalidRequest: an attribute is unknown, missing, of another type or not allowed.
        """
        given = dict(attributes or {})
        for name in given:
            if name not in self.attributes:
                hint = did_you_mean(str(name), self.attributes)
                raise InvalidRequest(f"unknown attribute {shown(name)}{hint}")
        normal: dict[str, AttributeValue] = {}
        for name, attribute in sorted(self.attributes.items()):
            value = given.get(name)
            value = attribute.default if value is None else value
            if value is None:
                raise InvalidRequest(f"`{name}` is missing: it has no default")
            normal[name] = attribute.normalise(name, value)
        return normal

    def weight_in(self, source: str, override: Weight | dict[str, Weight] | None) -> Weight | None:
        """Return the weight in this source, the plan's override first; None where it has none."""
        for weight in (override, self.weight):
            if isinstance(weight, dict):
                if source in weight:
                    return weight[source]
            elif weight is not None:
                return weight
        return None


def units_of(weight: Weight, attributes: Mapping[str, AttributeValue]) -> int:
    """Return the units that a request weighs: a sum is rounded up once.

    Raises:
        InvalidRequest: the weight has no value for these attributes, or it is not between 1 and 10^12.
    """
    if isinstance(weight, int):
        return weight
    amount = evaluate(weight, attributes)
    if amount is None:
        raise InvalidRequest("the operation's weight table has no entry for these attributes")
    units = -(-amount.numerator // amount.denominator)
    if not 1 <= units <= UNITS_MAX:
        allowed = f"it must be between 1 and {UNITS_MAX}"
        raise InvalidRequest(f"these attributes weigh {units} units: {allowed}")
    return units


def is_storable(text: str) -> bool:
    """Whether a database can hold the text: neither zero bytes nor halves of characters."""
    return text.isprintable() or not any(
        character == "\0" or "\ud800" <= character <= "\udfff" for character in text
    )


def _number(value: object) -> Decimal | None:
    """Return an exact number; a float is read as the decimal that it prints as."""
    if isinstance(value, bool) or not isinstance(value, (numbers.Real, Decimal)):
        return None
    try:
        number = Decimal(str(value))
        return as_decimal(number) if number.is_finite() else None
    except (ArithmeticError, ValueError):
        return None


def _as_number(value: Any, kind: str) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(_as_number(item, kind) for item in value)
    if isinstance(value, str) and kind == "decimal":
        # The canonical content spells decimals as text.
        try:
            return Decimal(canonical_decimal(as_decimal(value)))
        except ValueError:
            return value
    number = _number(value)
    if number is None or (kind == "integer" and number != number.to_integral_value()):
        return value
    return int(number) if kind == "integer" else Decimal(canonical_decimal(number))


def _unnamed(error: InvalidRequest) -> str:
    """Leave out the name with which the error begins: the place in the file says it."""
    return str(error).partition("` ")[2] or one_line(str(error))
