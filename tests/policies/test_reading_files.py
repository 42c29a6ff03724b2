"""Reading policy files: exact YAML, what is refused as a whole, and what a check notes."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from policies import PolicyError, PolicySet
from policies.yaml_text import read_yaml

GOOD = """\
schema: 1
gpus: {h100: {usd_per_hour: 2.50}}
operations:
  make: {gpu_cost: {gpu: h100, gpu_seconds: 1}}
plans:
  standard: {sources: [{kind: daily_allowance, units: 30}]}
default_plan: standard
"""


def value_of(text: str) -> Any:
    document = read_yaml(f"value: {text}")
    assert not document.problems
    return document.value["value"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4.00", Decimal("4.00")),
        ("0.1", Decimal("0.1")),
        (".5", Decimal("0.5")),
        ("5.", Decimal(5)),
        ("1e3", Decimal(1000)),
        ("-2.5", Decimal("-2.5")),
        ("30", 30),
        ("+30", 30),
        ("-0", 0),
        ("0", 0),
        ("true", True),
        ("True", True),
        ("FALSE", False),
        ("off", "off"),
        ("on", "on"),
        ("yes", "yes"),
        ("no", "no"),
        ("y", "y"),
        ("null", None),
        ("~", None),
        ("", None),
        ('"30"', "30"),
        ("'true'", "true"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("0x1f", "0x1f"),
        ("0o17", "0o17"),
        (".inf", ".inf"),
        (".nan", ".nan"),
        ("2024-02-29", "2024-02-29"),
        ("1.2.3", "1.2.3"),
        ("[1, 2.0]", [1, Decimal("2.0")]),
        ("{10: a, 2.50: b, true: c}", {"10": "a", "2.5": "b", "true": "c"}),
    ],
)
def test_plain_text_is_read_by_the_core_schema_with_exact_decimals(text, expected):
    value = value_of(text)
    assert value == expected
    assert type(value) is type(expected)


def test_no_value_of_a_file_is_ever_a_float():
    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            return [leaf for item in value.values() for leaf in walk(item)]
        return (
            [leaf for item in value for leaf in walk(item)] if isinstance(value, list) else [value]
        )

    leaves = walk(value_of("{a: 1.5, b: [2.0, 3e-2, .5], c: {d: 1e2}}"))
    assert {type(leaf) for leaf in leaves} == {Decimal}


def test_aliases_and_merge_keys_are_followed_and_own_keys_win():
    text = """
base: &base {a: 1, b: 2}
other: &other {b: 3, c: 4}
one: {<<: *base, b: 5}
many: {<<: [*base, *other], d: 6}
same: *base
"""
    value = read_yaml(text).value
    assert value["one"] == {"a": 1, "b": 5}
    assert value["many"] == {"a": 1, "b": 2, "c": 4, "d": 6}
    assert value["same"] == {"a": 1, "b": 2}


def test_a_merge_key_that_is_quoted_is_an_ordinary_key():
    assert value_of('{"<<": 1}') == {"<<": 1}


def test_positions_count_lines_and_columns_from_one():
    document = read_yaml("a:\n  b: [x, y]\n")
    assert (document.keys[("a", "b")].line, document.keys[("a", "b")].column) == (2, 3)
    position = document.values[("a", "b", 1)]
    assert (position.line, position.column) == (2, 10)


def refused(text: str) -> tuple[str, ...]:
    with pytest.raises(PolicyError) as caught:
        PolicySet.parse(text)
    return caught.value.problems


def test_an_expansion_without_bound_is_refused_quickly():
    text = "a0: &a0 [x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30)
    )
    (problem,) = refused(text)
    assert "expands to more than 200000 values" in problem


def test_merge_keys_cannot_expand_without_bound_either():
    text = "a0: &a0 {k: v}\n" + "".join(
        f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 30)
    )
    (problem,) = refused(text)
    assert "expands to more than 200000 values" in problem


@pytest.mark.parametrize(
    "text",
    ["a: &a [*a]", "a: &a {b: *a}", "a: &a {<<: *a}", "a: &a {b: {<<: [*a]}}"],
)
def test_an_alias_inside_its_own_anchor_is_refused(text):
    (problem,) = refused(text)
    assert "contains itself" in problem


def test_an_unknown_alias_is_refused():
    (problem,) = refused("a: *b")
    assert "found undefined alias" in problem


@pytest.mark.parametrize("opening", ["[", "{a: "])
def test_deep_nesting_is_refused(opening):
    assert (
        "nested" in refused("a: " + opening * 100 + "x")[0]
        or "valid YAML" in refused("a: " + opening * 100 + "x")[0]
    )
    closing = "]" if opening == "[" else "}"
    (problem,) = refused("a: " + opening * 3000 + "x" + closing * 3000)
    assert "nested" in problem


def test_a_directive_of_another_yaml_is_refused():
    (problem,) = refused("%YAML 2.0\n---\nschema: 1\n")
    assert "policies.yaml:1:1: is not valid YAML" in problem


def test_a_character_that_yaml_forbids_is_refused_in_one_line():
    (problem,) = refused("schema: 1\na: \x00")
    assert problem == "policies.yaml:2:4: has the character '\\x00', which YAML does not allow"


def test_a_file_is_read_with_or_without_a_byte_order_mark(tmp_path):
    plain, marked = tmp_path / "plain.yaml", tmp_path / "marked.yaml"
    plain.write_text(GOOD, encoding="utf-8")
    marked.write_text(GOOD, encoding="utf-8-sig")
    assert PolicySet.load(plain).version == PolicySet.load(str(marked)).version


def load_problems(path) -> tuple[str, ...]:
    with pytest.raises(PolicyError) as caught:
        PolicySet.load(path)
    return caught.value.problems


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    missing = tmp_path / "missing.yaml"
    assert load_problems(missing) == (f"{missing}: no such file or directory",)
    assert load_problems(tmp_path) == (f"{tmp_path}: is a directory",)


def test_a_file_that_is_not_utf8_is_refused_at_its_byte(tmp_path):
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"schema: 1\n# caf\xe9\n")
    assert load_problems(path) == (f"{path}:2:6: is not UTF-8 text: it holds the byte 0xe9",)


def test_a_file_above_a_megabyte_is_refused(tmp_path):
    path = tmp_path / "large.yaml"
    path.write_bytes(b"#" * 1_000_001)
    message = f"{path}: has 1000001 bytes: a policy file has at most 1000000"
    assert load_problems(path) == (message,)


def test_problems_name_the_file_as_it_was_given(tmp_path, monkeypatch):
    (tmp_path / "p.yaml").write_text("schema: 2", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert all(problem.startswith("p.yaml:1:") for problem in load_problems("p.yaml"))


@pytest.mark.parametrize("name", ["edge", "gentd26", "sora-launch"])
def test_the_shared_examples_load_as_they_are(shared, name):
    assert PolicySet.load(shared / "examples" / f"{name}.yaml").plans


def test_the_launch_policy_means_what_it_says(shared):
    policies = PolicySet.load(shared / "examples" / "sora-launch.yaml")
    pro, standard = policies.plan("pro"), policies.plan("standard")
    assert [source.label for source in pro.sources] == ["daily_allowance", "credits"]
    assert [s.units for s in pro.sources + standard.sources if hasattr(s, "units")] == [100, 30]
    assert pro.paid_use == "auto", "inherited"
    price = pro.price_in("usd")
    assert price is not None
    assert price.minor == 2000
    assert policies.packs["ten"].price == Decimal("4.00")
    rules = policies.rules("standard", "video.generate")
    weighed = {
        source.label: [rules.units(source, {"seconds": s, "quality": "high"}) for s in (10, 15, 25)]
        for source in rules.sources
    }
    assert weighed == {"daily_allowance": [1, 2, 4], "credits": [1, 2, 3]}
    assert rules.estimate_micro_usd({"seconds": 25, "quality": "high"}) == 750_000


def check_notes(tmp_path, text: str) -> list[str]:
    path = tmp_path / "policies.yaml"
    path.write_text(text, encoding="utf-8")
    checked = PolicySet.check(path)
    assert not checked.problems
    assert checked.policy_set is not None
    return [note.removeprefix(f"{path}:") for note in checked.notes]


def test_a_plain_file_has_no_notes(tmp_path):
    assert check_notes(tmp_path, GOOD) == []


def test_a_check_says_where_a_list_drops_what_the_parent_held(tmp_path):
    text = GOOD.replace(
        "  standard: {sources: [{kind: daily_allowance, units: 30}]}",
        """\
  standard:
    limits: [{kind: rate, limit: 5, per: 1m}, {kind: concurrency, limit: 3}]
    sources: [{kind: daily_allowance, units: 30}, {kind: credits}]
  pro:
    extends: standard
    limits: [{kind: rate, limit: 20, per: 1m}]
    sources: [{kind: daily_allowance, units: 100}]""",
    )
    replace = "replace those of `standard`"
    assert check_notes(tmp_path, text) == [
        f"11:5: plans.pro.limits: note: its `limits` {replace}: `concurrency` no longer holds",
        f"12:5: plans.pro.sources: note: its `sources` {replace}: `credits` no longer pays",
    ]


def test_a_check_notes_what_has_no_effect(tmp_path):
    text = """\
schema: 1
gpus: {h100: {usd_per_hour: 2.50}, spare: {usd_per_hour: 1}}
operations:
  make:
    attributes: {images: {type: integer, min: 1}}
    weight: {each: {images: 1}}
    gpu_cost: {gpu: h100, gpu_seconds: 1}
  look: {limits_only: true, weight: 2}
packs: {ten: {units: 10, price: {eur: 4.00}}}
plans:
  standard:
    paid_use: auto
    limits:
      - {kind: spend, limit: 100, per: 1mo}
      - {kind: usage, units: 9, per: 1d, when_exhausted: next_source}
    sources: [{kind: daily_allowance, units: 30}]
default_plan: standard
"""
    found = check_notes(tmp_path, text)
    assert [note.split(": note: ")[0] for note in found] == [
        "2:36: gpus.spare",
        "6:29: operations.make.weight.each.images",
        "8:37: operations.look.weight",
        "9:1: packs",
        "9:26: packs.ten.price",
        "12:15: plans.standard.paid_use",
        "14:9: plans.standard.limits[0]",
        "15:58: plans.standard.limits[1].when_exhausted",
    ]


def test_a_check_notes_a_request_that_no_source_can_pay_for(tmp_path):
    text = GOOD.replace(
        "  make: {gpu_cost",
        "  make: {attributes: {n: {type: integer, min: 30, max: 40}},"
        " weight: {each: {n: 1}}, gpu_cost",
    )
    (note,) = check_notes(tmp_path, text)
    assert "`make` with n=31 weighs more than any source gives: it is never granted" in note


def test_check_returns_the_problems_of_a_bad_file_as_values(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text("schema: 2", encoding="utf-8")
    checked = PolicySet.check(path)
    assert checked.policy_set is None
    assert checked.problems[0].startswith(f"{path}:1:")
    assert PolicySet.check(tmp_path / "missing.yaml").problems


def test_of_thousands_of_problems_the_first_thousand_are_told():
    packs = "".join(f"  p{number}: {{units: 0, price: 1}}\n" for number in range(1_500))
    problems = refused(f"packs:\n{packs}{GOOD}")
    assert len(problems) == 1_001
    assert problems[0] == "policies.yaml:2:15: packs.p0.units: must be at least 1, not `0`"
    assert problems[-1] == "policies.yaml: and 500 more"
