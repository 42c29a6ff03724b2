"""Whatever is in a file: it loads, or all that is wrong is said in words, and nothing else happens."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st

from policies import PolicyError, PolicySet
from policies.diff import diff
from policies.explain import explain
from policies.notes import notes

BASE: dict[str, Any] = {
    "schema": 1,
    "currency": "usd",
    "gpus": {"h100": {"usd_per_hour": "2.50"}},
    "operations": {
        "make": {
            "attributes": {
                "seconds": {"type": "integer", "choices": [10, 15]},
                "images": {"type": "integer", "min": 1, "max": 4, "default": 1},
                "scale": {"type": "decimal", "default": "1.5"},
                "hd": {"type": "boolean", "default": False},
            },
            "weight": {
                "daily_allowance": {"by": "seconds", "table": {"10": 1, "15": 2}},
                "credits": {"each": {"images": 1}},
            },
            "gpu_cost": {"gpu": "h100", "gpu_seconds": {"base": 8, "each": {"images": 3}}},
            "hold_for": {"queued": "2h", "running": "30m"},
        }
    },
    "packs": {"ten": {"units": 10, "price": {"usd": "4.00"}, "valid_for": "12mo"}},
    "plans": {
        "standard": {
            "limits": [{"kind": "rate", "limit": 5, "per": "1m"}],
            "sources": [{"kind": "daily_allowance", "units": 30}, {"kind": "credits"}],
        },
        "pro": {
            "extends": "standard",
            "price": {"usd": "20.00", "every": "1mo"},
            "operations": {"make": {"weight": 2}},
        },
    },
    "default_plan": "standard",
    "budgets": {"free": {"usd_per_day": 9, "sources": ["daily_allowance"]}},
    "on_release": {"failed": {"units": "return", "ours": True, "grace": "7d"}},
}
WORDS = [
    "", "make", "standard", "pro", "usd", "rate", "credits", "daily_allowance", "each", "by", "table",
    "base", "10", "15", "-1", "1.5", "1e400", "NaN", "Infinity", "24h", "1mo", "UTC", "name", "kind",
    "units", "seconds", "images", "true", "null", "<<", "a\nb", "\x85", "é", "*", "&", "!",
]  # fmt: skip
SCALARS = st.one_of(
    st.sampled_from(WORDS),
    st.integers(-(10**20), 10**20),
    st.integers(-2, 40),
    st.booleans(),
    st.none(),
    st.text(max_size=6),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(WORDS), inner, max_size=3)
    ),
    max_leaves=6,
)
SPILT = ["*", "&a ", "{", "]", ": ", "\t", "- ", "#"]
LINE = re.compile(r"policies\.yaml:\d+:\d+: .+")


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, item in items:
        found += places(item, (*path, key))
    return found


@st.composite
def files(draw: st.DrawFn) -> Any:
    """Change a good file in a few places: something else, something more, or something less."""
    value = deepcopy(BASE)
    for _ in range(draw(st.integers(1, 3))):
        *parents, last = draw(st.sampled_from(places(value)))
        parent: Any = value
        for key in parents:
            parent = parent[key]
        match draw(st.sampled_from(["replace", "add", "remove"])):
            case "replace":
                parent[last] = draw(VALUES)
            case "add" if isinstance(parent, dict):
                parent[draw(st.sampled_from(WORDS))] = draw(VALUES)
            case "add":
                parent.append(draw(VALUES))
            case _:
                del parent[last]
        if not value:
            break
    return value


def problems_of(load: Any, content: Any) -> tuple[PolicySet | None, tuple[str, ...]]:
    try:
        return load(content), ()
    except PolicyError as error:
        return None, error.problems


def load_or_say_why(text: str) -> PolicySet | None:
    policies, problems = problems_of(PolicySet.parse, text)
    assert (policies is None) == bool(problems)
    for problem in problems:
        assert LINE.fullmatch(problem), problem
        assert problem.isprintable(), problem
        assert "pydantic" not in problem
        assert "Input" not in problem, problem
    return policies


@given(files())
def test_a_file_that_was_changed_anywhere_loads_or_says_what_is_wrong(value):
    policies = load_or_say_why(json.dumps(value))
    if policies is not None:
        assert PolicySet.from_canonical(policies.canonical).version == policies.version
        notes(policies)
        base = PolicySet.parse(json.dumps(BASE))
        for change in (*diff(base, policies), *diff(policies, base)):
            assert str(change).isprintable()


@given(st.data())
def test_text_that_was_cut_or_spilt_upon_loads_or_says_what_is_wrong(data):
    text = yaml.safe_dump(BASE)
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 12)))
        spilt = data.draw(st.one_of(st.text(max_size=4), st.sampled_from(SPILT)))
        text = text[:start] + spilt + text[end:]
    load_or_say_why(text)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused_by_name(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("any") / "policies.yaml"
    path.write_bytes(content)
    _, problems = problems_of(PolicySet.load, path)
    assert all(problem.isprintable() for problem in problems)


@given(st.integers(1, 4), st.sampled_from([10, 15]), st.booleans())
def test_an_allowed_request_of_a_valid_file_always_has_a_weight_and_a_cost(images, seconds, hd):
    policies = PolicySet.parse(json.dumps(BASE))
    found = explain(policies, "make", {"images": images, "seconds": seconds, "hd": hd})
    assert found.gpu_cost_micro_usd > 0
    assert all(line.units >= 1 for plan in found.plans for line in plan.sources)
