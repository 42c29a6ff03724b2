"""YAML into exact values, with the place in the text where each of them stands.

The grammar is PyYAML's; which plain text is a number, a boolean or nothing is the YAML 1.2 core schema's, with
exact decimals. Leading zeros, tags and expansions that grow without bound are refused, never guessed at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

import yaml

from policies.part import Path, path_text
from policies.suggest import one_line
from policies.table import spelled

VALUES_MAX: Final = 200_000
"""How many values a file may expand to, aliases followed."""

DEPTH_MAX: Final = 60
NUMBER_MAX: Final = 60

_INTEGER: Final = re.compile(r"[-+]?[0-9]+\Z")
_DECIMAL: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_LEADING_ZERO: Final = re.compile(r"[-+]?0[0-9]")
_NOTHING: Final = frozenset(("", "~", "null", "Null", "NULL"))
_BOOLEANS: Final = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in the text. Lines and columns count from 1."""

    line: int = 1
    column: int = 1


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing that is wrong, where, and what would be right."""

    position: Position
    path: str
    message: str


@dataclass(slots=True)
class Document:
    """A file's content: its value, where each part of it stands, and what is wrong with its YAML."""

    value: Any = None
    keys: dict[Path, Position] = field(default_factory=dict)
    values: dict[Path, Position] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    usable: bool = True
    """Whether `value` is worth looking into."""

    def at(self, path: Path, *, at_key: bool = False) -> Position:
        """Return where a value stands: a collection at its key, if it has one, and anything else itself."""
        collection = isinstance(self._value_at(path), (dict, list))
        first, second = (
            (self.keys, self.values) if at_key or collection else (self.values, self.keys)
        )
        return first.get(path) or second.get(path) or Position()

    def problem(self, path: Path, message: str, *, at_key: bool = False) -> Problem:
        """Return what is wrong at a path."""
        return Problem(self.at(path, at_key=at_key), path_text(path), message)

    def _value_at(self, path: Path) -> Any:
        value = self.value
        for step in path:
            value = value[step]
        return value


def read_yaml(text: str) -> Document:
    """Read a text. What is wrong with it is in the document's problems, not raised."""
    document = Document()
    try:
        node = _Loader(text).get_single_node()
    except yaml.YAMLError as error:
        return _unreadable(document, *_what_is_wrong(error, text))
    except RecursionError:
        return _unreadable(document, Position(), "is nested too deeply")
    if node is None:
        return _unreadable(document, Position(), "is empty: see `comptroller policies schema`")
    reader = _Reader(document)
    try:
        document.value = reader.value(node, ())
    except _TooMuch as stop:
        return _unreadable(document, _position(stop.node), str(stop))
    if not isinstance(document.value, dict):
        return _unreadable(document, _position(node), "must be a mapping with keys such as `plans`")
    return document


class _Loader(yaml.SafeLoader):
    """PyYAML up to nodes. The kind of a node stands where its tag would, so that a written tag shows."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> str:  # noqa: ARG002 - PyYAML's signature
        if kind is not yaml.ScalarNode:
            return kind.id  # type: ignore[no-any-return]
        return "plain" if implicit[0] else "quoted"


_Nodes = tuple[yaml.Node, yaml.Node]
_Pair = tuple[str, _Nodes]
"""A key's text, and the nodes of the key and its value."""


class _TooMuch(Exception):  # noqa: N818 - a signal, caught above
    def __init__(self, node: yaml.Node, message: str) -> None:
        self.node = node
        super().__init__(message)


class _Reader:
    """Turns nodes into values, noting where they stand and what is wrong on the way."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.count = 0
        self.inside: list[int] = []

    def value(self, node: yaml.Node, path: Path) -> Any:
        self.count += 1
        if self.count > VALUES_MAX:
            raise _TooMuch(node, f"expands to more than {VALUES_MAX} values: use fewer aliases")
        if id(node) in self.inside:
            raise _TooMuch(node, "contains itself: an alias must not stand inside its own anchor")
        if len(self.inside) > DEPTH_MAX:
            raise _TooMuch(node, f"is nested more than {DEPTH_MAX} levels deep")
        self.document.values[path] = _position(node)
        if node.tag not in ("plain", "quoted", "sequence", "mapping"):
            self._wrong(
                node, path, "has a tag, which policy files do not use: leave it out, or quote text"
            )
        self.inside.append(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, path)
            if isinstance(node, yaml.SequenceNode):
                return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
            return self._scalar(node, path)
        finally:
            self.inside.pop()

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        merged: dict[str, _Nodes] = {}
        own: dict[str, _Nodes] = {}
        for key_node, value_node in node.value:
            if key_node.tag == "plain" and key_node.value == "<<":
                for inherited, nodes in self._merged(value_node, path):
                    merged.setdefault(inherited, nodes)
                continue
            key = self._key(key_node, path)
            if key is None:
                continue
            if key in own:
                first = own[key][0].start_mark.line + 1
                self._wrong(key_node, (*path, key), f"duplicate key: it is in line {first} already")
                continue
            own[key] = (key_node, value_node)
        result = {}
        for name, (key_node, value_node) in {**merged, **own}.items():
            self.document.keys[(*path, name)] = _position(key_node)
            result[name] = self.value(value_node, (*path, name))
        return result

    def _merged(self, node: yaml.Node, path: Path) -> Iterator[_Pair]:
        """Yield the pairs that a merge key brings in: of several mappings, the first wins."""
        mappings = node.value if isinstance(node, yaml.SequenceNode) else [node]
        for mapping in mappings:
            if not isinstance(mapping, yaml.MappingNode) or len(self.inside) > DEPTH_MAX:
                self._wrong(
                    mapping, path, "`<<` merges mappings: give an alias of one, or a list of them"
                )
                continue
            if id(mapping) in self.inside:
                raise _TooMuch(
                    mapping, "contains itself: an alias must not stand inside its own anchor"
                )
            self.inside.append(id(mapping))
            inherited: list[_Pair] = []
            for key_node, value_node in mapping.value:
                self.count += 1
                if self.count > VALUES_MAX:
                    raise _TooMuch(
                        mapping, f"expands to more than {VALUES_MAX} values: use fewer aliases"
                    )
                if key_node.tag == "plain" and key_node.value == "<<":
                    inherited.extend(self._merged(value_node, path))
                    continue
                key = self._key(key_node, path)
                if key is not None:
                    yield key, (key_node, value_node)
            self.inside.pop()
            yield from inherited

    def _key(self, node: yaml.Node, path: Path) -> str | None:
        if not isinstance(node, yaml.ScalarNode):
            self._wrong(node, path, "a key must be a name or a number, not a list or a mapping")
            return None
        key = self._scalar(node, path)
        if key is None:
            self._wrong(node, path, "a key must not be empty: quote it if it is text")
            return None
        return spelled(key)

    def _scalar(self, node: yaml.Node, path: Path) -> str | int | bool | Decimal | None:
        text: str = node.value
        if node.tag != "plain":
            return text
        if text in _NOTHING:
            return None
        if text in _BOOLEANS:
            return _BOOLEANS[text]
        if not _DECIMAL.match(text):
            return text
        if _LEADING_ZERO.match(text):
            right = f"write `{text.lstrip('+-0') or 0}`, or quote it if it is text"
            self._wrong(node, path, f"`{one_line(text)}` begins with a zero: {right}")
        elif len(text) > NUMBER_MAX:
            self._wrong(node, path, f"`{one_line(text)}` has too many digits")
        else:
            return int(text) if _INTEGER.match(text) else Decimal(text)
        return text

    def _wrong(self, node: yaml.Node, path: Path, message: str) -> None:
        self.document.problems.append(Problem(_position(node), path_text(path), message))


def _position(node: yaml.Node) -> Position:
    return Position(node.start_mark.line + 1, node.start_mark.column + 1)


def _unreadable(document: Document, position: Position, message: str) -> Document:
    document.usable = False
    document.problems.append(Problem(position, "", message))
    return document


def _what_is_wrong(error: yaml.YAMLError, text: str) -> tuple[Position, str]:
    if isinstance(error, yaml.reader.ReaderError):
        before, forbidden = text[: error.position], text[error.position]
        position = Position(before.count("\n") + 1, error.position - before.rfind("\n"))
        return position, f"has the character {forbidden!a}, which YAML does not allow"
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return Position(), "is not valid YAML"
    position = Position(mark.line + 1, mark.column + 1)
    problem = str(getattr(error, "problem", None) or getattr(error, "context", None) or "unknown")
    if problem == "but found another document":
        return position, "holds several documents: a policy file is a single one"
    if "'\\t'" in problem:
        return position, "is not valid YAML: a tab cannot indent, use spaces"
    began = getattr(error, "context_mark", None)
    since = (
        f", in what begins in line {began.line + 1}" if began and began.line != mark.line else ""
    )
    return position, f"is not valid YAML: {one_line(problem, 200)}{since}"
