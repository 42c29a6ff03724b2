"""The types of a policy file's values: strict, with messages that say what would be right."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WithJsonSchema
from pydantic_core import PydanticSerializationUnexpectedValue

from policies.errors import InvalidRequest
from policies.instants import Length, zone_named
from policies.units import MINOR_MAX, UNITS_MAX

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,99}\Z")
_ZERO_DECIMAL: Final = frozenset(
    "bif clp djf gnf jpy kmf krw mga pyg rwf ugx vnd vuv xaf xof xpf".split()  # noqa: SIM905 - a table
)
_THREE_DECIMAL: Final = frozenset(("bhd", "jod", "kwd", "omr", "tnd"))


def canonical_decimal(number: Decimal) -> str:
    """Spell a number in the one way that equal numbers share: `4.00` and `4` are both `4`."""
    text = format(number.normalize(), "f")
    return "0" if text == "-0" else text


def _decimal_text(value: object) -> str:
    # In a union, pydantic tries each member's serializer: this says that the value is another member's.
    if not isinstance(value, Decimal):
        raise PydanticSerializationUnexpectedValue
    return canonical_decimal(value)


def _length_text(value: object) -> str:
    if not isinstance(value, Length):
        raise PydanticSerializationUnexpectedValue
    return str(value)


def _integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"`{value!s:.60}` is not a whole number: write one such as 30")
    return value


def _decimal(value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, (int, str, Decimal)):
        raise ValueError(f"`{value!s:.60}` is not a number: write one such as 2.50")
    try:
        number = Decimal(value)
    except InvalidOperation:
        raise ValueError(f"`{value!s:.60}` is not a number: write one such as 2.50") from None
    if not number.is_finite():
        raise ValueError("the number must be finite")
    if abs(number) > MINOR_MAX or len(number.as_tuple().digits) > 30:
        raise ValueError(f"`{value!s:.60}` is too large, or has too many digits")
    return number


def _positive(number: Decimal) -> Decimal:
    if number <= 0:
        raise ValueError(f"must be above zero, not `{number}`")
    return number


def _not_negative(number: Decimal) -> Decimal:
    if number < 0:
        raise ValueError(f"must not be negative: `{number}`")
    return number


def _name(value: Any) -> str:
    if not isinstance(value, str) or not _NAME.match(value):
        raise ValueError(
            f"`{value!s:.60}` is not a name: use letters, digits, `_`, `.` and `-`, at most 100 of them"
        )
    return value


def _currency(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[a-z]{3}", value):
        raise ValueError(f"`{value!s:.60}` is not a currency: write three lower-case letters such as usd")
    return value


def _length(value: Any) -> Length:
    if isinstance(value, Length):
        return value
    if not isinstance(value, str):
        raise ValueError(f"`{value!s:.40}` is not a length of time: write one such as 30s, 5m, 24h, 7d, 12mo or 1y")
    return Length.parse(value)


def _zone(value: Any) -> str:
    try:
        zone_named(str(value))
    except InvalidRequest as error:
        raise ValueError(str(error)) from None
    return str(value)


def minor_digits(currency: str) -> int:
    """Return how many digits the currency has after the point: 2 for usd, 0 for jpy, 3 for kwd."""
    return 0 if currency in _ZERO_DECIMAL else 3 if currency in _THREE_DECIMAL else 2


def to_minor(amount: Decimal, currency: str) -> int:
    """Convert an amount to minor units of its currency.

    Raises:
        ValueError: it has more digits than the currency does.
    """
    minor = amount.scaleb(minor_digits(currency))
    if minor != minor.to_integral_value():
        raise ValueError(f"`{amount}` has more digits than {currency} does: {minor_digits(currency)} after the point")
    return int(minor)


_DECIMAL_SCHEMA: Final = WithJsonSchema({"type": "number"})
_spelled: Final = PlainSerializer(_decimal_text, return_type=str)

Name = Annotated[str, BeforeValidator(_name), WithJsonSchema({"type": "string", "pattern": _NAME.pattern[:-2]})]
WholeNumber = Annotated[int, BeforeValidator(_integer)]
PositiveInt = Annotated[WholeNumber, Field(ge=1, le=UNITS_MAX)]
Number = Annotated[Decimal, BeforeValidator(_decimal), _spelled, _DECIMAL_SCHEMA]
PositiveNumber = Annotated[Decimal, BeforeValidator(_decimal), AfterValidator(_positive), _spelled, _DECIMAL_SCHEMA]
Amount = Annotated[Decimal, BeforeValidator(_decimal), AfterValidator(_not_negative), _spelled, _DECIMAL_SCHEMA]
Currency = Annotated[str, BeforeValidator(_currency), WithJsonSchema({"type": "string", "pattern": "^[a-z]{3}$"})]
ZoneName = Annotated[str, BeforeValidator(_zone)]
LengthOfTime = Annotated[
    Length,
    BeforeValidator(_length),
    PlainSerializer(_length_text, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^\d+(s|m|h|d|mo|y)$", "examples": ["30s", "24h", "12mo"]}),
]
