"""The sabotages as written, and what is wrong with how they are written."""

from __future__ import annotations

import ast
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PROJECT: Final = Path(__file__).resolve().parent.parent.parent
CATALOGUE: Final = Path(__file__).resolve().parent / "sabotages.toml"


class CannotApply(Exception):  # noqa: N818 - it is an outcome of the run, not a fault of it
    """The sabotage does not fit the code any more."""


@dataclass(frozen=True)
class Sabotage:
    """One change of one line, and the tests that must notice it."""

    name: str
    guarantee: str
    file: str
    find: str
    replace: str
    tests: tuple[str, ...]

    def applied_to(self, text: str) -> str:
        """Return the sabotaged text.

        Raises:
            CannotApply: the line to change is not there, or not only there, or changes nothing.
        """
        if not self.find.strip() or "\n" in self.find + self.replace:
            raise CannotApply(f"{self.name}: `find` and `replace` are one line each")
        if self.find == self.replace:
            raise CannotApply(f"{self.name}: `replace` is the same as `find`")
        count = text.count(self.find)
        if count != 1:
            raise CannotApply(f"{self.name}: `{self.find}` occurs {count} times in {self.file}")
        return text.replace(self.find, self.replace)

    def apply(self, project: Path) -> None:
        """Sabotage the file below `project`, which must be a copy.

        Raises:
            CannotApply: the file is not there, or the change does not fit it.
        """
        path = project / self.file
        if not path.is_file():
            raise CannotApply(f"{self.name}: there is no file {self.file}")
        path.write_text(self.applied_to(path.read_text("utf-8")), "utf-8")

    def missing_tests(self, project: Path) -> list[str]:
        """Return the node ids whose file or function is not there."""
        return [node for node in self.tests if is_node(node) and not _exists(project, node)]


def read_catalogue(path: Path = CATALOGUE) -> tuple[Sabotage, ...]:
    """Read all entries, in the order in which they are written."""
    entries = tomllib.loads(path.read_text("utf-8")).get("sabotage", [])
    return tuple(Sabotage(**{**entry, "tests": tuple(entry["tests"])}) for entry in entries)


def is_node(test: str) -> bool:
    """Whether it is a pytest node id, and not an expression for `-k`."""
    return "::" in test or test.endswith(".py")


def _exists(project: Path, node: str) -> bool:
    file, *names = node.split("[", maxsplit=1)[0].split("::")
    if not (project / file).is_file():
        return False
    defined = {
        getattr(each, "name", "")
        for each in ast.walk(ast.parse((project / file).read_text("utf-8")))
    }
    return set(names) <= defined
