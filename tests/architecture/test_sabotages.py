"""Every sabotage still fits the code, and the runner tells a noticed one from a missed one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.architecture.guarantees import GUARANTEES
from tests.architecture.source import PACKAGES, PROJECT
from tests.sabotage.catalogue import CannotApply, Sabotage, read_catalogue
from tests.sabotage.runner import Result, a_copy_of, failures_without_sabotage, try_out

CATALOGUE = read_catalogue()


@pytest.mark.parametrize("sabotage", CATALOGUE, ids=lambda entry: entry.name)
def test_every_sabotage_still_applies(sabotage):
    changed = sabotage.applied_to((PROJECT / sabotage.file).read_text("utf-8"))
    if sabotage.file.endswith(".py"):
        compile(changed, sabotage.file, "exec")


@pytest.mark.parametrize("sabotage", CATALOGUE, ids=lambda entry: entry.name)
def test_every_sabotage_breaks_our_code_and_names_a_guarantee_and_its_tests(sabotage):
    assert sabotage.file.startswith(tuple(f"{package}/" for package in PACKAGES))
    assert sabotage.guarantee in GUARANTEES
    assert sabotage.tests
    assert sabotage.missing_tests(PROJECT) == []


def test_no_two_sabotages_share_a_name():
    twice = [name for name, count in Counter(each.name for each in CATALOGUE).items() if count > 1]
    assert twice == []


# --- the runner, on a project of one function ---------------------------------------------------


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    # The same package name as the one that is installed: the copy has to win over it.
    (root / "quota").mkdir(parents=True)
    (root / "quota" / "__init__.py").write_text(
        "LIMIT = 30\n\ndef fits(n):\n    return n <= LIMIT\n"
    )
    (root / "test_fits.py").write_text(
        "from quota import fits\n\n"
        "def test_at_the_limit():\n    assert fits(30)\n\n"
        "def test_above_the_limit():\n    assert not fits(31)\n"
    )
    # The project stands on its own: neither its plug-in nor its settings are ours.
    (root / "pytest.ini").write_text("[pytest]\naddopts = -p no:comptroller\n")
    return root


def sabotage(find="n <= LIMIT", replace="n < LIMIT", tests=("test_fits.py::test_at_the_limit",)):
    return Sabotage("one", "exact", "quota/__init__.py", find, replace, tests)


def test_a_sabotage_that_a_test_sees_is_noticed_and_the_project_stays_whole(project):
    before = (project / "quota" / "__init__.py").read_text()
    outcome = try_out(sabotage(), project)
    assert (outcome.result, outcome.detail) == (Result.RED, "test_fits.py::test_at_the_limit")
    assert (project / "quota" / "__init__.py").read_text() == before


def test_a_sabotage_that_one_of_its_tests_does_not_see_is_not_noticed(project):
    both = ("test_fits.py::test_at_the_limit", "test_fits.py::test_above_the_limit")
    outcome = try_out(sabotage(tests=both), project)
    assert outcome.result is Result.GREEN
    assert "test_above_the_limit" in outcome.detail


def test_a_sabotage_that_cannot_be_imported_proves_nothing(project):
    outcome = try_out(sabotage(replace="n <="), project)
    assert outcome.result is Result.BROKEN


def test_a_sabotage_whose_tests_are_not_there_proves_nothing(project):
    outcome = try_out(sabotage(tests=("test_fits.py::test_gone",)), project)
    assert outcome.result is Result.BROKEN


def test_a_sabotage_that_does_not_fit_is_not_applied(project):
    assert try_out(sabotage(find="n >= LIMIT"), project).result is Result.NOT_APPLIED


@pytest.mark.parametrize(
    ("find", "replace"),
    [("x", "y"), ("LIMIT", "limit"), ("n <= LIMIT", "n <= LIMIT"), ("a\nb", "c"), (" ", "c")],
    ids=["absent", "twice", "unchanged", "two lines", "empty"],
)
def test_a_sabotage_changes_one_line_in_one_place(find, replace):
    with pytest.raises(CannotApply):
        sabotage(find, replace).applied_to("LIMIT = 30\nreturn n <= LIMIT\n")


def test_tests_that_are_red_without_sabotage_are_told(project):
    assert failures_without_sabotage([sabotage()], project) == []
    (project / "quota" / "__init__.py").write_text("def fits(n):\n    return False\n")
    (red,) = failures_without_sabotage([sabotage()], project)
    assert "test_at_the_limit" in red


def test_a_copy_that_is_not_what_python_imports_is_refused(project):
    (project / "sys").mkdir()
    (project / "sys" / "__init__.py").touch()
    with pytest.raises(AssertionError, match="not what is imported"), a_copy_of(project):
        pass
