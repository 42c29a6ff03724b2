"""What windows held, re-derived from records in one pass: as time goes on, units only leave them.

Each question (sources, window, member, measure) keeps a running total and a place in the dated
units: what enters is added once, what leaves is taken off once, what comes back is taken off where
it was taken. So a book is verified in time that grows with its length, whatever its windows.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from heapq import merge
from itertools import islice, takewhile
from typing import Final

from billing.draft import Line
from policies.instants import MICROSECOND
from policies.state import UsageRead
from policies.window import LONG_AGO

PRUNED_FROM: Final = 4096
FOREVER: Final = datetime.max.replace(tzinfo=UTC)

TakenKey = tuple[str, str, datetime, str | None]
"""What units are counted by: (source, member, the instant they are dated to, currency)."""


@dataclass(slots=True)
class _Taken:
    """Units of one source and member, dated to one instant. Money in minor units."""

    at: datetime
    currency: str | None
    units: int = 0
    spend_minor: int = 0


class _Total:
    """The running answer to one question."""

    __slots__ = ("_at_most", "_places", "_read", "_steady_until", "_taken", "_total")

    def __init__(self, read: UsageRead, taken: list[_Taken], since: datetime) -> None:
        self._read, self._taken = read, taken
        self._places = 0
        self._steady_until = LONG_AGO
        self._at_most = since if since == LONG_AGO else since - MICROSECOND
        self._total = sum(
            self._amount(each.currency, each.units, each.spend_minor) for each in taken
        )

    def add(self, taken: _Taken, units: int, spend_minor: int, *, is_new: bool) -> None:
        if is_new:
            # Units are dated to their grant, so that they come in order, unless tampered with.
            place = len(self._taken)
            if self._taken and taken.at < self._taken[-1].at:
                place = bisect_left(self._taken, taken.at, key=_when)
            self._taken.insert(place, taken)
            if place < self._places:
                self._places += 1
            elif place == self._places:
                self._steady_until = LONG_AGO  # it may be the first to leave
        if taken.at > self._at_most:
            self._total += self._amount(taken.currency, units, spend_minor)

    def at(self, now: datetime) -> int:
        if now < self._steady_until:
            return self._total
        window, taken = self._read.window, self._taken
        since, sure = window.since(now), window.sure(now)
        while self._places < len(taken) and taken[self._places].at < since:
            gone = taken[self._places]
            self._total -= self._amount(gone.currency, gone.units, gone.spend_minor)
            self._at_most = gone.at
            self._places += 1
        if self._places >= PRUNED_FROM:
            del taken[: self._places]
            self._places = 0
        if since == sure:
            self._steady_until = self._next_to_leave(now)
            return self._total
        # Where months are clipped, units near the edge may leave in another order than they came.
        doubtful = takewhile(lambda each: each.at < sure, islice(taken, self._places, None))
        gone_early = (each for each in doubtful if not window.counts(each.at, now))
        return self._total - sum(
            self._amount(each.currency, each.units, each.spend_minor) for each in gone_early
        )

    def _next_to_leave(self, now: datetime) -> datetime:
        """Return until when the answer stays, if nothing is added."""
        window = self._read.window
        if window.kind == "calendar":
            return window.bounds(now)[1]
        if self._places == len(self._taken):
            return FOREVER
        return window.length.after(self._taken[self._places].at)

    def _amount(self, currency: str | None, units: int, spend_minor: int) -> int:
        if self._read.measure == "units":
            return units
        return spend_minor if currency == self._read.currency else 0


class Usage:
    """What a book's windows hold, as its records are gone through in order."""

    def __init__(self) -> None:
        self._taken: dict[TakenKey, _Taken] = {}
        self._logs: dict[tuple[str, str], list[_Taken]] = {}
        self._totals: dict[UsageRead, _Total] = {}
        self._asked: defaultdict[tuple[str | None, str | None], list[_Total]] = defaultdict(list)

    def add(self, line: Line, member: str) -> None:
        """Count what a line takes or gives back."""
        if line.units and line.counts_at is not None:
            use = (line.source, member, line.counts_at, line.currency)
            self.take(use, line.units, line.spend_minor)

    def take(self, use: TakenKey, units: int, spend_minor: int) -> None:
        """Count units, and money in minor units, that were taken or given back."""
        source, member, at, currency = use
        taken = self._taken.get(use)
        is_new = taken is None
        if taken is None:
            taken = self._taken[use] = _Taken(at, currency)
            self._logs.setdefault((source, member), []).append(taken)
        taken.units += units
        taken.spend_minor += spend_minor
        for asked in ((source, member), (source, None), (None, member), (None, None)):
            for total in self._asked.get(asked, ()):
                total.add(taken, units, spend_minor, is_new=is_new)

    def read(self, read: UsageRead, now: datetime) -> int:
        """Return the units, or the money in minor units, that a window holds now."""
        total = self._totals.get(read)
        if total is None:
            since = read.window.since(now)
            total = self._totals[read] = _Total(read, self._behind(read, since), since)
            for source in dict.fromkeys(read.sources or (None,)):
                self._asked[source, read.member].append(total)
        return total.at(now)

    def _behind(self, read: UsageRead, since: datetime) -> list[_Taken]:
        logs = (
            log[bisect_left(log, since, key=_when) :]
            for (source, member), log in self._logs.items()
            if (not read.sources or source in read.sources)
            and (read.member is None or read.member == member)
        )
        return list(merge(*logs, key=_when))


def _when(taken: _Taken) -> datetime:
    return taken.at
