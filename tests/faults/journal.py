"""What a lane asked and what it was told, in a file that outlives it: an acknowledgement is a line that was written.

A line is written before each call and after it, by one `write` each. A worker that is killed leaves a call without
an answer: nobody knows what came of it, and the lane that goes on asks again under the same key.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from quota import Denial, Grant
from quota.grants import Ending

Answer = dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """One call of one lane. `answer` None: the lane was killed before it could say."""

    lane: str
    number: int
    attempt: int
    kind: str
    account: str
    key: str
    shared: bool
    answer: Answer | None


class Journal:
    """One lane's file. One writer at a time; who opens it again goes on after what is there."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, **line: Any) -> None:
        os.write(self._file, json.dumps(line).encode() + b"\n")

    def close(self) -> None:
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


def entries(path: Path) -> Iterator[Entry]:
    """Yield the calls of one lane, in order."""
    called: dict[str, Any] | None = None
    for text in path.read_text().splitlines() if path.exists() else ():
        line = json.loads(text)
        if "answer" in line:
            assert called is not None
            yield Entry(**called, answer=line["answer"])
            called = None
        else:
            if called is not None:
                yield Entry(**called, answer=None)
            called = line
    if called is not None:
        yield Entry(**called, answer=None)


def described(answer: object) -> Answer:
    """Return what a caller was told, as far as it is to be checked."""
    match answer:
        case Grant():
            return {
                "grant": answer.id,
                "allocations": [
                    [part.source, part.units, part.lot_id] for part in answer.allocations
                ],
                "replayed": answer.replayed,
                "status": answer.status,
                "by": answer.decided_by,
            }
        case Denial():
            return {"denied": answer.reason, "by": answer.decided_by}
        case Ending():
            return {
                "ended": answer.status,
                "grant": answer.grant_id,
                "mine": answer.by_this_call,
                "late": answer.late,
                "units": answer.units_charged,
            }
        case _:
            lot = getattr(answer, "lot_id", None) or getattr(answer, "id", None)
            return {"lot": lot, "units": getattr(answer, "units", None)} if lot else {"read": True}
