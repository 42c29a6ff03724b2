"""Whether a request's parameters are those that Stripe's description allows."""

from __future__ import annotations

from typing import Any

from tests.stripe_server import specification
from tests.stripe_server.errors import (
    Json,
    malformed,
    missing_parameter,
    not_an_integer,
    unknown_parameter,
)
from tests.stripe_server.forms import Tree, ordered, path_of


def check(method: str, template: str, tree: Tree) -> None:
    """Hold a request against the description, where it is there.

    Raises:
        Refusal: a parameter is unknown, missing or of another type.
    """
    if not specification.present():
        return
    schema = specification.request_schema(method, template)
    if schema is None:
        return
    typed = _typed(schema, tree, [])
    for error in specification.request_validator(method, template).iter_errors(typed):
        where = path_of([str(part) for part in error.instance_path] or ["request"])
        raise malformed(f"Invalid {where}: {error.message[:200]}", param=where)


def _typed(schema: Json, value: Any, at: list[str]) -> Any:
    """Return a value with the types that its schema gives it: a form knows text alone."""
    if "anyOf" in schema:
        schema = _chosen(schema["anyOf"], value)
    if isinstance(value, dict):
        return _typed_branch(schema, value, at)
    match schema.get("type"):
        case "integer":
            return _integer(value, at)
        case "number":
            return _number(value, at)
        case "boolean" if value in {"true", "false"}:
            return value == "true"
        case "boolean":
            raise malformed(f"Invalid boolean: {value}", param=path_of(at))
        case "object":
            raise malformed("Invalid object", code="parameter_invalid_empty", param=path_of(at))
        case "array" if value == "":
            return []
        case "array":
            raise malformed("Invalid array", param=path_of(at))
        case _:
            pass
    if "enum" in schema and value not in schema["enum"]:
        names = ", ".join(each for each in schema["enum"] if each)
        raise malformed(f"Invalid {path_of(at)}: must be one of {names}", param=path_of(at))
    return value


def _typed_branch(schema: Json, value: Tree, at: list[str]) -> Any:
    if schema.get("type") == "array":
        return [
            _typed(schema["items"], each, [*at, str(n)]) for n, each in enumerate(ordered(value))
        ]
    if schema.get("type") == "string":
        raise malformed(f"Invalid string: {value}", param=path_of(at))
    known, others = schema.get("properties", {}), schema.get("additionalProperties")
    typed: Json = {}
    for name, each in value.items():
        if name in known:
            typed[name] = _typed(known[name], each, [*at, name])
        elif isinstance(others, dict):
            typed[name] = _typed(others, each, [*at, name])
        else:
            raise unknown_parameter(path_of([*at, name]))
    for name in schema.get("required", []):
        if name not in value:
            raise missing_parameter(path_of([*at, name]))
    return typed


def _chosen(alternatives: list[Json], value: Any) -> Json:
    """The alternative that a value is meant for, judged by its form."""
    if isinstance(value, dict):
        branches = [each for each in alternatives if each.get("type") in {"object", "array"}]
        numbered = all(key.isdigit() for key in value)
        wanted = "array" if numbered and value else "object"
        fitting = [each for each in branches if each.get("type") == wanted]
        return (fitting or branches or alternatives)[0]
    exact = [each for each in alternatives if value in each.get("enum", [])]
    numeric = [each for each in alternatives if each.get("type") in {"integer", "number"}]
    if exact:
        return exact[0]
    if numeric and value.lstrip("-").replace(".", "", 1).isdigit():
        return numeric[0]
    plain = [each for each in alternatives if each.get("type") == "string" and "enum" not in each]
    scalar = [each for each in alternatives if each.get("type") not in {"object", "array"}]
    return (plain or numeric or scalar or alternatives)[0]


def _integer(value: str, at: list[str]) -> int:
    try:
        return int(value)
    except ValueError:
        raise not_an_integer(path_of(at), value) from None


def _number(value: str, at: list[str]) -> float:
    try:
        return float(value)
    except ValueError:
        raise malformed(f"Invalid decimal: {value}", param=path_of(at)) from None
