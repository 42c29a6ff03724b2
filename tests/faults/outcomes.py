"""What a run must have come across to have shown anything, counted; and how it says what it survived."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from enum import Enum

from tests.faults.journal import Entry


class Outcome(Enum):
    """Something that the faults and the load are there to bring about."""

    DENIED_BY_SQL = "denied by sql"
    DENIED_BY_REDIS = "denied by redis"
    SPLIT = "split over sources"
    MULTI_LOT = "held in several lots"
    EXPIRED = "expired in flight"
    REPLAYED = "key replayed"
    LOST_REPLY = "lost reply, then replayed"
    REBUILT = "cold rebuild"
    BREAKER_OPEN = "breaker open"
    UNDONE = "undo"
    LOCAL = "limits only, decided locally"
    UNAVAILABLE = "store unavailable"
    ROLLED_BACK = "host rolled back a grant"
    HOST_LOST = "host's commit lost"
    STALE = "denied on stale news, within the bound"
    LOST_WRITES = "lost writes of redis"


def outcomes_of(entries: Iterable[Entry]) -> Counter[Outcome]:
    """Count what callers have seen."""
    counted: Counter[Outcome] = Counter()
    unsure: set[tuple[str, int]] = set()
    granted: set[tuple[str, str]] = set()
    for entry in entries:
        answer, key = entry.answer or {}, (entry.account, entry.key)
        counted.update(_seen(entry))
        if "allocations" in answer:
            # Nobody else has this key, and nobody was told of a grant: the first reply was lost.
            lost = (entry.lane, entry.number) in unsure and not entry.shared
            counted[Outcome.LOST_REPLY] += lost and answer["replayed"] and key not in granted
            if answer.get("host", "committed") == "committed":
                granted.add(key)
        if entry.answer is None or answer.get("retryable") or answer.get("host") == "lost":
            unsure.add((entry.lane, entry.number))
    return counted


def _seen(entry: Entry) -> Iterable[Outcome]:
    answer = entry.answer or {}
    by = answer.get("by")
    if "denied" in answer:
        yield Outcome.DENIED_BY_REDIS if by == "redis" else Outcome.DENIED_BY_SQL
    if answer.get("open"):
        yield Outcome.BREAKER_OPEN
    if answer.get("error") == "StoreUnavailable":
        yield Outcome.UNAVAILABLE
    if answer.get("ended") == "expired":
        yield Outcome.EXPIRED
    if "allocations" in answer:
        yield from _granted(answer["allocations"])
        if answer.get("host") == "lost":
            yield Outcome.HOST_LOST
        if by == "local":
            yield Outcome.LOCAL
        if answer["replayed"]:
            yield Outcome.REPLAYED
        elif answer.get("host") == "rolled back":
            yield Outcome.ROLLED_BACK


def _granted(allocations: list[list[object]]) -> Iterable[Outcome]:
    if len({source for source, _, _ in allocations}) > 1:
        yield Outcome.SPLIT
    if len({lot for _, _, lot in allocations if lot}) > 1:
        yield Outcome.MULTI_LOT


def table(title: str, operations: int, faults: Counter[str], outcomes: Counter[Outcome]) -> str:
    """Say what was survived, for people."""
    lines = [f"{title}: survived {operations} operations"]
    lines += [f"  fault    {count:6}  {name}" for name, count in sorted(faults.items())]
    lines += [f"  outcome  {outcomes[each]:6}  {each.value}" for each in Outcome]
    return "\n".join(lines)
