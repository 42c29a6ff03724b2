"""The types of a policy file's values."""

from __future__ import annotations

from decimal import Decimal, getcontext, localcontext
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from policies import fields
from policies.fields import as_decimal, minor_digits, to_minor
from policies.part import canonical_decimal

VALID = [
    (fields.Name, "video.generate", "video.generate"),
    (fields.Name, "_a-b.C9", "_a-b.C9"),
    (fields.Name, 4090, "4090"),
    (fields.Name, "x" * 100, "x" * 100),
    (fields.WholeNumber, 30, 30),
    (fields.WholeNumber, Decimal("30.0"), 30),
    (fields.WholeNumber, Decimal("1E+3"), 1000),
    (fields.PositiveInt, 10**12, 10**12),
    (fields.Flag, True, True),
    (fields.Number, -3, Decimal(-3)),
    (fields.Number, "2.50", Decimal("2.50")),
    (fields.PositiveNumber, Decimal("0.000001"), Decimal("0.000001")),
    (fields.Amount, 0, Decimal(0)),
    (fields.Currency, "eur", "eur"),
    (fields.ZoneName, "America/Argentina/Buenos_Aires", "America/Argentina/Buenos_Aires"),
    (fields.Prices, Decimal("4.00"), Decimal("4.00")),
    (fields.Prices, {"usd": 4, "eur": "4.50"}, {"usd": Decimal(4), "eur": Decimal("4.50")}),
    (fields.MinorByCurrency, 2000, 2000),
    (fields.MinorByCurrency, {"usd": 2000}, {"usd": 2000}),
]
INVALID = [
    (fields.Name, ""),
    (fields.Name, "-a"),
    (fields.Name, "a b"),
    (fields.Name, "a/b"),
    (fields.Name, "ä"),
    (fields.Name, "a\n"),
    (fields.Name, "x" * 101),
    (fields.Name, True),
    (fields.Name, None),
    (fields.Name, Decimal("1.5")),
    (fields.WholeNumber, True),
    (fields.WholeNumber, "30"),
    (fields.WholeNumber, Decimal("30.5")),
    (fields.WholeNumber, Decimal("NaN")),
    (fields.WholeNumber, 30.0),
    (fields.PositiveInt, 0),
    (fields.PositiveInt, 10**12 + 1),
    (fields.Flag, 1),
    (fields.Flag, "true"),
    (fields.Number, True),
    (fields.Number, 1.5),
    (fields.Number, "x"),
    (fields.Number, "NaN"),
    (fields.Number, "Infinity"),
    (fields.Number, 10**15 + 1),
    (fields.Number, "1e-29"),
    (fields.Number, "1e999999"),
    (fields.PositiveNumber, 0),
    (fields.Amount, Decimal("-0.01")),
    (fields.Currency, "USD"),
    (fields.Currency, "us"),
    (fields.ZoneName, "Mars/Olympus"),
    (fields.ZoneName, "../../etc/passwd"),
    (fields.ZoneName, ""),
    (fields.ZoneName, 3),
    (fields.Prices, {}),
    (fields.Prices, {"usd": -1}),
    (fields.MinorByCurrency, {"usd": 0}),
    (fields.MinorByCurrency, {}),
]


@pytest.mark.parametrize(("kind", "value", "expected"), VALID)
def test_a_valid_value_is_read(kind, value, expected):
    read = TypeAdapter(kind).validate_python(value)
    assert read == expected
    assert type(read) is type(expected)


@pytest.mark.parametrize(("kind", "value"), INVALID)
def test_an_invalid_value_is_refused(kind, value):
    with pytest.raises(ValidationError):
        TypeAdapter(kind).validate_python(value)


@given(
    st.decimals(
        allow_nan=False, allow_infinity=False, places=6, min_value=-(10**9), max_value=10**9
    )
)
def test_equal_numbers_have_one_spelling_and_it_reads_back_exactly(number):
    text = canonical_decimal(number)
    assert Decimal(text) == number
    assert canonical_decimal(Decimal(text)) == text
    assert canonical_decimal(number * 1000 / 1000) == text
    assert canonical_decimal(Decimal(f"{text}.000" if "." not in text else f"{text}000")) == text


def test_zero_has_one_spelling():
    assert {canonical_decimal(Decimal(text)) for text in ("0", "-0", "0.00", "-0.0", "0E+3")} == {
        "0"
    }


def test_a_host_with_a_small_decimal_context_changes_no_spelling_and_no_price():
    precise = Decimal("123456789.123456")
    with localcontext() as context:
        context.prec = 4
        assert canonical_decimal(precise) == "123456789.123456"
        assert to_minor(Decimal("1234567.89"), "usd") == 123456789
        assert as_decimal("1234567.891") == Decimal("1234567.891")
    assert getcontext().prec > 4


@pytest.mark.parametrize(
    ("amount", "currency", "minor"),
    [
        ("4.00", "usd", 400),
        ("0.01", "eur", 1),
        ("500", "jpy", 500),
        ("1.234", "kwd", 1234),
        # As Stripe counts them: with ugx as yen, a hundredth of the price would be charged.
        ("5000", "ugx", 500_000),
        ("500", "isk", 50_000),
    ],
)
def test_money_is_converted_to_minor_units(amount, currency, minor):
    assert to_minor(Decimal(amount), currency) == minor


@pytest.mark.parametrize(
    ("amount", "currency"), [("4.005", "usd"), ("0.5", "jpy"), ("1.2345", "bhd")]
)
def test_money_with_more_digits_than_its_currency_is_refused(amount, currency):
    with pytest.raises(ValueError, match=f"more digits than {currency} does"):
        to_minor(Decimal(amount), currency)


@given(st.integers(0, 10**9), st.sampled_from(["usd", "jpy", "kwd"]))
def test_minor_units_are_exact(minor, currency):
    amount = Fraction(minor, 10 ** minor_digits(currency))
    assert to_minor(Decimal(amount.numerator) / Decimal(amount.denominator), currency) == minor
