"""Operations: requests are normalised to typed attributes, or refused by name."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from policies import InvalidRequest, PolicySet
from policies.operation import Attribute, Operation

OPERATION = Operation.model_validate(
    {
        "attributes": {
            "seconds": {"type": "integer", "choices": [10, 15, 25]},
            "quality": {"type": "string", "choices": ["standard", "high"], "default": "standard"},
            "steps": {"type": "integer", "min": 1, "max": 150, "default": 30},
            "scale": {"type": "decimal", "min": "0.5", "default": 1},
            "hd": {"type": "boolean", "default": False},
            "model": {"type": "string", "default": "unknown"},
        },
        "gpu_cost": {"usd": 1},
    }
)


def normal(**attributes: Any) -> dict[str, Any]:
    return dict(OPERATION.normalise({"seconds": 10, **attributes}))


def test_defaults_are_filled_in_and_attributes_are_in_order_of_name():
    assert normal() == {
        "hd": False,
        "model": "unknown",
        "quality": "standard",
        "scale": Decimal(1),
        "seconds": 10,
        "steps": 30,
    }
    assert list(normal()) == sorted(normal())


def test_none_stands_for_the_default():
    assert normal(steps=None)["steps"] == 30


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("steps", 150, 150),
        ("steps", Decimal("8.0"), 8),
        ("scale", 2, Decimal(2)),
        ("scale", 0.7, Decimal("0.7")),
        ("scale", Decimal("1.50"), Decimal("1.5")),
        ("scale", Decimal("1E+2"), Decimal(100)),
        ("hd", True, True),
        ("model", "", ""),
        ("model", "ünïcode 猫", "ünïcode 猫"),
    ],
)
def test_values_are_normalised_to_their_declared_type(name, value, expected):
    value = normal(**{name: value})[name]
    assert value == expected
    assert type(value) is type(expected)
    assert str(value) == str(expected), "equal requests are equal in every spelling"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seconds", 11), ("seconds", "10"), ("seconds", 10.0), ("seconds", True),
        ("quality", "ultra"), ("quality", 1), ("quality", None.__class__),
        ("steps", 0), ("steps", 151), ("steps", -1), ("steps", 1.5), ("steps", Decimal("1.5")),
        ("steps", float("nan")), ("steps", 10**400), ("steps", Decimal("1E+999999")),
        ("steps", "x"),
        ("scale", 0.4), ("scale", float("inf")), ("scale", Decimal("NaN")), ("scale", "1.5"),
        ("scale", Decimal("1E-40")), ("scale", 10**30), ("scale", True),
        ("hd", 1), ("hd", "true"),
        ("model", "x" * 501), ("model", b"bytes"), ("model", ["list"]),
    ],
)  # fmt: skip
def test_a_value_that_is_not_allowed_is_refused_in_one_line(name, value):
    with pytest.raises(InvalidRequest, match=f"`{name}` must be") as caught:
        normal(**{name: value})
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


def test_an_unknown_attribute_is_refused_with_a_suggestion():
    with pytest.raises(InvalidRequest, match="unknown attribute `second`: did you mean `seconds`"):
        normal(second=10)


def test_an_attribute_without_a_default_must_be_given():
    with pytest.raises(InvalidRequest, match="`seconds` is missing: it has no default"):
        OPERATION.normalise({})


def test_an_operation_without_attributes_takes_none():
    bare = Operation.model_validate({"gpu_cost": {"usd": 1}})
    assert bare.normalise(None) == {}
    with pytest.raises(InvalidRequest, match="unknown attribute `x`: there are none"):
        bare.normalise({"x": 1})


def attribute(**parameters: Any) -> Attribute:
    return Attribute.model_validate(parameters)


@pytest.mark.parametrize(
    ("parameters", "values"),
    [
        ({"type": "integer", "choices": [3, 1]}, (3, 1)),
        ({"type": "integer", "min": 2, "max": 5}, (2, 3, 4, 5)),
        ({"type": "integer", "min": 0, "max": 10**9}, None),
        ({"type": "integer", "min": 0}, None),
        ({"type": "boolean"}, (False, True)),
        ({"type": "decimal", "min": 0, "max": 1}, None),
        ({"type": "decimal", "choices": ["0.5", 1]}, (Decimal("0.5"), Decimal(1))),
        ({"type": "string"}, None),
    ],
)
def test_allowed_values_are_listed_where_they_can_be(parameters, values):
    assert attribute(**parameters).values() == values


@pytest.mark.parametrize(
    ("parameters", "least", "greatest"),
    [
        ({"type": "integer", "choices": [3, 1]}, 1, 3),
        ({"type": "integer", "min": 0, "max": 10**9}, 0, 10**9),
        ({"type": "integer", "max": 5}, None, 5),
        ({"type": "boolean"}, 0, 1),
        ({"type": "decimal", "min": "-0.5"}, Decimal("-0.5"), None),
    ],
)
def test_the_range_of_numbers_is_known(parameters, least, greatest):
    assert (attribute(**parameters).least(), attribute(**parameters).greatest()) == (
        least,
        greatest,
    )


def test_free_text_is_what_a_user_may_have_written():
    assert attribute(type="string").is_free_text
    assert not attribute(type="string", choices=["a"]).is_free_text
    assert not attribute(type="integer").is_free_text


def test_a_hold_of_one_length_counts_before_and_after_the_start():
    one = Operation.model_validate({"hold_for": "30m", "gpu_cost": {"usd": 1}}).hold
    two = Operation.model_validate(
        {"hold_for": {"queued": "2h", "running": "30m"}, "gpu_cost": {"usd": 1}}
    ).hold
    assert (str(one.queued), str(one.running)) == ("30m", "30m")
    assert (str(two.queued), str(two.running)) == ("2h", "30m")
    assert str(Operation.model_validate({"gpu_cost": {"usd": 1}}).hold.queued) == "1h"


def test_the_unlimited_set_admits_any_operation_with_any_attributes():
    policies = PolicySet.unlimited()
    request = policies.request(
        "whatever.you.like", {"a": 1, "b": "x", "c": 2.5, "d": True}, None, consent=False
    )
    assert request.attributes == {"a": 1, "b": "x", "c": Decimal("2.5"), "d": True}
    assert policies.operation("whatever.you.like").limits_only
    assert PolicySet.from_canonical(policies.canonical).version == policies.version


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("plan", "unknown plan `standrad`: did you mean `standard`"),
        ("operation", "unknown operation `standrad`"),
        ("pack", "unknown pack `standrad`"),
        ("gpu", "unknown GPU `standrad`"),
    ],
)
def test_an_unknown_name_is_refused_with_a_suggestion(shared, method, message):
    policies = PolicySet.load(shared / "examples" / "sora-launch.yaml")
    with pytest.raises(InvalidRequest, match=message) as caught:
        getattr(policies, method)("standrad")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("method", ["plan", "operation", "pack", "gpu"])
def test_an_unknown_name_of_any_shape_is_refused_in_one_line(shared, method):
    policies = PolicySet.load(shared / "examples" / "sora-launch.yaml")
    for name in ("", "a\nb", "x" * 100_000, "\x00"):
        with pytest.raises(InvalidRequest) as caught:
            getattr(policies, method)(name)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 300
