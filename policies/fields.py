"""The types of a policy file's values: strict, with messages that say what would be right."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    TypeAdapter,
    WithJsonSchema,
)

from policies.errors import InvalidRequest
from policies.instants import LENGTHS, Length, zone_named
from policies.part import ByShape, canonical_decimal
from policies.suggest import shown
from policies.units import MINOR_MAX, UNITS_MAX

DIGITS_MAX: Final = 28
"""Digits of a decimal number: more of them are a mistake, and fewer than any arithmetic here would round."""

ANY_OPERATION: Final = "*"
"""What stands for any operation in a policy set that is not from a file."""

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,99}\Z")
_ZERO_DECIMAL: Final = frozenset(
    "bif clp djf gnf jpy kmf krw mga pyg rwf vnd vuv xaf xof xpf".split()
)
"""As Stripe counts them. ugx and isk have no smaller unit either, but Stripe takes hundredths of them."""
_THREE_DECIMAL: Final = frozenset(("bhd", "jod", "kwd", "omr", "tnd"))


def as_decimal(value: Any) -> Decimal:
    """Read an exact number of at most 28 digits from an integer, a decimal or its text.

    Raises:
        ValueError: it is none, or has too many digits.
    """
    if isinstance(value, bool) or not isinstance(value, (int, str, Decimal)):
        raise ValueError(f"must be a number such as 2.50, not {shown(value)}")
    try:
        number = Decimal(value)
    except InvalidOperation:
        raise ValueError(f"must be a number such as 2.50, not {shown(value)}") from None
    if not number.is_finite():
        raise ValueError(f"must be a finite number, not {shown(value)}")
    _, digits, exponent = number.as_tuple()
    least = exponent if isinstance(exponent, int) else 0
    if number.adjusted() >= DIGITS_MAX or least < -DIGITS_MAX or len(digits) > DIGITS_MAX:
        raise ValueError(f"must have at most {DIGITS_MAX} digits, not {shown(value)}")
    if number.copy_abs() > MINOR_MAX:
        raise ValueError(f"must be at most {MINOR_MAX}, not {shown(value)}")
    return number


def as_currency(value: Any) -> str:
    """Read a currency: three lower-case letters.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, str) or not re.fullmatch(r"[a-z]{3}", value):
        raise ValueError(f"{shown(value)} is no currency: use three lower-case letters such as usd")
    return value


def minor_digits(currency: str) -> int:
    """Return how many digits the currency has after the point: 2 for usd, 0 for jpy, 3 for kwd."""
    return 0 if currency in _ZERO_DECIMAL else 3 if currency in _THREE_DECIMAL else 2


def to_minor(amount: Decimal, currency: str) -> int:
    """Convert an amount to minor units of its currency.

    Raises:
        ValueError: it has more digits than the currency does.
    """
    digits = minor_digits(currency)
    minor = Fraction(amount) * 10**digits
    if minor.denominator != 1:
        after = f"{digits} after the point" if digits else "none after the point"
        raise ValueError(f"`{amount}` has more digits than {currency} does: {after}")
    return int(minor)


def _integer(value: Any) -> int:
    if isinstance(value, Decimal) and value.is_finite() and value.copy_abs() <= MINOR_MAX:
        value = int(value) if value == int(value) else value
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"must be a whole number such as 30, not {shown(value)}")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false, not {shown(value)}")
    return value


def _positive(number: Decimal) -> Decimal:
    if number <= 0:
        raise ValueError(f"must be above zero, not `{number}`")
    return number


def _not_negative(number: Decimal) -> Decimal:
    if number < 0:
        raise ValueError(f"must not be negative, but is `{number}`")
    return number


def _name(value: Any) -> str:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not _NAME.match(text):
        allowed = "letters, digits, `_`, `.` and `-`, at most 100 of them"
        raise ValueError(f"{shown(value)} cannot be a name: use {allowed}")
    return text


def _operation_name(value: Any) -> str:
    return ANY_OPERATION if value == ANY_OPERATION else _name(value)


def _length(value: Any) -> Length:
    if isinstance(value, Length):
        return value
    if not isinstance(value, str):
        raise ValueError(f"must be a length of time such as {LENGTHS}, not {shown(value)}")
    return Length.parse(value)


def _zone(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be an IANA time zone such as Europe/Berlin, not {shown(value)}")
    try:
        zone_named(value)
    except InvalidRequest as error:
        raise ValueError(str(error)) from None
    return value


_number = BeforeValidator(as_decimal)
_spelled = PlainSerializer(canonical_decimal, return_type=str)
_NUMBER: Final = {"type": "number"}
_PATTERN: Final = f"^{_NAME.pattern[:-2]}$"

Name = Annotated[
    str,
    BeforeValidator(_name),
    WithJsonSchema({"type": ["string", "integer"], "pattern": _PATTERN}),
]
OperationName = Annotated[
    str, BeforeValidator(_operation_name), WithJsonSchema({"type": "string", "pattern": _PATTERN})
]
WholeNumber = Annotated[int, BeforeValidator(_integer)]
PositiveInt = Annotated[WholeNumber, Field(ge=1, le=UNITS_MAX)]
Flag = Annotated[bool, BeforeValidator(_flag)]
Number = Annotated[Decimal, _number, _spelled, WithJsonSchema(_NUMBER)]
PositiveNumber = Annotated[
    Decimal,
    _number,
    AfterValidator(_positive),
    _spelled,
    WithJsonSchema({**_NUMBER, "exclusiveMinimum": 0}),
]
Amount = Annotated[
    Decimal,
    _number,
    AfterValidator(_not_negative),
    _spelled,
    WithJsonSchema({**_NUMBER, "minimum": 0}),
]
Currency = Annotated[
    str,
    BeforeValidator(as_currency),
    WithJsonSchema({"type": "string", "pattern": "^[a-z]{3}$"}),
]
ZoneName = Annotated[str, BeforeValidator(_zone)]
LengthOfTime = Annotated[
    Length,
    BeforeValidator(_length),
    PlainSerializer(str, return_type=str),
    WithJsonSchema(
        {"type": "string", "pattern": r"^\d+(s|m|h|d|mo|y)$", "examples": ["30s", "24h", "12mo"]}
    ),
]

_amount: TypeAdapter[Decimal] = TypeAdapter(Amount)
_amounts: TypeAdapter[dict[str, Decimal]] = TypeAdapter(
    Annotated[dict[Currency, Amount], Field(min_length=1)]
)
_minor: TypeAdapter[int] = TypeAdapter(PositiveInt)
_minors: TypeAdapter[dict[str, int]] = TypeAdapter(
    Annotated[dict[Currency, PositiveInt], Field(min_length=1)]
)

Prices = Annotated[
    Amount | dict[Currency, Amount],
    ByShape(lambda value: _amounts if isinstance(value, Mapping) else _amount),
]
"""An amount in the file's currency, or an amount per currency."""

MinorByCurrency = Annotated[
    PositiveInt | dict[Currency, PositiveInt],
    ByShape(lambda value: _minors if isinstance(value, Mapping) else _minor),
]
"""Minor units of money in the file's currency, or per currency."""
