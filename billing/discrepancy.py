"""What verification finds: one value that is not what the chained records say. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from policies.instants import micros

TEXT_MAX: Final = 160
MISSING: Final = "nothing"


@dataclass(frozen=True, slots=True)
class Discrepancy:
    """One thing that is not as the records say.

    `book` is None where it belongs to no book, and `seq`, the record, where it belongs to none.
    """

    book: int | None
    seq: int | None
    what: str
    expected: str
    found: str

    def __str__(self) -> str:
        place = "all books" if self.book is None else f"book {self.book}"
        record = "" if self.seq is None else f", record {self.seq}"
        return f"{place}{record}: {self.what}: expected {self.expected}, found {self.found}"


def discrepancy(
    book: int | None, seq: int | None, what: str, expected: object, found: object
) -> Discrepancy:
    """Return a discrepancy with its values spelt in one line."""
    return Discrepancy(book, seq, what, spelt(expected), spelt(found))


def spelt(value: object) -> str:
    """Spell a value in one line that is not too long."""
    if value is None:
        return MISSING
    if isinstance(value, (bytes, memoryview)):
        value = bytes(value).hex()
    if isinstance(value, datetime):
        value = value.isoformat()
    text = " ".join(str(value).split()) or "''"
    return text if len(text) <= TEXT_MAX else f"{text[:TEXT_MAX]}..."


def compared(
    book: int | None,
    what: str,
    columns: Sequence[str],
    expected: Mapping[Any, Sequence[Any]],
    found: Mapping[Any, Sequence[Any]],
    place_of: Mapping[Any, int] | None = None,
) -> Iterator[Discrepancy]:
    """Compare rows by key, and report each that is missing, extra or different in a column.

    A row's record is its column `seq`; without one, `place_of` says it by the key.
    """
    at = columns.index("seq") if "seq" in columns else None

    def seq_of(key: Any, row: Sequence[Any]) -> int | None:
        if place_of is not None:
            return place_of.get(key)
        return None if at is None else row[at]

    for key, row in expected.items():
        name = f"{what} {_key(key)}".rstrip()
        if key not in found:
            yield discrepancy(book, seq_of(key, row), f"{name} is missing", "a row", None)
            continue
        if tuple(row) == tuple(found[key]):
            continue
        for column, ours, theirs in zip(columns, row, found[key], strict=True):
            if ours != theirs:
                yield discrepancy(book, seq_of(key, row), f"{name}, {column}", ours, theirs)
    for key, row in found.items():
        if key not in expected:
            name = f"{what} {_key(key)}".rstrip()
            yield discrepancy(book, seq_of(key, row), f"{name} is extra", None, tuple(row))


def _key(key: Any) -> str:
    parts = key if isinstance(key, tuple) else (key,)
    return " ".join(
        str(micros(part)) if isinstance(part, datetime) else str(part) for part in parts
    )
