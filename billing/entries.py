"""Reading records back: what the bytes of a record say, as the values it was drafted from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from functools import lru_cache
from operator import attrgetter, itemgetter
from typing import Any, Final

from billing.book import BODY_VERSION
from billing.draft import Line, LotMark
from billing.lots import Lot
from billing.transfer import Phase, Transfer
from policies.instants import from_micros, micros

UNREADABLE: Final = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What reading bytes raises that we did not write."""

LINE_FIELDS: Final = tuple(field.name for field in fields(Line))
LineValues = tuple[Any, ...]
"""The values of a line in the order of `LINE_FIELDS`, its instant in microseconds: as both bytes and rows have them."""

_INSTANTS: Final = ("created_at", "expires_at")
_COUNTS_AT: Final = LINE_FIELDS.index("counts_at")
_NO_LINE: Final[dict[str, Any]] = {field.name: field.default for field in fields(Line)}
_PICK: Final = itemgetter(*LINE_FIELDS)
_OF_LINE: Final = attrgetter(*LINE_FIELDS)
_PHASES: Final = {int(phase): phase for phase in Phase}
_DECODER: Final = json.JSONDecoder()
instant_of: Final = lru_cache(maxsize=4096)(from_micros)
"""As `from_micros`. A record names one instant several times, and its neighbours name it again."""


@dataclass(slots=True)
class Entry:
    """One record, as its bytes say. `at_micros`, `recorded_micros`: its instants in microseconds, as rows have them."""

    seq: int
    kind: str
    at: datetime
    recorded_at: datetime
    once: str | None
    grant_no: int | None
    plan: str
    operation: str
    member: str
    facts: Mapping[str, Any]
    transfers: tuple[Transfer, ...]
    line_values: tuple[LineValues, ...]
    lots: tuple[Lot, ...]
    closes_lot: int | None
    mark: LotMark | None
    at_micros: int
    recorded_micros: int

    @property
    def lines(self) -> tuple[Line, ...]:
        """Its lines. Most checks need no more than their values."""
        return tuple(map(_line, self.line_values))


def parsed(seq: int, body: bytes) -> Entry:
    """Return what a record's bytes say.

    Raises:
        ValueError: they are no record of ours, or of another version.
    """
    text = body.decode()
    content, end = _DECODER.raw_decode(text)
    if end != len(text):
        raise ValueError("something stands behind its end")
    if content["v"] != BODY_VERSION:
        raise ValueError(f"records of version {content['v']} cannot be read")
    number, plan, operation, member = content.get("grant", _NO_GRANT)
    at_micros, recorded_micros = content["at"], content["recorded_at"]
    return Entry(
        seq,
        content["kind"],
        instant_of(at_micros),
        instant_of(recorded_micros),
        content.get("once"),
        number,
        plan,
        operation,
        member,
        content["facts"],
        tuple(
            [
                Transfer(debit, credit, asset, amount, _phase(phase), grant_no, lot_no)
                for debit, credit, asset, amount, phase, grant_no, lot_no in content.get(
                    "transfers", ()
                )
            ]
        ),
        tuple([_values(line) for line in content.get("lines", ())]),
        tuple([_lot(lot) for lot in content.get("lots", ())]),
        content.get("closes_lot"),
        _mark(content["mark"]) if "mark" in content else None,
        at_micros,
        recorded_micros,
    )


def _mark(content: list[int]) -> LotMark:
    lot_no, returned_minor, charged_back_minor, disputed = content
    return LotMark(lot_no, returned_minor, charged_back_minor, bool(disputed))


def values_of(line: Line) -> LineValues:
    """Return the values of a line as the bytes of its record have them."""
    values: LineValues = _OF_LINE(line)
    counts_at = values[_COUNTS_AT]
    if counts_at is None:
        return values
    return (*values[:_COUNTS_AT], micros(counts_at), *values[_COUNTS_AT + 1 :])


_NO_GRANT: Final = (None, "", "", "")


def _phase(number: int) -> Phase:
    return _PHASES[number] if number in _PHASES else Phase(number)


def _values(content: Mapping[str, Any]) -> LineValues:
    whole = {**_NO_LINE, **content}
    if len(whole) != len(_NO_LINE):
        raise ValueError(f"a line has no {', '.join(whole.keys() - _NO_LINE.keys())}")
    if "counts_at" in content:
        instant_of(content["counts_at"])  # so that what is no instant is found here
    values: LineValues = _PICK(whole)
    return values


def _line(values: LineValues) -> Line:
    content = dict(zip(LINE_FIELDS, values, strict=True))
    if content["counts_at"] is not None:
        content["counts_at"] = instant_of(content["counts_at"])
    return Line(**content)


def _lot(content: Mapping[str, Any]) -> Lot:
    dated = {
        name: None if content[name] is None else from_micros(content[name]) for name in _INSTANTS
    }
    return Lot(**{**content, **dated})
