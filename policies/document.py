"""Policy files: YAML text into a policy set, with everything that is wrong reported at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pydantic import ValidationError

from policies.errors import PolicyError
from policies.part import AT_KEY, Loc, faults_of
from policies.suggest import one_line
from policies.yaml_text import Document, Problem, read_yaml
from policies.yaml_text import Path as PathTo

if TYPE_CHECKING:
    from policies.policy_set import PolicySet

    PolicySetT = TypeVar("PolicySetT", bound=PolicySet)

BYTES_MAX: Final = 1_000_000
"""The largest policy file, in bytes."""


def load(cls: type[PolicySetT], path: str | Path) -> PolicySetT:
    """Read a policy file.

    Raises:
        PolicyError: it cannot be read, or something in it is wrong; `problems` lists everything that is.
    """
    name = str(path)
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        reason = (error.strerror or "it cannot be read").lower()
        raise PolicyError([f"{one_line(name, 200)}: {reason}"]) from None
    if len(content) > BYTES_MAX:
        raise PolicyError(
            [f"{name}: has {len(content)} bytes: a policy file has at most {BYTES_MAX}"]
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line, column = before.count(b"\n") + 1, error.start - (before.rfind(b"\n") + 1) + 1
        wrong = f"is not UTF-8 text: it holds the byte 0x{content[error.start]:02x}"
        raise PolicyError([f"{name}:{line}:{column}: {wrong}"]) from None
    return parse(cls, text, name)


def parse(cls: type[PolicySetT], text: str, name: str) -> PolicySetT:
    """Read a policy file's text; `name` is what errors call it.

    Raises:
        PolicyError: something in it is wrong; `problems` lists everything that is.
    """
    document = read_yaml(text)
    problems = list(document.problems)
    if document.usable:
        try:
            policy_set = cls.model_validate(document.value)
        except ValidationError as error:
            problems += _of(document, error)
        else:
            if not problems:
                return policy_set
    raise PolicyError(_lines(name, problems))


def _of(document: Document, error: ValidationError) -> Iterator[Problem]:
    for fault in faults_of(error):
        path, at_key = _path(document.value, fault.loc)
        yield document.problem(path, fault.message, at_key=at_key or fault.kind == AT_KEY)


def _path(value: Any, loc: Loc) -> tuple[PathTo, bool]:
    """Follow what pydantic calls a place as far as the file has it; names of union members are skipped."""
    path: list[str | int] = []
    for step in loc:
        if step == "[key]":
            return tuple(path), True
        if isinstance(value, Mapping) and step in value:
            value = value[step]
        elif isinstance(value, Sequence) and isinstance(step, int) and step < len(value):
            value = value[step]
        else:
            continue
        path.append(step)
    return tuple(path), False


def _lines(name: str, problems: Iterable[Problem]) -> list[str]:
    return [
        f"{name}:{problem.position.line}:{problem.position.column}: "
        + (f"{problem.path}: " if problem.path else "")
        + problem.message
        for problem in sorted(set(problems))
    ]
