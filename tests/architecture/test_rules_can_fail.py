"""Each house rule finds what it forbids, in a snippet that breaks it, and lets good code pass."""

from __future__ import annotations

import textwrap

import pytest

from tests.architecture import rules
from tests.architecture.guarantees import GUARANTEES, prefix_of, proves
from tests.architecture.source import Source, pure_sources, sources, text_files

ERRORS = frozenset({"ComptrollerError", "InvalidRequest"})


def snippet(text: str, path: str = "policies/snippet.py") -> Source:
    return Source(path, textwrap.dedent(text))


def function_of(lines: int) -> str:
    return "def f():\n" + "    a = 1\n" * (lines - 1)


# --- length -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("lines", "breaches"), [(70, 0), (71, 1)])
def test_a_function_has_at_most_70_lines(lines, breaches):
    assert len(rules.too_long(snippet(function_of(lines)))) == breaches


def test_an_async_method_counts_too():
    method = "class C:\n" + textwrap.indent("async " + function_of(71), "    ")
    assert len(rules.too_long(snippet(method))) == 1


@pytest.mark.parametrize(("lines", "breaches"), [(400, 0), (401, 1)])
def test_a_file_has_at_most_400_lines(lines, breaches):
    assert len(rules.too_long(snippet("a = 1\n" * lines))) == breaches


# --- purity -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "import sqlite3",
        "import sqlalchemy",
        "from sqlmodel import Field",
        "import os.path",
        "import random",
        "import secrets",
        "import time",
        "from time import monotonic",
        "from importlib import resources",
        "from os import urandom",
        "from uuid import uuid4",
        "import uuid\nuuid.uuid4()",
        "open('f')",
        "path.read_text()",
        "print(1)",
        "price = 4.0",
        "price = 1e6",
        "price = 4j",
        "price = float(text)",
        "from datetime import datetime\nnow = datetime.now(UTC)",
        "import datetime\nnow = datetime.datetime.utcnow()",
        "from datetime import date\nday = date.today()",
    ],
)
def test_a_rule_has_no_effect_no_clock_and_no_float(text):
    assert rules.impure(snippet(text))


@pytest.mark.parametrize(
    "text",
    [
        "from datetime import UTC, datetime, time",
        "from decimal import Decimal\nprice = Decimal('4.00')",
        "import yaml",
        "from pydantic import BaseModel",
        "from policies.units import whole",
        "from importlib.metadata import entry_points",
        "from pathlib import Path",
        "from uuid import uuid5",
        "half = request.now.date()",
        "price: int | float",
    ],
)
def test_a_rule_may_compute(text):
    assert rules.impure(snippet(text)) == []


def test_a_file_may_have_the_effect_that_it_is_for_and_no_other():
    source = snippet("path.read_text()\npath.write_text('')")
    (breach,) = rules.impure(source, allowed=frozenset({"read_text"}))
    assert "write_text" in breach


@pytest.mark.parametrize(
    "text",
    [
        "datetime.now(UTC)",
        "datetime.datetime.now()",
        "clock = datetime.now",
        "datetime.utcnow()",
        "date.today()",
        "time.time()",
        "from time import time",
        "select(func.now())",
    ],
)
def test_a_read_of_the_clock_is_found(text):
    assert rules.clock_reads(snippet(text, "quota/engine.py"))


@pytest.mark.parametrize(
    "text", ["self.clock.now()", "time.monotonic()", "from datetime import time"]
)
def test_asking_the_clock_module_is_no_read_of_the_clock(text):
    assert rules.clock_reads(snippet(text, "quota/engine.py")) == []


# --- docstrings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "def admit(): pass",
        "class admit: pass",
        'class admit:\n    """Said."""\n    def method(self): pass',
        'class admit:\n    """Said."""\n    @property\n    def value(self): pass',
        'class admit:\n    """Said."""\n    async def method(self): pass',
    ],
)
def test_what_is_exported_has_a_docstring(text):
    (breach,) = rules.undocumented(snippet(text), "admit", ERRORS)
    assert "no docstring" in breach


@pytest.mark.parametrize(
    ("parameter", "unit"),
    [
        ("price_minor", "minor units"),
        ("units", "units"),
        ("cost_micro_usd", "micro-dollars"),
        ("gpu_seconds", "seconds"),
    ],
)
def test_a_docstring_names_the_units_of_quantities(parameter, unit):
    bare = f'def admit(*, {parameter}):\n    """Do it."""'
    assert rules.undocumented(snippet(bare), "admit", ERRORS)
    said = f'def admit(*, {parameter}):\n    """Do it, in {unit}."""'
    assert rules.undocumented(snippet(said), "admit", ERRORS) == []


def test_a_docstring_names_the_errors_that_are_raised():
    text = 'def admit():\n    """Do it.{}"""\n    raise InvalidRequest("no")'
    (breach,) = rules.undocumented(snippet(text.format("")), "admit", ERRORS)
    assert "Raises:" in breach
    said = text.format("\n\n    Raises:\n        InvalidRequest: it is wrong.\n    ")
    assert rules.undocumented(snippet(said), "admit", ERRORS) == []


@pytest.mark.parametrize(
    "text",
    [
        "admit = int | str",
        "def other(): pass",
        'class admit:\n    """Said."""\n    def _private(self): pass',
        'def admit():\n    """Said."""\n    raise ValueError',
        'def admit():\n    """Said."""\n    def inner():\n        raise InvalidRequest',
    ],
)
def test_private_parts_and_others_errors_need_no_words(text):
    assert rules.undocumented(snippet(text), "admit", ERRORS) == []


def test_errors_of_ours_are_found_wherever_they_are_defined():
    first = snippet(
        "class ComptrollerError(Exception): pass\nclass Busy(errors.ComptrollerError): pass"
    )
    second = snippet("class VeryBusy(Busy): pass\nclass Other(Exception): pass")
    assert rules.error_names([first, second]) == {"ComptrollerError", "Busy", "VeryBusy"}


# --- sleep, unfinished work, this machine -------------------------------------------------------
# What is forbidden is written with a dot in it here, and read without.


@pytest.mark.parametrize("text", ["clock.sleep(1)", "sleep(1)", "await asyncio.sleep(0)"])
def test_a_sleep_is_found(text):
    assert rules.sleeps(snippet(f"async def test():\n    {text}"))


@pytest.mark.parametrize("word", ["TO.DO", "FIX.ME", "X.XX", "raise Not.ImplementedError"])
def test_unfinished_work_is_found(word):
    assert rules.unfinished("docs/page.md", f"first line\n{word.replace('.', '')}") != []
    assert rules.unfinished("docs/page.md", "all is done") == []


@pytest.mark.parametrize("text", ["/w.ork/main", "/r.oot/x", "/f.arm/x", "pip --index-u.rl x"])
def test_a_path_of_this_machine_or_a_registry_is_found(text):
    assert rules.of_this_machine("Makefile", text.replace(".", "")) != []
    assert rules.of_this_machine("Makefile", "make work, pip install --no-deps -e .") == []


# --- what the rules are held against ------------------------------------------------------------


def test_the_rules_read_the_code_the_tests_and_the_texts():
    assert {each.module for each in pure_sources()} >= {"policies", "policies.errors"}
    assert "tests.architecture.rules" in {each.module for each in sources("tests")}
    paths = {path for path, _ in text_files()}
    assert {"README.md", "Makefile", ".ci/run", "pyproject.toml", "quota/__init__.py"} <= paths
    assert not any(path.startswith((".venv", ".git/", "build/")) for path in paths)


def test_a_guarantee_is_proved_by_tests_that_bear_its_whole_name():
    assert prefix_of("ends-once") == "test_guarantee_ends_once"
    assert proves("test_guarantee_ends_once_for_all_who_race", "ends-once")
    assert not proves("test_guarantee_ends_oncemore", "ends-once")
    assert not any(
        proves("test_guarantee_ends_once", name) for name in GUARANTEES if name == "once"
    )
