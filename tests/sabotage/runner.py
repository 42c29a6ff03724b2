"""Copy the project, break the copy, run the tests in it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from tests.sabotage.catalogue import CannotApply, Sabotage, is_node

TIMEOUT_SECONDS: Final = 300
ALL_SECONDS: Final = 1800
"""How long the tests of all sabotages may take together, on a busy machine too."""
LEFT_OUT: Final = shutil.ignore_patterns(
    *".git .venv venv __pycache__ .*_cache .hypothesis build dist *.egg-info *.db *.db-*".split()
)

_PYTEST_PASSED: Final = 0
_PYTEST_FAILED: Final = 1
_FAILED_TEST: Final = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)


class Result(Enum):
    """What came of a sabotage. Only RED is good."""

    RED = "noticed"
    GREEN = "NOT NOTICED"
    BROKEN = "broken"
    NOT_APPLIED = "not applied"


@dataclass(frozen=True)
class Outcome:
    """One sabotage, tried."""

    sabotage: Sabotage
    result: Result
    detail: str
    seconds: float


@dataclass(frozen=True)
class Run:
    """One run of pytest in a copy."""

    code: int
    output: str

    @property
    def first_failure(self) -> str:
        found = _FAILED_TEST.search(self.output)
        return found[1] if found else ""

    @property
    def last_line(self) -> str:
        lines = [line for line in self.output.splitlines() if line.strip()]
        return lines[-1] if lines else "no output"


def try_out(sabotage: Sabotage, project: Path) -> Outcome:
    """Apply one sabotage to a copy of the project and run the tests that must notice it."""
    started = time.monotonic()
    with a_copy_of(project) as copy:
        try:
            sabotage.apply(copy)
        except CannotApply as error:
            return Outcome(sabotage, Result.NOT_APPLIED, str(error), time.monotonic() - started)
        result, detail = _judge(copy, sabotage.tests)
    return Outcome(sabotage, result, detail, time.monotonic() - started)


def _judge(copy: Path, tests: Sequence[str]) -> tuple[Result, str]:
    noticed_by: dict[str, None] = {}
    for test in tests:
        run = run_tests(copy, [test])
        if run.code == _PYTEST_PASSED:
            return Result.GREEN, f"passes: {test}"
        if run.code != _PYTEST_FAILED:
            return Result.BROKEN, f"pytest ended with {run.code}: {run.last_line}"
        noticed_by[run.first_failure or test] = None
    return (Result.RED, ", ".join(noticed_by)) if noticed_by else (Result.GREEN, "names no test")


def failures_without_sabotage(sabotages: Sequence[Sabotage], project: Path) -> list[str]:
    """Run all tests that the sabotages name on an unchanged copy; return what is not green."""
    tests = list(dict.fromkeys(test for sabotage in sabotages for test in sabotage.tests))
    nodes = [test for test in tests if is_node(test)]
    expressions = [test for test in tests if not is_node(test)]
    groups = [nodes] if nodes else []
    if expressions:
        groups.append([" or ".join(f"({expression})" for expression in expressions)])
    with a_copy_of(project) as copy:
        runs = [run_tests(copy, group, ALL_SECONDS) for group in groups]
    return [
        f"{run.first_failure or 'pytest'}: {run.last_line}"
        for run in runs
        if run.code != _PYTEST_PASSED
    ]


@contextmanager
def a_copy_of(project: Path) -> Iterator[Path]:
    """Copy the project to a temporary folder, and see to it that Python imports that copy.

    What lies beside the project as ../shared lies beside the copy too.
    """
    with tempfile.TemporaryDirectory(prefix="comptroller-sabotage-") as folder:
        copy = Path(folder).resolve() / "project"
        shutil.copytree(project, copy, ignore=LEFT_OUT)
        shared = project.parent / "shared"
        if shared.is_dir():
            (copy.parent / "shared").symlink_to(shared, target_is_directory=True)
        _assert_imported_from(copy)
        yield copy


def run_tests(copy: Path, tests: Sequence[str], seconds: int = TIMEOUT_SECONDS) -> Run:
    """Run node ids, or one `-k` expression, in the copy, up to the first failure."""
    chosen = list(tests) if is_node(tests[0]) else ["-k", tests[0], "tests"]
    options = ["-x", "-q", "-rfE", "--tb=no", "-p", "no:cacheprovider", "-p", "no:randomly"]
    try:
        done = _python(copy, "-m", "pytest", *options, *chosen, seconds=seconds)
    except subprocess.TimeoutExpired:
        return Run(code=-1, output=f"no end after {seconds} seconds")
    return Run(code=done.returncode, output=done.stdout + done.stderr)


def _assert_imported_from(copy: Path) -> None:
    # An editable install points at the working tree: PYTHONPATH has to come first, and is seen to.
    packages = [path.parent.name for path in copy.glob("*/__init__.py")]
    program = (
        "import importlib.util, sys\n"
        "for name in sys.argv[1:]: print(importlib.util.find_spec(name).origin)"
    )
    done = _python(copy, "-c", program, *packages)
    origins = done.stdout.split("\n")[:-1]
    strangers = [origin for origin in origins if not Path(origin).resolve().is_relative_to(copy)]
    if done.returncode != 0 or strangers or len(origins) != len(packages):
        raise AssertionError(f"the copy is not what is imported: {strangers or done.stderr}")


def _python(
    copy: Path, *arguments: str, seconds: int = TIMEOUT_SECONDS
) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(copy),
        # No bytecode: Python tells changes by size and second, which a sabotage may keep.
        "PYTHONDONTWRITEBYTECODE": "1",
        "HYPOTHESIS_PROFILE": "sabotage",
    }
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=copy,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
