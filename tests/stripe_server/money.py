"""Amounts as Stripe counts them: integers in the smallest unit of the currency."""

from __future__ import annotations

from typing import Final

from tests.stripe_server.errors import malformed

ZERO_DECIMAL: Final = frozenset(
    "bif clp djf gnf jpy kmf krw mga pyg rwf vnd vuv xaf xof xpf".split()
)
# They have no smaller unit, but are counted in hundredths all the same: two zeros at the end.
WHOLE_HUNDREDS: Final = frozenset(("isk", "ugx"))
THREE_DECIMAL: Final = frozenset("bhd jod kwd omr tnd".split())
CHARGE_MAX: Final = 99_999_999
# The least that a card may be charged, of some currencies, in minor units.
CHARGE_MIN: Final = {"usd": 50, "eur": 50, "gbp": 30, "jpy": 50, "kwd": 150}


def units_of(currency: str) -> int:
    """How many minor units make one unit: 100 cents a dollar, 1 yen a yen, 1000 fils a dinar."""
    if currency in ZERO_DECIMAL:
        return 1
    return 1000 if currency in THREE_DECIMAL else 100


def check(amount: int, currency: str, param: str) -> int:
    """Return the amount if Stripe takes it.

    Raises:
        Refusal: it is negative, too large, too small to charge, or finer than Stripe settles.
    """
    if amount < 0:
        raise malformed(
            "Invalid non-negative integer", code="parameter_invalid_integer", param=param
        )
    if amount > CHARGE_MAX:
        message = "Amount must be no more than 99999999"
        raise malformed(message, code="amount_too_large", param=param)
    if 0 < amount < CHARGE_MIN.get(currency, 0):
        message = f"Amount must convert to at least {CHARGE_MIN[currency]} {currency}."
        raise malformed(message, code="amount_too_small", param=param)
    if currency in THREE_DECIMAL and amount % 10:
        message = f"Invalid amount: {amount} is no multiple of 10 in {currency}."
        raise malformed(message, code="parameter_invalid_integer", param=param)
    if currency in WHOLE_HUNDREDS and amount % 100:
        message = (
            f"Invalid amount. Currency {currency} charged amounts must be evenly divisible by 100."
        )
        raise malformed(message, code="parameter_invalid_integer", param=param)
    return amount


def usual_fee(amount: int, currency: str) -> int:
    """Return what a card payment costs in minor units: 2.9 % and 0.30 of the currency's unit."""
    return round(amount * 29 / 1000) + units_of(currency) * 3 // 10
