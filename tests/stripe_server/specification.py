"""Stripe's own description of its API, and validators made of it: lazily, once per process.

The description lies beside the project, not in it. Where it is absent, nothing is validated.
"""

from __future__ import annotations

import copy
import functools
import gzip
import json
from pathlib import Path
from typing import Any, Final

import jsonschema_rs

from tests.stripe_server.errors import Json

SPECIFICATION: Final = (
    Path(__file__).resolve().parent.parent.parent.parent
    / "shared"
    / "data"
    / "stripe"
    / "spec3.json.gz"
)
_PREFIX: Final = "#/components/schemas/"
_FORM: Final = "application/x-www-form-urlencoded"


def present() -> bool:
    return SPECIFICATION.is_file()


@functools.cache
def description() -> Json:
    with gzip.open(SPECIFICATION) as file:
        read: Json = json.load(file)
    return read


# --- objects ------------------------------------------------------------------------------------


def complaints(served: Any) -> list[str]:
    """Say where an object, or any object inside it, differs from the description.

    Members that are objects of their own are held against their own schemas: so a schema needs
    no other kind's, and stays small.
    """
    found: list[str] = []
    if isinstance(served, list):
        for each in served:
            found += complaints(each)
    elif isinstance(served, dict):
        kind = ("deleted_" if served.get("deleted") else "") + str(served.get("object"))
        if kind in description()["components"]["schemas"]:
            for error in validator(kind).iter_errors(served):
                where = ".".join(str(part) for part in error.instance_path)
                found.append(f"{kind} {served.get('id')}: {where}: {error.message[:300]}")
        for each in served.values():
            found += complaints(each)
    return found


@functools.cache
def validator(kind: str) -> jsonschema_rs.Validator:
    """The compiled schema of a kind of object, with everything that it refers to."""
    schemas = description()["components"]["schemas"]
    wanted, definitions = [kind], {}
    while wanted:
        name = wanted.pop()
        if name not in definitions:
            pruned = name != kind and _is_resource(schemas[name])
            made = {"type": "object", "required": ["object"]} if pruned else schema(schemas[name])
            definitions[name] = made
            wanted += _references(made)
    root = {"$ref": f"#/definitions/{kind}", "definitions": definitions}
    return jsonschema_rs.Draft7Validator(root)


def _is_resource(given: Json) -> bool:
    """Whether a schema is of a kind of its own, which is validated where it is met."""
    return "object" in given.get("properties", {})


def schema(given: Any) -> Any:
    """Write a schema of the description as JSON Schema.

    `nullable` is a word of OpenAPI alone. A property that the description does not know is no
    property of Stripe's, so it is refused.
    """
    if isinstance(given, list):
        return [schema(each) for each in given]
    if not isinstance(given, dict):
        return given
    if "$ref" in given:
        return {"$ref": "#/definitions/" + given["$ref"].removeprefix(_PREFIX)}
    made = {
        name: {key: schema(each) for key, each in value.items()}
        if name == "properties"
        else schema(value)
        for name, value in given.items()
        if name not in {"nullable", "description", "title", "format"} and not name.startswith("x-")
    }
    if "properties" in made:
        made.setdefault("additionalProperties", False)
    return {"anyOf": [made, {"type": "null"}]} if given.get("nullable") else made


def _references(made: Any) -> list[str]:
    if isinstance(made, list):
        return [name for each in made for name in _references(each)]
    if not isinstance(made, dict):
        return []
    if isinstance(made.get("$ref"), str):
        return [made["$ref"].removeprefix("#/definitions/")]
    return [name for each in made.values() for name in _references(each)]


# --- requests -----------------------------------------------------------------------------------


@functools.cache
def request_schema(method: str, template: str) -> Json | None:
    """The schema of an endpoint's parameters; None where the description has no such endpoint."""
    operation = description()["paths"].get(template, {}).get(method.lower())
    if operation is None:
        return None
    body = operation.get("requestBody", {}).get("content", {}).get(_FORM, {}).get("schema")
    if method == "POST" and body is not None:
        given = copy.deepcopy(body)
    else:
        queried = [each for each in operation.get("parameters", []) if each["in"] == "query"]
        given = {
            "type": "object",
            "properties": {each["name"]: each["schema"] for each in queried},
            "required": [each["name"] for each in queried if each.get("required")],
        }
        if body is not None:
            given["properties"] = {**given["properties"], **body.get("properties", {})}
    made: Json = schema({**given, "additionalProperties": False})
    return made


@functools.cache
def request_validator(method: str, template: str) -> jsonschema_rs.Validator:
    return jsonschema_rs.Draft7Validator(request_schema(method, template) or True)
