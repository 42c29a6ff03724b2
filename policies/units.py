"""Whole quantities: units, minor money, micro-dollars. Integers with exact division, never floats."""

from __future__ import annotations

import math
import numbers
from decimal import Decimal
from fractions import Fraction
from typing import Final

from policies.errors import InvalidRequest

INT64_MAX: Final = 2**63 - 1
"""The largest quantity that both databases store."""

UNITS_MAX: Final = 10**12
"""The largest number of units of one request, lot or limit: sums of millions of them still fit 64 bits."""

MINOR_MAX: Final = 10**15
"""The largest price, in minor units of its currency."""

GPU_SECONDS_MAX: Final = 10**9
"""The longest GPU time of one job, in seconds (31 years): more is a mistake of units."""

GPU_COST_MICRO_USD_MAX: Final = 10**15
"""The highest GPU cost of one job, in micro-dollars (a billion dollars): more is a mistake of units."""

DECIMALS_MAX: Final = 400
"""Decimal places of a number from outside: any float has fewer, and exact arithmetic on more takes for ever."""

MICRO_USD: Final = 1_000_000
SECONDS_PER_HOUR: Final = 3600


def div_ceil(dividend: int, divisor: int) -> int:
    """Divide and round up, exactly."""
    return -(-dividend // divisor)


def whole(value: object, name: str, *, least: int = 1, most: int = UNITS_MAX) -> int:
    """Return `value` as an integer between `least` and `most`.

    Integral decimals and fractions are whole; a `bool`, a float, NaN and anything fractional is not.

    Raises:
        InvalidRequest: it is not a whole number, or out of range.
    """
    number = value
    if isinstance(value, Decimal) and value.is_finite() and value == value.to_integral_value():
        number = int(value) if abs(value) <= INT64_MAX else None
    if isinstance(number, bool) or not isinstance(number, numbers.Integral):
        raise InvalidRequest(f"{name} must be a whole number, not `{value!r:.80}`")
    result = int(number)
    if not least <= result <= most:
        raise InvalidRequest(f"{name} must be between {least} and {most}, not `{_short(result)}`")
    return result


def exact(value: object, name: str, *, most: int) -> Decimal:
    """Return `value` as an exact decimal between zero and `most`.

    A float is read as the decimal that it prints as, which is what its writer meant.

    Raises:
        InvalidRequest: it is not a number, is NaN or infinite, negative or above `most`.
    """
    if isinstance(value, bool) or not (isinstance(value, (int, Decimal)) or _is_float(value)):
        raise InvalidRequest(f"{name} must be a number, not `{value!r:.80}`")
    number = Decimal(str(value)) if _is_float(value) else Decimal(value)  # type: ignore[arg-type]
    if number.is_finite() and number.as_tuple().exponent < -DECIMALS_MAX:  # type: ignore[operator]
        raise InvalidRequest(f"{name} must have at most {DECIMALS_MAX} decimal places")
    if not number.is_finite() or number < 0 or number > most:
        raise InvalidRequest(f"{name} must be between 0 and {most}, not `{value!s:.80}`")
    return number


def micro_usd(amount_usd: Decimal | Fraction) -> int:
    """Convert dollars to micro-dollars, rounded up once, so that cost is never understated."""
    return math.ceil(Fraction(amount_usd) * MICRO_USD)


def gpu_micro_usd(gpu_seconds: Decimal | Fraction, usd_per_hour: Decimal) -> int:
    """Price GPU time in micro-dollars: exact, with one rounding up at the end."""
    seconds, parts = gpu_seconds.as_integer_ratio()
    usd, hours = usd_per_hour.as_integer_ratio()
    return div_ceil(seconds * usd * MICRO_USD, parts * hours * SECONDS_PER_HOUR)


def _is_float(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, numbers.Rational)


def _short(number: int) -> str:
    if abs(number) < 10**30:
        return str(number)
    return f"{'-' if number < 0 else ''}a number of over 30 digits"
