"""GPU costs and weights: exact, rounded up once, from constants, tables and sums."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies import InvalidRequest, PolicySet
from policies.gpu_cost import Gpu, GpuCost
from policies.operation import units_of
from policies.request import AttributeValue
from policies.table import Linear, Table

PRICES = st.decimals(min_value=Decimal("0.01"), max_value=100, places=2)
NUMBERS = st.decimals(min_value=0, max_value=10_000, places=3)


def gpus(price: Decimal | str | int) -> dict[str, Gpu]:
    return {"a10": Gpu(usd_per_hour=Decimal(price))}


def cost(**parameters: object) -> GpuCost:
    return GpuCost.model_validate(parameters)


# --- costs --------------------------------------------------------------------------------------


@given(NUMBERS, PRICES)
def test_a_constant_time_costs_its_exact_price_rounded_up_once(seconds, price):
    estimate = cost(gpu="a10", gpu_seconds=seconds).estimate_micro_usd({}, gpus(price))
    assert estimate == ceil(Fraction(seconds) * Fraction(price) * 1_000_000 / 3600)


@given(NUMBERS, NUMBERS, NUMBERS, PRICES, st.integers(1, 16), st.integers(1, 150))
def test_a_sum_is_rounded_up_once_at_its_end_and_not_term_by_term(
    base, per_image, per_step, price, images, steps
):
    model = cost(
        gpu="a10", gpu_seconds={"base": base, "each": {"images": per_image, "steps": per_step}}
    )
    seconds = Fraction(base) + Fraction(per_image) * images + Fraction(per_step) * steps
    estimate = model.estimate_micro_usd({"images": images, "steps": steps}, gpus(price))
    assert estimate == ceil(seconds * Fraction(price) * 1_000_000 / 3600)
    assert model.estimate_seconds({"images": images, "steps": steps}) == seconds


def test_the_image_service_costs_what_its_file_says():
    model = cost(gpu="a10", gpu_seconds={"base": 8, "each": {"images": "3.5", "steps": "0.3"}})
    # 8 + 3.5 x 2 + 0.3 x 30 = 24 s at $1.10 an hour = 7,333.3 micro-dollars.
    assert model.estimate_micro_usd({"images": 2, "steps": 30}, gpus("1.10")) == 7334


def test_a_table_by_two_attributes_reads_the_outer_one_first():
    table = {"standard": {10: 140, 25: 350}, "high": {10: 420, 25: "1080.5"}}
    model = cost(gpu="a10", gpu_seconds={"by": ["quality", "seconds"], "table": table})
    assert model.estimate_seconds({"quality": "high", "seconds": 25}) == Fraction(2161, 2)
    assert model.estimate_seconds({"quality": "standard", "seconds": 10}) == 140
    assert model.estimate_micro_usd({"quality": "high", "seconds": 10}, gpus("3.60")) == 420_000


@given(NUMBERS)
def test_dollars_directly_need_no_gpu(amount):
    assert cost(usd=amount).estimate_micro_usd({}, {}) == ceil(Fraction(amount) * 1_000_000)


def test_dollars_may_come_from_a_table_or_a_sum():
    by_quality = cost(usd={"by": "quality", "table": {"low": "0.01", "high": "0.04"}})
    assert by_quality.estimate_micro_usd({"quality": "high"}, {}) == 40_000
    each = cost(usd={"base": "0.001", "each": {"images": "0.0000005"}})
    assert each.estimate_micro_usd({"images": 3}, {}) == 1002


@given(NUMBERS, st.decimals(min_value=1, max_value=10_000, places=1))
def test_a_ceiling_is_the_most_that_is_estimated(seconds, ceiling):
    model = cost(gpu="a10", gpu_seconds=seconds, ceiling_gpu_seconds=ceiling)
    assert model.estimate_seconds({}) == min(Fraction(seconds), Fraction(ceiling))


def test_guarantee_priced_without_a_value_the_ceiling_is_the_estimate():
    table = {"by": "model", "table": {"sdxl": 10}}
    model = cost(gpu="a10", gpu_seconds=table, ceiling_gpu_seconds=600)
    assert model.estimate_seconds({"model": "sdxl"}) == 10
    assert model.estimate_seconds({"model": "unheard-of"}) == 600
    below_zero = cost(gpu="a10", gpu_seconds={"each": {"n": 1}}, ceiling_gpu_seconds=600)
    assert below_zero.estimate_seconds({"n": -5}) == 600


def test_guarantee_priced_without_a_value_and_a_ceiling_there_is_no_estimate():
    table = cost(gpu="a10", gpu_seconds={"by": "model", "table": {"sdxl": 10}})
    for attributes in ({"model": "unheard-of"}, {}):
        with pytest.raises(LookupError):
            table.estimate_micro_usd(attributes, gpus(1))
    linear = cost(gpu="a10", gpu_seconds={"base": 1, "each": {"n": 1}})
    for numbers in ({"n": -5}, {"n": 10**15}, {}):
        with pytest.raises(LookupError):
            linear.estimate_micro_usd(numbers, gpus(100_000))
    with pytest.raises(LookupError):
        cost(usd={"each": {"n": 1}}).estimate_micro_usd({"n": -1}, {})


def test_guarantee_priced_a_request_whose_cost_is_unknown_is_refused_by_name():
    policies = PolicySet.parse(
        """
schema: 1
gpus: {h100: {usd_per_hour: 2.50}}
operations:
  make:
    attributes: {n: {type: integer, min: 0}}
    gpu_cost: {gpu: h100, gpu_seconds: {each: {n: 1}}}
plans: {plan: {sources: [{kind: daily_allowance, units: 3}]}}
default_plan: plan
"""
    )
    rules = policies.rules("plan", "make")
    assert rules.estimate_micro_usd({"n": 3600}) == 2_500_000
    with pytest.raises(InvalidRequest, match="cost of `make` cannot be estimated"):
        rules.estimate_micro_usd({"n": 10**18})


# --- tables and sums ----------------------------------------------------------------------------


def test_a_table_finds_values_of_every_type_by_their_spelling():
    table = Table.model_validate(
        {"by": "a", "table": {10: 1, "true": 2, "x": 3, Decimal("2.50"): 4}}
    )
    assert [table.value({"a": value}) for value in (10, True, "x", Decimal("2.5"), 11, "10")] == [
        1, 2, 3, 4, None, 1,
    ]  # fmt: skip
    assert table.value({}) is None


def test_a_table_lists_its_entries_and_what_is_missing():
    table = Table.model_validate(
        {"by": ["a", "b"], "table": {"x": {"1": 5, "2": 6}, "y": {"1": 7}}}
    )
    assert dict(table.entries()) == {("x", "1"): 5, ("x", "2"): 6, ("y", "1"): 7}
    assert list(table.missing({"a": ("x", "y"), "b": (1, 2)})) == [("y", "2")]


@given(st.integers(0, 50), st.dictionaries(st.sampled_from("abc"), st.integers(-9, 9), min_size=1))
def test_a_sum_is_what_it_says(base, factors):
    linear = Linear.model_validate({"base": base, "each": factors})
    values: dict[str, AttributeValue] = {"a": 3, "b": Decimal("0.5"), "c": True}
    exact = {"a": Fraction(3), "b": Fraction(1, 2), "c": Fraction(1)}
    true = base + sum(Fraction(factor) * exact[name] for name, factor in factors.items())
    assert linear.value(values) == true
    assert linear.value({**values, next(iter(factors)): "text"}) is None


# --- weights ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weight", "attributes", "units"),
    [
        (3, {}, 3),
        ({"by": "seconds", "table": {10: 1, 25: 4}}, {"seconds": 25}, 4),
        ({"each": {"images": 1}}, {"images": 7}, 7),
        ({"each": {"images": "0.3", "steps": "0.3"}}, {"images": 1, "steps": 1}, 1),
        ({"each": {"images": "0.5"}}, {"images": 3}, 2),
        ({"base": 1, "each": {"seconds": "0.1"}}, {"seconds": Decimal("10.1")}, 3),
    ],
)
def test_a_weight_is_a_whole_number_of_units_rounded_up_once(weight, attributes, units):
    override = PolicySet.model_validate(
        {
            "schema": 1,
            "operations": {"make": {"weight": weight, "gpu_cost": {"usd": 1}}},
            "plans": {"plan": {}},
            "default_plan": "plan",
        }
    )
    read = override.operations["make"].weight
    assert not isinstance(read, dict)
    assert units_of(read, attributes) == units


@pytest.mark.parametrize("attributes", [{"n": 0}, {"n": -3}, {"n": 10**13}, {}])
def test_a_weight_of_nothing_or_beyond_all_measure_is_refused(attributes):
    with pytest.raises(InvalidRequest, match="weigh"):
        units_of(Linear.model_validate({"each": {"n": 1}}), attributes)


def test_a_plan_overrides_a_weight_source_by_source():
    policies = PolicySet.parse(
        """
schema: 1
operations:
  make: {weight: {daily_allowance: 1, credits: 2}, gpu_cost: {usd: 0.1}}
plans:
  plan: {sources: [{kind: daily_allowance, units: 3}, {kind: credits}]}
  heavy: {extends: plan, operations: {make: {weight: 5}}}
  mixed: {extends: plan, operations: {make: {weight: {credits: 7}}}}
  heir: {extends: mixed}
default_plan: plan
"""
    )
    sources = ("daily_allowance", "credits")
    weights = {
        plan: [policies.rules(plan, "make").weights[source] for source in sources]
        for plan in policies.plans
    }
    assert weights == {"plan": [1, 2], "heavy": [5, 5], "mixed": [1, 7], "heir": [1, 7]}
