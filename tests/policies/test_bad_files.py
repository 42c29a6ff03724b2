"""Deliberately bad policy files, and all that is said of each of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from policies import PolicyError, PolicySet

BAD = Path(__file__).parent / "bad"
FILES = sorted(BAD.glob("*.yaml"))
LINE = re.compile(r"(?P<file>[a-z_0-9]+\.yaml):(?P<line>\d+):(?P<column>\d+): (?P<message>.+)\Z")
FOREIGN = re.compile(
    r"pydantic|http|Input should|value_error|Traceback|<class|function-|Decimal\(|NoneType",
    re.IGNORECASE,
)


def problems_of(path: Path) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        PolicySet.parse(path.read_text(encoding="utf-8"), name=path.name)
    return list(caught.value.problems)


def test_there_are_at_least_forty_bad_files():
    assert len(FILES) >= 40


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_bad_file_gets_exactly_these_problems(path: Path):
    expected = path.with_suffix(".expected").read_text(encoding="utf-8").splitlines()
    assert problems_of(path) == expected


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_problem_is_one_line_in_plain_words_at_a_place_that_exists(path: Path):
    lines = path.read_text(encoding="utf-8").splitlines() or [""]
    positions = []
    for problem in problems_of(path):
        found = LINE.match(problem)
        assert found, problem
        assert problem.isprintable()
        assert not FOREIGN.search(problem), problem
        line, column = int(found["line"]), int(found["column"])
        positions.append((line, column))
        assert 1 <= line <= len(lines) + 1
        if line <= len(lines):
            assert 1 <= column <= len(lines[line - 1]) + 1
    assert positions == sorted(positions)


def test_every_expectation_belongs_to_a_file():
    assert {path.stem for path in BAD.glob("*.expected")} == {path.stem for path in FILES}


def test_a_misspelt_key_is_named_with_line_column_path_and_what_was_meant():
    text = """\
schema: 1
gpus: {h100: {usd_per_hour: 2.50}}
operations:
  make: {gpu_cost: {gpu: h100, gpu_seconds: 1}}
plans:
  standard:
    sources:
      - kind: daily_allowance
        unit: 30
default_plan: standard
"""
    with pytest.raises(PolicyError) as caught:
        PolicySet.parse(text)
    assert caught.value.problems[-1] == (
        "policies.yaml:9:9: plans.standard.sources[0].unit: unknown key: did you mean `units`?"
    )
