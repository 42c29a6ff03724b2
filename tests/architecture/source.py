"""What the house rules read: our own files, parsed once."""

from __future__ import annotations

import ast
import functools
import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PROJECT: Final = Path(__file__).resolve().parent.parent.parent
PACKAGES: Final = ("policies", "billing", "quota")

_TEXT_SUFFIXES: Final = frozenset(
    ".cfg .csv .html .ini .json .lua .mako .md .py .sh .sql .toml .txt .yaml .yml".split()
)
_TEXT_NAMES: Final = frozenset({"Makefile", "LICENSE", ".gitignore", "run"})
_FOLDERS_LEFT_OUT: Final = frozenset({"build", "dist", "__pycache__", "venv", "node_modules"})


@dataclass(frozen=True)
class Source:
    """One Python file: its path from the project's root, its text and its syntax tree."""

    path: str
    text: str

    @functools.cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.path)

    @property
    def module(self) -> str:
        """The dotted name under which it is imported."""
        parts = Path(self.path).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def sources(folder: str) -> tuple[Source, ...]:
    """All Python files below a folder of the project."""
    paths = sorted((PROJECT / folder).rglob("*.py"))
    return tuple(
        Source(path.relative_to(PROJECT).as_posix(), path.read_text("utf-8")) for path in paths
    )


def package_sources() -> tuple[Source, ...]:
    """All Python files of the three packages."""
    return tuple(source for package in PACKAGES for source in sources(package))


@functools.cache
def text_files() -> tuple[tuple[str, str], ...]:
    """Path and text of every file that people write, generated folders left out."""
    paths = []
    for folder, folders, names in os.walk(PROJECT):
        folders[:] = sorted(name for name in folders if _is_ours(name))
        paths += [Path(folder, name) for name in sorted(names)]
    return tuple(
        (path.relative_to(PROJECT).as_posix(), path.read_text("utf-8"))
        for path in paths
        if path.suffix in _TEXT_SUFFIXES or path.name in _TEXT_NAMES
    )


@functools.cache
def pure_sources() -> tuple[Source, ...]:
    """The files without I/O, clock or randomness: policies/, and what pyproject lists of billing/.

    The list is the `pure-billing` contract of import-linter, so that it is written once.
    """
    settings = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    named = next(c["source_modules"] for c in contracts if c["id"] == "pure-billing")
    pure = [
        source
        for source in sources("billing")
        if any(source.module == name or source.module.startswith(f"{name}.") for name in named)
    ]
    return (*sources("policies"), *pure)


def _is_ours(folder: str) -> bool:
    if folder.startswith("."):
        return folder == ".ci"
    return folder not in _FOLDERS_LEFT_OUT and not folder.endswith(".egg-info")
