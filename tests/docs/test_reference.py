"""The reference mentions everything that users can name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer.main

import quota
import quota.testing
from billing.tables import PREFIX, Table
from policies.decision import Reason
from policies.json_schema import json_schema
from quota import AsyncComptroller, Comptroller, ComptrollerError
from quota.tables import GRANTS

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"


def page(name: str) -> str:
    return (REFERENCE / name).read_text(encoding="utf-8")


def headings(text: str) -> set[str]:
    return set(re.findall(r"^#+ `?([^`\n]+)`?$", text, re.MULTILINE))


def public(kind: type) -> list[str]:
    return [name for name in dir(kind) if not name.startswith("_")]


@pytest.mark.parametrize("name", public(Comptroller))
def test_each_method_of_comptroller_has_a_section(name):
    assert name in headings(page("python.md"))


@pytest.mark.parametrize("name", sorted(set(public(AsyncComptroller)) - set(public(Comptroller))))
def test_what_only_the_async_face_has_is_mentioned(name):
    assert f"`{name}" in page("python.md")


@pytest.mark.parametrize("name", [*quota.__all__, *quota.testing.__all__])
def test_each_exported_name_is_mentioned(name):
    assert f"`{name}" in page("python.md")


@pytest.mark.parametrize("name", [*ComptrollerError.__subclasses__(), *Reason])
def test_each_error_and_reason_has_a_section(name):
    title = name.__name__ if isinstance(name, type) else str(name)
    assert title in headings(page("errors-and-reasons.md"))


def schema_keys() -> set[str]:
    schema = json_schema()
    definitions = [schema, *schema["$defs"].values()]
    return {key for definition in definitions for key in definition.get("properties", ())}


@pytest.mark.parametrize("key", sorted(schema_keys()))
def test_each_key_of_a_policy_file_is_explained(key):
    assert f"`{key}`" in page("policy-file.md")


def commands(command: Any, path: str) -> list[tuple[str, list[str]]]:
    """Return each command that help shows, with its own options."""
    if hasattr(command, "commands"):
        below = [(name, each) for name, each in command.commands.items() if not each.hidden]
        return [found for name, each in below for found in commands(each, f"{path} {name}".strip())]
    options = [option for parameter in command.params for option in parameter.opts]
    return [(path, [option for option in options if option.startswith("--")])]


def test_each_command_has_a_section_with_its_options():
    from quota.edges.cli import app

    text, missing = page("cli.md"), []
    shared = {"--database", "--policies", "--json"}
    for path, options in commands(typer.main.get_command(app), ""):
        section = re.search(rf"^### `{path}`\n.*?(?=^##|\Z)", text, re.MULTILINE | re.DOTALL)
        said = "" if section is None else section[0]
        missing += [f"{path} {option}" for option in options if option not in said + str(shared)]
        missing += [path] if section is None else []
    assert missing == []


def test_each_table_of_the_database_is_explained():
    tables, text = Table.metadata.tables, page("tables.md")
    assert str(GRANTS.name) in tables  # imported, so that the grants' tables are in the catalogue
    assert [name for name in tables if f"`{name.removeprefix(PREFIX)}`" not in text] == []
