"""The JSON Schema (draft 2020-12) of policy files, for editors: every field with a description, plug-ins included.

An editor with a YAML language server completes and checks a file that begins with
`# yaml-language-server: $schema=policies.schema.json`. It finds what is wrong in one place; what must be right
between places only loading the file finds.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Final

from policies.instants import Length
from policies.policy import Limit, Source
from policies.policy_set import PolicySet
from policies.registry import limit_kinds, source_kinds

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_REF: Final = "#/$defs/"
_RENAMED: Final = {
    "ge": "minimum",
    "le": "maximum",
    "gt": "exclusiveMinimum",
    "lt": "exclusiveMaximum",
}


def json_schema() -> dict[str, Any]:
    """Return the schema of a policy file, with the kinds of limits and sources that are installed.

    Raises:
        PolicyError: an installed policy plug-in cannot be used.
    """
    schema = PolicySet.model_json_schema(by_alias=True)
    definitions: dict[str, Any] = schema.pop("$defs")
    for what, kinds in (("Limit", limit_kinds()), ("Source", source_kinds())):
        definitions[what] = _any_kind(kinds, definitions)
    _refine(definitions)
    schema = {"$schema": DIALECT, **schema, "$defs": dict(sorted(definitions.items()))}
    cleaned: dict[str, Any] = _clean(schema)
    cleaned["title"] = "Comptroller policy file"
    return cleaned


def _any_kind(
    kinds: Mapping[str, type[Limit | Source]], definitions: dict[str, Any]
) -> dict[str, Any]:
    """Describe a list's items: one of the installed kinds, told apart by `kind`."""
    refs = []
    for kind, policy in sorted(kinds.items()):
        schema = policy.model_json_schema(by_alias=True)
        definitions.update(schema.pop("$defs", {}))
        words = _first_line(policy)
        schema["description"] = words
        schema["properties"]["kind"] = {"const": kind, "description": words}
        for name, field in schema["properties"].items():
            field.setdefault("description", f"The `{name}` of this {kind}.")
        schema["required"] = sorted({"kind", *schema.get("required", ())})
        definitions[f"kind:{kind}"] = schema
        refs.append({"$ref": f"{_REF}kind:{kind}"})
    return {"anyOf": refs}


def _first_line(policy: type[Limit | Source]) -> str:
    return (inspect.getdoc(policy) or policy.__name__).partition("\n")[0]


def _refine(definitions: dict[str, Any]) -> None:
    """Add what the fields alone do not say: which keys go together."""
    definitions["Operation"]["anyOf"] = [
        {"required": ["gpu_cost"]},
        {"required": ["limits_only"], "properties": {"limits_only": {"const": True}}},
    ]
    definitions["GpuCost"]["oneOf"] = [
        {"required": ["gpu", "gpu_seconds"]},
        {"required": ["usd"]},
    ]
    definitions["Budget"]["properties"]["kind"]["description"] = "A budget; it need not be said."
    price = definitions["PlanPrice"]
    price["patternProperties"] = {"^[a-z]{3}$": price.pop("additionalProperties")}
    price["minProperties"] = 2
    definitions["Table"]["properties"]["table"]["additionalProperties"] = {"$ref": f"{_REF}Entries"}
    definitions["Entries"] = {
        "description": "A value, or a table by the next attribute.",
        "anyOf": [
            {"type": "number", "minimum": 0},
            {
                "type": "object",
                "minProperties": 1,
                "additionalProperties": {"$ref": f"{_REF}Entries"},
            },
        ],
    }


def _clean(node: Any) -> Any:
    """Leave out titles, spell defaults as the file does, and let no key in that no pattern names."""
    if isinstance(node, list):
        return [_clean(item) for item in node]
    if not isinstance(node, dict):
        return node
    clean: dict[str, Any] = {}
    for key, value in node.items():
        if key in ("properties", "$defs", "patternProperties"):
            clean[key] = {name: _clean(item) for name, item in value.items()}
        elif key == "default":
            if value is not None:
                clean[key] = _default(value, node)
        elif not (key == "title" and isinstance(value, str)):
            clean[_RENAMED.get(str(key), str(key))] = _clean(value)
    if "patternProperties" in clean:
        clean["additionalProperties"] = False
    return clean


def _default(value: Any, schema: Mapping[str, Any]) -> Any:
    if isinstance(value, dict) and set(value) == {"months", "micros"}:
        return str(Length(**value))
    return int(value) if schema.get("type") == "number" and isinstance(value, str) else value
