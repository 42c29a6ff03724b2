"""Records read back from their chained bytes: what they say, as values. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from billing.book import BODY_VERSION
from billing.draft import Line, LotMark
from billing.lots import Lot
from billing.transfer import Phase, Transfer
from policies.instants import from_micros

UNREADABLE: Final = (ArithmeticError, LookupError, TypeError, ValueError)
"""What reading bytes raises that we did not write."""

_INSTANTS: Final = ("created_at", "expires_at")


@dataclass(frozen=True, slots=True)
class Entry:
    """One record, as its bytes say."""

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
    lines: tuple[Line, ...]
    lots: tuple[Lot, ...]
    closes_lot: int | None
    mark: LotMark | None


def parsed(seq: int, body: bytes) -> Entry:
    """Return what a record's bytes say.

    Raises:
        ValueError: they are no record of ours, or of another version.
    """
    content = json.loads(body)
    if content["v"] != BODY_VERSION:
        raise ValueError(f"records of version {content['v']} cannot be read")
    number, plan, operation, member = content.get("grant", (None, "", "", ""))
    return Entry(
        seq=seq,
        kind=content["kind"],
        at=from_micros(content["at"]),
        recorded_at=from_micros(content["recorded_at"]),
        once=content.get("once"),
        grant_no=number,
        plan=plan,
        operation=operation,
        member=member,
        facts=content["facts"],
        transfers=tuple(
            Transfer(debit, credit, asset, amount, Phase(phase), grant_no, lot_no)
            for debit, credit, asset, amount, phase, grant_no, lot_no in content.get(
                "transfers", ()
            )
        ),
        lines=tuple(_line(line) for line in content.get("lines", ())),
        lots=tuple(_lot(lot) for lot in content.get("lots", ())),
        closes_lot=content.get("closes_lot"),
        mark=_mark(content["mark"]) if "mark" in content else None,
    )


def _mark(content: list[int]) -> LotMark:
    lot_no, returned_minor, charged_back_minor, disputed = content
    return LotMark(lot_no, returned_minor, charged_back_minor, bool(disputed))


def _line(content: Mapping[str, Any]) -> Line:
    if "counts_at" in content:
        content = {**content, "counts_at": from_micros(content["counts_at"])}
    return Line(**content)


def _lot(content: Mapping[str, Any]) -> Lot:
    dated = {
        name: None if content[name] is None else from_micros(content[name]) for name in _INSTANTS
    }
    return Lot(**{**content, **dated})
