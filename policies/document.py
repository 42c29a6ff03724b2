"""Policy files: YAML text into a policy set, with everything that is wrong reported at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pydantic import ValidationError

from policies.checks import check_across
from policies.draft import Draft
from policies.errors import PolicyError
from policies.notes import notes
from policies.part import AT_KEY, faults_of
from policies.part import Path as PathTo
from policies.suggest import one_line
from policies.yaml_text import Document, Problem, read_yaml

if TYPE_CHECKING:
    from policies.policy_set import PolicySet

    PolicySetT = TypeVar("PolicySetT", bound=PolicySet)

BYTES_MAX: Final = 1_000_000
"""The largest policy file, in bytes."""

PROBLEMS_MAX: Final = 1_000
"""How many problems of one file are told one by one."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A policy file that was checked: its policy set where it is valid, else all that is wrong.

    `problems` and `notes` are lines `file:line:column: path: what is wrong and what would be right`.
    """

    policy_set: PolicySet | None
    problems: tuple[str, ...]
    notes: tuple[str, ...]


def load(cls: type[PolicySetT], path: str | Path) -> PolicySetT:
    """Read a policy file.

    Raises:
        PolicyError: it cannot be read or used; `problems` lists everything that is wrong.
    """
    return parse(cls, _text(path), str(path))


def parse(cls: type[PolicySetT], text: str, name: str) -> PolicySetT:
    """Read a policy file's text; `name` is what errors call it.

    Raises:
        PolicyError: it cannot be used; `problems` lists everything that is wrong.
    """
    policy_set, _, problems = _examine(cls, text)
    if policy_set is None:
        raise PolicyError(_lines(name, problems))
    return policy_set


def check(cls: type[PolicySet], path: str | Path) -> Checked:
    """Check a policy file: what is wrong with it, or else what a reader may want to know about it."""
    name = str(path)
    try:
        text = _text(path)
    except PolicyError as error:
        return Checked(None, error.problems, ())
    policy_set, document, problems = _examine(cls, text)
    if policy_set is None:
        return Checked(None, tuple(_lines(name, problems)), ())
    found = (document.problem(note.path, f"note: {note.message}") for note in notes(policy_set))
    return Checked(policy_set, (), tuple(_lines(name, found)))


def _text(path: str | Path) -> str:
    name = one_line(str(path), 200)
    try:
        content = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it cannot be read"
        raise PolicyError([f"{name}: {reason[0].lower()}{reason[1:]}"]) from None
    if len(content) > BYTES_MAX:
        message = f"has {len(content)} bytes: a policy file has at most {BYTES_MAX}"
        raise PolicyError([f"{name}: {message}"])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line, column = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
        wrong = f"is not UTF-8 text: it holds the byte 0x{content[error.start]:02x}"
        raise PolicyError([f"{name}:{line}:{column}: {wrong}"]) from None


def _examine(cls: type[PolicySetT], text: str) -> tuple[PolicySetT | None, Document, set[Problem]]:
    """Return the policy set where nothing is wrong, the document, and all that is wrong."""
    document = read_yaml(text)
    problems = set(document.problems)
    if not document.usable:
        return None, document, problems
    # What is no YAML that this reads stands in for all else that would be said of the same place.
    said = {problem.position for problem in problems}
    found = [
        document.problem(wrong.path, wrong.message, at_key=wrong.at_key)
        for wrong in check_across(Draft.of(document.value))
    ]
    policy_set = None
    try:
        policy_set = cls.model_validate(document.value)
    except ValidationError as error:
        found.extend(_of(document, error))
    problems.update(problem for problem in found if problem.position not in said)
    return None if problems else policy_set, document, problems


def _of(document: Document, error: ValidationError) -> Iterator[Problem]:
    for fault in faults_of(error):
        path, at_key = _path(document.value, fault.loc)
        yield document.problem(path, fault.message, at_key=at_key or fault.kind == AT_KEY)


def _path(value: Any, loc: PathTo) -> tuple[PathTo, bool]:
    """Follow what pydantic calls a place as far as the file has it; names of union members are skipped."""
    path: list[str | int] = []
    for step in loc:
        if step == "[key]":
            return tuple(path), True
        if isinstance(value, Mapping) and step in value:  # noqa: SIM114 - two types of index
            value = value[step]
        elif isinstance(value, Sequence) and isinstance(step, int) and step < len(value):
            value = value[step]
        else:
            continue
        path.append(step)
    return tuple(path), False


def _lines(name: str, problems: Iterable[Problem]) -> list[str]:
    ordered = sorted(problems)
    lines = [
        f"{name}:{problem.position.line}:{problem.position.column}: "
        + (f"{problem.path}: " if problem.path else "")
        + problem.message
        for problem in ordered[:PROBLEMS_MAX]
    ]
    more = len(ordered) - PROBLEMS_MAX
    return [*lines, f"{name}: and {more} more"] if more > 0 else lines
