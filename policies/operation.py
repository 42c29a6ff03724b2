"""Operations: what can be asked for, with typed attributes, and what it weighs and costs."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from policies.errors import InvalidRequest
from policies.fields import LengthOfTime, Name, Number, PositiveInt, canonical_decimal
from policies.gpu_cost import GpuCost
from policies.instants import Length
from policies.request import AttributeValue
from policies.suggest import did_you_mean
from policies.table import Linear, Table, evaluate, spelled
from policies.units import INT64_MAX, UNITS_MAX

TEXT_MAX: Final = 500
VALUES_MAX: Final = 10_000
HOUR: Final = Length.parse("1h")

Weight = PositiveInt | Table | Linear


class Attribute(BaseModel):
    """An attribute of an operation: its type, and which values are allowed. Without a default it must be given."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["string", "integer", "decimal", "boolean"] = Field(description="The type of its values.")
    choices: tuple[Any, ...] | None = Field(default=None, description="The only values allowed.", min_length=1)
    default: Any = Field(default=None, description="Its value where a request names none.")
    min: Number | None = Field(default=None, description="The least value, for numbers.")
    max: Number | None = Field(default=None, description="The greatest value, for numbers.")

    @model_validator(mode="before")
    @classmethod
    def _exact_decimals(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and value.get("type") == "decimal":
            decimals = {
                name: _as_decimal(value[name]) for name in ("default", "choices") if value.get(name) is not None
            }
            return {**value, **decimals}
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Attribute:
        if self.type in ("string", "boolean") and (self.min is not None or self.max is not None):
            raise ValueError(f"`min` and `max` are for numbers, not for a {self.type}")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"`min` {self.min} is above `max` {self.max}")
        for value in (*(self.choices or ()), *(() if self.default is None else (self.default,))):
            try:
                self.normalise("value", value)
            except InvalidRequest as error:
                raise ValueError(str(error)) from None
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
        if self.choices is not None and typed not in tuple(self._typed(name, choice) for choice in self.choices):
            allowed = ", ".join(spelled(choice) for choice in self.choices)
            raise InvalidRequest(f"`{name}` must be one of {allowed}, not `{spelled(typed)}`")
        if not isinstance(typed, str) and (
            (self.min is not None and typed < self.min) or (self.max is not None and typed > self.max)
        ):
            raise InvalidRequest(f"`{name}` must be {self._range()}, not `{spelled(typed)}`")
        return typed

    def values(self) -> tuple[AttributeValue, ...] | None:
        """Return all allowed values, or None where they cannot be listed."""
        if self.choices is not None:
            return tuple(self._typed("choice", choice) for choice in self.choices)
        if self.type == "boolean":
            return (False, True)
        if self.type == "integer" and self.min is not None and self.max is not None:
            low, high = int(self.min), int(self.max)
            return tuple(range(low, high + 1)) if high - low < VALUES_MAX else None
        return None

    def least(self) -> Decimal | None:
        """Return the least allowed number, or None where there is no bound."""
        listed = [Decimal(value) for value in self.values() or () if not isinstance(value, str)]
        return min(listed) if listed else self.min

    def greatest(self) -> Decimal | None:
        """Return the greatest allowed number, or None where there is no bound."""
        listed = [Decimal(value) for value in self.values() or () if not isinstance(value, str)]
        return max(listed) if listed else self.max

    def _range(self) -> str:
        if self.min is None or self.max is None:
            return f"at least {self.min}" if self.max is None else f"at most {self.max}"
        return f"between {self.min} and {self.max}"

    def _typed(self, name: str, value: object) -> AttributeValue:
        match self.type, value:
            case "string", str() if len(value) <= TEXT_MAX:
                return value
            case "boolean", bool():
                return value
            case "integer", int() if not isinstance(value, bool) and abs(value) <= INT64_MAX:
                return value
            case "integer", Decimal() if value.is_finite() and value == int(value) and abs(value) <= INT64_MAX:
                return int(value)
            case "decimal", int() if not isinstance(value, bool) and abs(value) <= INT64_MAX:
                return Decimal(value)
            case "decimal", Decimal() if value.is_finite() and abs(value) <= INT64_MAX:
                return value.normalize() + 0
        limit = f" of at most {TEXT_MAX} characters" if self.type == "string" else ""
        article = "an" if self.type == "integer" else "a"
        raise InvalidRequest(f"`{name}` must be {article} {self.type}{limit}, not `{value!r:.80}`")


class HoldFor(BaseModel):
    """How long a grant may stay open: until it is started, and after."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    queued: LengthOfTime = Field(description="Until `start` is called.")
    running: LengthOfTime = Field(description="After `start` was called.")


class Operation(BaseModel):
    """What can be asked for: its attributes, its weight in each source, and its GPU cost."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    attributes: dict[Name, Attribute] = Field(default_factory=dict, description="Its typed attributes.")
    weight: Weight | dict[Name, Weight] = Field(
        default=1, description="Units it takes: a whole number, {by, table}, {each}, or one of these per source."
    )
    gpu_cost: GpuCost | None = Field(default=None, description="What it is estimated to cost.")
    hold_for: LengthOfTime | HoldFor = Field(
        default=HOUR, description="How long a grant may stay open: one length, or {queued, running}."
    )
    limits_only: bool = Field(default=False, description="Only limits apply: it takes no units and costs no GPU.")

    @model_validator(mode="after")
    def _has_a_cost(self) -> Operation:
        if self.limits_only and self.gpu_cost is not None:
            raise ValueError("`limits_only` has no GPU cost: leave out `gpu_cost` or `limits_only`")
        if not self.limits_only and self.gpu_cost is None:
            raise ValueError("needs a `gpu_cost`, or `limits_only: true` if it costs no GPU time")
        return self

    @property
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
                raise InvalidRequest(f"unknown attribute `{name!s:.60}`{did_you_mean(str(name), self.attributes)}")
        normal: dict[str, AttributeValue] = {}
        for name, attribute in sorted(self.attributes.items()):
            value = given.get(name)
            value = attribute.default if value is None else value
            if value is None:
                raise InvalidRequest(f"`{name}` is missing: it has no default")
            normal[name] = attribute.normalise(name, value)
        return normal

    def weight_in(self, source: str, override: Weight | dict[str, Weight] | None) -> Weight | None:
        """Return the weight in this source, the plan's override first; None where there is none for it."""
        for weight in (override, self.weight):
            if isinstance(weight, dict):
                if source in weight:
                    return weight[source]
            elif weight is not None:
                return weight
        return None


def _as_decimal(value: Any) -> Any:
    # Equal numbers get one spelling, so that they give one content hash.
    if isinstance(value, (list, tuple)):
        return tuple(_as_decimal(item) for item in value)
    if isinstance(value, bool) or not isinstance(value, (int, str, Decimal)):
        return value
    try:
        number = Decimal(value)
    except ArithmeticError:
        return value
    return Decimal(canonical_decimal(number)) if number.is_finite() else value


def units_of(weight: Weight, attributes: Mapping[str, AttributeValue]) -> int:
    """Return the units that a request weighs: a sum is rounded up once.

    Raises:
        InvalidRequest: the weight has no value for these attributes, or it is not between 1 and 10^12.
    """
    if isinstance(weight, int):
        return weight
    amount = evaluate(weight, attributes)
    if amount is None:
        raise InvalidRequest("the operation has no weight for these attributes: the policy's table has no entry")
    units = -(-amount.numerator // amount.denominator)
    if not 1 <= units <= UNITS_MAX:
        raise InvalidRequest(f"these attributes weigh {units} units: it must be between 1 and {UNITS_MAX}")
    return units


