"""The house rules, held against the whole tree. tests/architecture/rules.py says what they are."""

from __future__ import annotations

import ast
import importlib
import inspect

import pytest

from tests.architecture import rules, source
from tests.architecture.guarantees import GUARANTEES, prefix_of, proves
from tests.sabotage.catalogue import read_catalogue

CLOCK = "quota/clock.py"
# The one effect of pure code, in the one file that is for it: a policy file is read by its path.
ALLOWED = {"policies/document.py": frozenset({"read_text", "read_bytes"})}


def listed(breaches: list[str]) -> str:
    return "\n" + "\n".join(breaches)


@pytest.mark.parametrize("package", [*source.PACKAGES, "docs/examples"])
def test_functions_have_at_most_70_lines_and_files_at_most_400(package):
    breaches = [breach for each in source.sources(package) for breach in rules.too_long(each)]
    assert not breaches, listed(breaches)


def test_rules_have_no_io_clock_randomness_or_float():
    breaches = [
        breach
        for each in source.pure_sources()
        for breach in rules.impure(each, allowed=ALLOWED.get(each.path, frozenset()))
    ]
    assert not breaches, listed(breaches)


def test_the_pure_modules_of_billing_exist():
    assert any(each.path.startswith("billing/") for each in source.pure_sources())


def test_one_module_alone_reads_the_clock():
    others = [each for each in source.package_sources() if each.path != CLOCK]
    breaches = [breach for each in others for breach in rules.clock_reads(each)]
    assert not breaches, listed([f"{breach}: ask {CLOCK}" for breach in breaches])


@pytest.mark.parametrize("package", source.PACKAGES)
def test_what_a_package_exports_is_documented_with_units_and_errors(package):
    errors = rules.error_names(source.package_sources())
    by_module = {each.module: each for each in source.package_sources()}
    exporter = importlib.import_module(package)
    breaches = []
    for name in getattr(exporter, "__all__", ()):
        exported = getattr(exporter, name)
        if inspect.isclass(exported) or inspect.isfunction(exported):
            defined_in = by_module.get(exported.__module__)
            assert defined_in, f"{package}.{name} is defined in {exported.__module__}"
            breaches += rules.undocumented(defined_in, exported.__name__, errors)
    assert not breaches, listed(breaches)


def test_no_test_sleeps():
    breaches = [breach for each in source.sources("tests") for breach in rules.sleeps(each)]
    assert not breaches, listed(breaches)


def test_nothing_is_left_unfinished():
    breaches = [
        breach for path, text in source.text_files() for breach in rules.unfinished(path, text)
    ]
    assert not breaches, listed(breaches)


def test_nothing_names_the_machine_it_was_written_on_or_a_registry():
    breaches = [
        breach for path, text in source.text_files() for breach in rules.of_this_machine(path, text)
    ]
    assert not breaches, listed(breaches)


# --- guarantees ---------------------------------------------------------------------------------


def names_of_tests() -> set[str]:
    return {
        node.name
        for each in source.sources("tests")
        for node in ast.walk(each.tree)
        if isinstance(node, rules.Function) and node.name.startswith("test_")
    }


@pytest.mark.parametrize("guarantee", GUARANTEES)
def test_every_guarantee_has_a_test_of_its_name(guarantee):
    found = [name for name in names_of_tests() if proves(name, guarantee)]
    assert found, f"write a test `{prefix_of(guarantee)}...`"


@pytest.mark.parametrize("guarantee", GUARANTEES)
def test_every_guarantee_has_a_sabotage_that_its_own_test_must_notice(guarantee):
    prefix = prefix_of(guarantee)
    found = [
        entry.name
        for entry in read_catalogue()
        if entry.guarantee == guarantee and any(prefix in tests for tests in entry.tests)
    ]
    assert found, f"write a sabotage with guarantee `{guarantee}` and a test `{prefix}...`"


def test_no_test_claims_a_guarantee_that_is_not_one():
    claims = [name for name in names_of_tests() if name.startswith("test_guarantee_")]
    unknown = [name for name in claims if not any(proves(name, each) for each in GUARANTEES)]
    assert not unknown, f"no such guarantee in tests/architecture/guarantees.py: {unknown}"
