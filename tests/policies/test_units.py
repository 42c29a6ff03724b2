"""Whole quantities and exact arithmetic."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies import InvalidRequest
from policies.units import div_ceil, exact, gpu_micro_usd, micro_usd, whole


@given(st.integers(-(10**30), 10**30), st.integers(1, 10**12))
def test_division_rounds_up_exactly(dividend, divisor):
    result = div_ceil(dividend, divisor)
    assert (result - 1) * divisor < dividend <= result * divisor


@pytest.mark.parametrize("value", [1, 30, 10**12, Decimal(7), Decimal("7.0"), Decimal("1E+3")])
def test_whole_numbers_are_whole(value):
    assert whole(value, "units") == value


@pytest.mark.parametrize(
    "value",
    [0, -1, 10**12 + 1, 1.0, 1.5, True, "3", None, [], Decimal("1.5"), Decimal("NaN"),
     Decimal("Infinity"), Decimal("1E+400"), float("nan"), float("inf"), 10**5000, -(10**5000)],
    ids=lambda value: "huge" if isinstance(value, int) and abs(value) > 99**9 else f"{value!r:.9}",
)  # fmt: skip
def test_what_is_not_whole_or_out_of_range_is_refused_in_one_line(value):
    with pytest.raises(InvalidRequest, match="units must be") as caught:
        whole(value, "units")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("value", "expected"), [(41, "41"), (41.2, "41.2"), (Decimal("41.20"), "41.2"), (0, "0")]
)
def test_exact_numbers_are_read_as_they_print(value, expected):
    assert exact(value, "gpu_seconds", most=100) == Decimal(expected)


@pytest.mark.parametrize(
    "value", [-1, 101, True, "3", None, float("nan"), float("inf"), Decimal("sNaN"), -0.5]
)
def test_what_is_no_number_within_the_range_is_refused(value):
    with pytest.raises(InvalidRequest, match="gpu_seconds must be"):
        exact(value, "gpu_seconds", most=100)


@given(
    st.decimals(min_value=0, max_value=10**6, places=4),
    st.decimals(min_value=Decimal("0.01"), max_value=1000, places=2),
)
def test_gpu_time_is_priced_exactly_with_one_rounding_up(seconds, price):
    true = Fraction(seconds) * Fraction(price) * 1_000_000 / 3600
    assert true <= gpu_micro_usd(seconds, price) < true + 1


def test_a_cost_is_never_understated():
    assert micro_usd(Decimal("0.0000001")) == 1
    assert micro_usd(Decimal("0.000001")) == 1
    assert micro_usd(Decimal("0.0000011")) == 2
    assert micro_usd(Decimal(0)) == 0
