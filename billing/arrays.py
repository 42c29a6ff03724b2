"""Values of many rows as the text of PostgreSQL's arrays, a column each.

The driver's own lists are built element by element through its adapters, which costs several times what a statement
with sixty-four rows costs the server.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from billing.sql import Compiled


def arrays(compiled: Compiled, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the values of a statement's parameters in these rows, in their order: an array for each."""
    columns = []
    for (name, _), kind in zip(compiled.places, compiled.types, strict=True):
        text_of = _TEXTS.get((kind or "").partition("(")[0].partition(" ")[0], _quoted)
        usual = compiled.constants.get(name)
        values = [row[name] for row in rows] if usual is None else [usual] * len(rows)
        elements = ["NULL" if value is None else text_of(value) for value in values]
        columns.append("{" + ",".join(elements) + "}")
    return columns


def _quoted(value: str) -> str:
    if "\\" in value or '"' in value:
        value = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{value}"'


def _octets(value: bytes) -> str:
    return f'"\\\\x{value.hex()}"'


def _instant(value: datetime) -> str:
    return f'"{value.isoformat()}"'


_TEXTS: Final[Mapping[str, Callable[[Any], str]]] = {
    "BIGINT": int.__repr__,
    "INTEGER": int.__repr__,
    "SMALLINT": int.__repr__,
    "BYTEA": _octets,
    "TIMESTAMP": _instant,
}
"""How a value of a type is written, by the first word of what the database calls it."""
