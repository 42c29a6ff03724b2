"""Lines with the record that they belong to: read back from their rows, or taken from a draft."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from billing.draft import Draft, Line


@dataclass(frozen=True, slots=True)
class Posted:
    """One line of a record: whose it is, and what it says."""

    seq: int
    kind: str
    at: datetime
    grant_no: int | None
    plan: str
    operation: str
    member: str
    line: Line


def posted_by(draft: Draft, seq: int) -> Iterator[Posted]:
    """Return the lines that a draft will post as record `seq`."""
    for line in draft.lines:
        yield Posted(
            seq,
            draft.kind,
            draft.at,
            draft.grant_no,
            draft.plan,
            draft.operation,
            draft.member,
            line,
        )
