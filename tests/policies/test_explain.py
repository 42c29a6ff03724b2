"""What one request would take and cost, plan by plan."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from policies import InvalidRequest, PolicySet
from policies.explain import explain
from policies.words import dollars, money, percent


@pytest.fixture
def launch(shared) -> PolicySet:
    return PolicySet.load(shared / "examples" / "sora-launch.yaml")


def test_a_request_is_explained_with_weights_cost_hold_limits_and_releases(launch):
    found = explain(launch, "video.generate", {"seconds": 25, "quality": "high"}, "standard")
    (plan,) = found.plans
    assert [(line.name, line.units, line.requests) for line in plan.sources] == [
        ("daily_allowance", 4, 7),
        ("credits", 3, None),
    ]
    assert plan.sources[0].gives == "30 units per rolling 24h"
    assert plan.sources[0].weight == "by seconds (10: 1, 15: 2, 25: 4)"
    assert (found.gpu, found.gpu_seconds) == ("h100", "1080")
    assert (found.gpu_cost_micro_usd, found.gpu_cost) == (750_000, "$0.75")
    assert (found.queued, found.running) == ("2h", "30m")
    assert [(line.name, line.allows, line.sources) for line in plan.limits] == [
        ("rate", "5 requests per 1m", ()),
        ("concurrency", "3 live grants at a time", ()),
        (
            "free_gpu",
            (
                "$250,000.00 of estimated GPU cost per day in UTC, over all accounts,"
                " from daily_allowance, then the next source"
            ),
            ("daily_allowance",),
        ),
    ]
    assert list(found.releases)[-1] == "default"
    assert found.releases["moderated_after_run"] == "units are charged"
    assert found.releases["failed"].startswith(
        "units come back, those of an expired lot for 7d more"
    )
    assert found.on_expire == "units come back"


def test_without_a_plan_every_plan_is_explained(launch):
    found = explain(launch, "video.generate", {"seconds": 10})
    assert [(plan.plan, plan.sources[0].requests) for plan in found.plans] == [
        ("pro", 100),
        ("standard", 30),
    ]


def test_defaults_are_filled_in_and_all_of_it_is_plain_json(launch):
    values = json.loads(json.dumps(explain(launch, "video.generate", {"seconds": 10}).as_dict()))
    assert values["attributes"] == {"quality": "standard", "seconds": 10}
    assert values["gpu_cost_micro_usd"] == 97_223
    assert values["plans"][0]["sources"][0]["units"] == 1


def test_gpu_seconds_are_spelled_exactly(shared):
    policies = PolicySet.load(shared / "examples" / "gentd26.yaml")
    found = explain(policies, "image.generate", {"type": "TXT_2_IMG", "images": 3, "steps": 31})
    assert found.gpu_seconds == "27.8"
    assert (
        explain(
            policies, "image.generate", {"type": "INPAINTING", "images": 2, "steps": 30}
        ).gpu_seconds
        == "24"
    )


def test_decimal_attributes_are_spelled_as_text():
    policies = PolicySet.parse(
        """
schema: 1
operations:
  make:
    attributes: {scale: {type: decimal, default: 1.50}}
    gpu_cost: {usd: 0.01}
plans: {plan: {sources: [{kind: daily_allowance, units: 1}]}}
default_plan: plan
"""
    )
    found = explain(policies, "make")
    assert found.attributes == {"scale": Decimal("1.5")}
    assert found.as_dict()["attributes"] == {"scale": "1.5"}
    assert (found.gpu, found.gpu_seconds, found.gpu_cost) == (None, None, "$0.01")


@pytest.mark.parametrize(
    ("operation", "attributes", "plan", "message"),
    [
        ("video.generat", {"seconds": 10}, None, "unknown operation"),
        ("video.generate", {"seconds": 11}, None, "`seconds` must be one of"),
        ("video.generate", {}, None, "`seconds` is missing"),
        ("video.generate", {"seconds": 10, "x": 1}, None, "unknown attribute `x`"),
        ("video.generate", {"seconds": 10}, "prro", "unknown plan `prro`: did you mean `pro`"),
    ],
)
def test_what_is_unknown_is_refused(launch, operation, attributes, plan, message):
    with pytest.raises(InvalidRequest, match=message):
        explain(launch, operation, attributes, plan)


@pytest.mark.parametrize(
    ("micro_usd", "text"),
    [
        (0, "$0.00"),
        (1, "$0.000001"),
        (750_000, "$0.75"),
        (1_234_567_890_000, "$1,234,567.89"),
        (-10_000, "-$0.01"),
    ],
)
def test_micro_dollars_are_spelled_exactly(micro_usd, text):
    assert dollars(micro_usd) == text


@pytest.mark.parametrize(
    ("minor", "currency", "text"),
    [(400, "usd", "$4.00"), (5, "usd", "$0.05"), (450, "eur", "4.50 eur"), (500, "jpy", "500 jpy"),
     (1234, "kwd", "1.234 kwd"), (-400, "usd", "-$4.00"), (123456789, "usd", "$1,234,567.89")],
)  # fmt: skip
def test_money_is_spelled_in_its_currency(minor, currency, text):
    assert money(minor, currency) == text


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        (75, 90, "+20 %"),
        (90, 75, "-16.7 %"),
        (1, 3, "+200 %"),
        (3, 3, "+0 %"),
        (0, 5, "from nothing"),
    ],
)
def test_changes_are_spelled_in_percent(old, new, text):
    assert percent(old, new) == text
