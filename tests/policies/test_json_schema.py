"""The JSON Schema of policy files, against a small validator of the keywords that it uses."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from policies.json_schema import json_schema
from policies.yaml_text import read_yaml

SCHEMA = json_schema()
KEYWORDS = {
    "$schema", "$defs", "$ref", "additionalProperties", "anyOf", "const", "default", "description",
    "enum", "examples", "exclusiveMinimum", "items", "maximum", "minItems", "minProperties",
    "minimum", "oneOf", "pattern", "patternProperties", "properties", "required", "title", "type",
}  # fmt: skip
TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, Decimal),
    "boolean": bool,
    "null": type(None),
}


def is_of(value: Any, name: str) -> bool:
    return isinstance(value, TYPES[name]) and (name == "boolean" or not isinstance(value, bool))


def errors(value: Any, schema: Any, path: str = "") -> list[str]:
    """Return where the value breaks the schema."""
    if schema is True:
        return []
    if schema is False:
        return [path]
    found = []
    if "$ref" in schema:
        found += errors(value, SCHEMA["$defs"][schema["$ref"].removeprefix("#/$defs/")], path)
    if "anyOf" in schema and all(errors(value, each, path) for each in schema["anyOf"]):
        found.append(path)
    if "oneOf" in schema and sum(not errors(value, each, path) for each in schema["oneOf"]) != 1:
        found.append(path)
    names = schema.get("type", [])
    names = [names] if isinstance(names, str) else names
    if (names and not any(is_of(value, name) for name in names)) or (
        "const" in schema and (value != schema["const"] or type(value) is not type(schema["const"]))
    ):
        return [*found, path]
    if "enum" in schema and value not in schema["enum"]:
        found.append(path)
    if isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
        found.append(path)
    if is_of(value, "number"):
        low, above = schema.get("minimum", value), schema.get("exclusiveMinimum")
        if not low <= value <= schema.get("maximum", value) or (
            above is not None and value <= above
        ):
            found.append(path)
    if isinstance(value, list):
        found += [path] * (len(value) < schema.get("minItems", 0))
        for index, item in enumerate(value):
            found += errors(item, schema.get("items", True), f"{path}[{index}]")
    if isinstance(value, dict):
        found += object_errors(value, schema, path)
    return found


def object_errors(value: dict[str, Any], schema: Any, path: str) -> list[str]:
    found = [f"{path}.{name}" for name in schema.get("required", ()) if name not in value]
    found += [path] * (len(value) < schema.get("minProperties", 0))
    for key, item in value.items():
        at = f"{path}.{key}"
        rules = [
            rule for p, rule in schema.get("patternProperties", {}).items() if re.search(p, key)
        ]
        if key in schema.get("properties", {}):
            rules.append(schema["properties"][key])
        for rule in rules or [schema.get("additionalProperties", True)]:
            found += errors(item, rule, at)
    return found


def check(text: str) -> list[str]:
    return errors(read_yaml(text).value, SCHEMA)


@pytest.mark.parametrize("name", ["edge", "gentd26", "sora-launch"])
def test_the_examples_are_valid(shared, name):
    assert check((shared / "examples" / f"{name}.yaml").read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("find", "replace", "where"),
    [
        ("currency:", "curency:", ".curency"),
        ("usd_per_hour:", "usd_per_hours:", ".gpus.h100.usd_per_hours"),
        ("default: standard}", "defualt: standard}", ".attributes.quality.defualt"),
        ("hold_for: {queued", "hold_for: {qeued", "hold_for"),
        ("paid_use:", "paid_uses:", ".plans.standard.paid_uses"),
        ("limit: 5, per", "limits: 5, per", ".plans.standard.limits[0]"),
        ("kind: concurrency, limit: 3", "kind: concurency, limit: 3", ".plans.standard.limits[1]"),
        ("units: 30", "units: thirty", ".plans.standard.sources[0]"),
        ("units: 30,", "unit: 30,", ".plans.standard.sources[0]"),
        ("every: 1mo", "evry: 1mo", ".plans.pro.price"),
        ("valid_for: 12mo", "valid_for: 12 months", ".packs.ten.valid_for"),
        ("failed: {units: return", "failed: {unit: return", ".on_release.failed.unit"),
        ("on_expire: return_units", "on_expire: give_back", ".on_expire"),
        ("usd_per_day: 250000", "usd_per_day: -1", ".budgets.free_gpu.usd_per_day"),
        ("table: {10: 1, 15: 2, 25: 4}", "tabel: {10: 1}", ".weight"),
        ("      gpu: h100\n", "", ".gpu_cost"),
        ("default_plan:", "plan:", ".plan"),
        ("schema: 1", "schema: 2", ".schema"),
    ],
)
def test_what_is_misspelt_or_of_another_type_is_not_valid(shared, find, replace, where):
    text = (shared / "examples" / "sora-launch.yaml").read_text(encoding="utf-8")
    assert text.count(find) == 1
    found = check(text.replace(find, replace))
    assert any(where in path for path in found), found


def test_the_schema_uses_only_what_the_standard_has_and_this_test_checks():
    def walk(node: Any) -> None:
        if isinstance(node, list):
            for item in node:
                walk(item)
        elif isinstance(node, dict):
            assert set(node) <= KEYWORDS, set(node) - KEYWORDS
            for key, value in node.items():
                if key in ("properties", "$defs", "patternProperties"):
                    for item in value.values():
                        walk(item)
                elif key in ("items", "additionalProperties", "anyOf", "oneOf"):
                    walk(value)

    walk(SCHEMA)
    assert SCHEMA["$schema"].endswith("/draft/2020-12/schema")


def test_every_field_has_a_description():
    described = []
    for name, definition in {"": SCHEMA, **SCHEMA["$defs"]}.items():
        if name in ("Limit", "Source"):
            continue
        assert definition.get("description"), name
        for field, schema in definition.get("properties", {}).items():
            assert schema.get("description"), f"{name}.{field}"
            described.append(field)
    assert len(described) > 60


def test_every_reference_leads_somewhere():
    targets = set(re.findall(r"'#/\$defs/([^']+)'", str(SCHEMA)))
    assert targets <= set(SCHEMA["$defs"])
    assert {"kind:rate", "kind:daily_allowance", "kind:credits"} <= targets


def test_defaults_are_spelled_as_a_file_spells_them():
    operation = SCHEMA["$defs"]["Operation"]["properties"]
    assert operation["hold_for"]["default"] == "1h"
    assert SCHEMA["$defs"]["ReleaseRule"]["properties"]["grace"]["default"] == "7d"
    assert SCHEMA["$defs"]["Linear"]["properties"]["base"]["default"] == 0


SHAPES = {"tables_of_wrong_shape", "sections_of_wrong_shape", "misspelt_keys", "unknown_kinds"}


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_bad_files_of_wrong_shape_are_not_valid_either(name):
    text = (Path(__file__).parent / "bad" / f"{name}.yaml").read_text(encoding="utf-8")
    assert check(text)
