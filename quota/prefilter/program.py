"""Rules as numbers: what the script needs to know of a request, its limits and its sources.

Compiled once for each set of rules, weights and circumstances, and valid as long as the windows' boundaries are.
What cannot be told in exact doubles, or is of a kind that the script does not know, is None: SQL decides alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from math import prod
from typing import Final, NamedTuple

from policies.instants import add_months, micros
from policies.kinds.allowance import Allowance, DailyAllowance
from policies.kinds.budget import Budget
from policies.kinds.concurrency import ConcurrencyLimit
from policies.kinds.credits import Credits
from policies.kinds.rate import RateLimit
from policies.kinds.spend import SpendLimit
from policies.kinds.usage import UsageLimit
from policies.policy import Asked, Limit, Source
from policies.request import Circumstances, Request
from policies.rules import Ruleset
from policies.state import UsageRead
from policies.units import UNITS_MAX
from policies.window import Window
from quota.prefilter.messages import encoded
from quota.prefilter.packing import UNITS_MOST
from quota.prefilter.prints import name_print

CREDITS_FRESH: Final = timedelta(seconds=2)
"""A denial that credits could have prevented rests on what SQL said at most so long ago."""
FRESH: Final = timedelta(seconds=30)
"""Any other denial: this bounds how long somebody is denied for news that was lost on its way."""
EXACT: Final = 2**52
SCALE_MOST: Final = 2**26
CLIPPED_FROM: Final = 28
"""From this day of the month on, months may be clipped to their last day: SQL decides."""
WEEK: Final = 7 * 86_400_000_000
HOUR: Final = 3_600_000_000
KINDS: Final = (RateLimit, ConcurrencyLimit, UsageLimit, SpendLimit, Budget)
SOURCES: Final = (DailyAllowance, Allowance, Credits)
Value = int | bytes
"""What a program is made of: whole numbers, and fingerprints of names."""


class Program(NamedTuple):
    """What the script is given of a request. Valid for instants of `since` <= now < `until`, in microseconds."""

    data: bytes
    since: int
    until: int

    def holds(self, at_micros: int) -> bool:
        """Whether it is valid at an instant, in microseconds since 1970."""
        return self.since <= at_micros < self.until


def compiled(
    rules: Ruleset, request: Request, circumstances: Circumstances, keep: int, now: datetime
) -> Program | None:
    """Compile what decides a request at `now`, or return None where SQL decides alone.

    `keep`: how long usage may matter to any policy, in microseconds.

    Raises:
        InvalidRequest: its weight or its GPU cost cannot be found for these attributes.
    """
    weights = rules.weigh(request.attributes).units
    limits, guards = _limits(rules, circumstances), rules.in_force(circumstances.spend_cap).guards
    if limits is None or not _exact(limits, rules.sources, weights):
        return None
    asked = rules.asked(request, circumstances)
    windows = _Windows(now)
    for_limits, for_sources = list[Value](), list[Value]()
    for limit in limits:
        _write_limit(for_limits, limit, asked, windows)
    place = {id(limit): index + 1 for index, limit in enumerate(limits)}
    for source, weight, its_guards in zip(rules.sources, weights, guards, strict=True):
        at = [place[id(limit)] for limit in its_guards if id(limit) in place]
        _write_source(for_sources, source, weight, at, asked, windows)
    hold = rules.operation.hold.queued
    if not windows.exact or hold.is_calendar:
        return None
    credits_matter = (
        any(source.paid for source in rules.sources) and not rules.operation.limits_only
    )
    fresh = CREDITS_FRESH if credits_matter else FRESH
    head = [
        windows.count,
        len(limits),
        len(rules.sources),
        rules.operation.limits_only,
        _paid_units(rules, request, circumstances),
        not request.consent,
        fresh // timedelta(microseconds=1),
        keep,
        min(keep, WEEK) // 1000 + HOUR // 1000,
        hold.micros,
        circumstances.frozen,
        windows.since,
        windows.until,
    ]
    at_sources = len(head) + 2 + len(windows.all) + len(for_limits)  # counted from 1, as Lua does
    values = (*head, at_sources, *windows.all, *for_limits, *for_sources)
    return Program(b"".join(map(encoded, values)), windows.since, windows.until)


def _limits(rules: Ruleset, circumstances: Circumstances) -> tuple[Limit, ...] | None:
    """Return the limits that the script checks; None: there is one of a kind that it does not know.

    Budgets are SQL's alone: without them more requests go on to SQL, and none is denied that should not be.
    """
    found = (*rules.in_force(circumstances.spend_cap).unguarded,)
    guarded: dict[int, Limit] = {}
    for guards in rules.in_force(circumstances.spend_cap).guards:
        guarded |= {id(limit): limit for limit in guards}
    everything = (*found, *guarded.values())
    if any(type(limit) not in KINDS for limit in everything):
        return None
    if any(type(source) not in SOURCES for source in rules.sources):
        return None
    return tuple(limit for limit in everything if not isinstance(limit, Budget))


def _exact(limits: Iterable[Limit], sources: Iterable[Source], weights: Iterable[int]) -> bool:
    """Whether all of the script's arithmetic stays within the whole numbers that a double holds."""
    for limit in limits:
        if isinstance(limit, RateLimit):
            lasts = (limit.burst or limit.limit) * limit.per.micros // limit.limit
            if limit.limit > SCALE_MOST or lasts >= EXACT:
                return False
    weights = tuple(weights)
    if max(weights, default=0) > UNITS_MOST:
        return False
    split = prod(w for s, w in zip(sources, weights, strict=True) if s.split)
    return split * max(weights, default=1) < EXACT


def _paid_units(rules: Ruleset, request: Request, circumstances: Circumstances) -> int:
    """How many units may be used from sources whose use is paid, as the waterfall says."""
    paid_use = circumstances.paid_use or rules.paid_use
    if paid_use == "never":
        return 0
    if not isinstance(request.consent, bool):
        return request.consent
    return UNITS_MAX if request.consent or paid_use == "auto" else 0


class _Windows:
    """The windows that are looked through, each once, with boundaries resolved for `now`."""

    def __init__(self, now: datetime) -> None:
        self._now, self._places = now, dict[UsageRead, int]()
        self.all: list[Value] = []
        """Whether it is of the calendar, its length or start, of a member only, in what, and of which sources."""
        self.exact, self.since, self.until = True, 0, EXACT

    def place(self, read: UsageRead, *, of_member: bool) -> int:
        """Return the number of the window that this reads, from 1 on."""
        if read in self._places:
            return self._places[read]
        kind, value, since, until = self._bounds(read.window)
        self.since, self.until = max(self.since, since), min(self.until, until)
        money = read.measure == "spend"
        sources = [name_print(source) for source in read.sources]
        measured = (1, name_print(read.currency or "")) if money else (0,)
        self.all += (kind, value, of_member, *measured, len(sources), *sources)
        self._places[read] = len(self._places) + 1
        return self._places[read]

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._places)

    def _bounds(self, window: Window) -> tuple[int, int, int, int]:
        now = self._now
        if window.kind == "calendar":
            start, end = map(micros, window.bounds(now))
            return 1, start, start, end
        if not window.length.months:
            return 0, window.length.micros, 0, EXACT
        first = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        last = first.replace(day=CLIPPED_FROM)
        self.exact = self.exact and now < last
        before = add_months(first, -window.length.months)
        return 0, micros(first) - micros(before), micros(first), micros(last)


def _write_limit(written: list[Value], limit: Limit, asked: Asked, windows: _Windows) -> None:
    match limit:
        case RateLimit():
            interval = divmod(limit.per.micros, limit.limit)
            burst = divmod((limit.burst or limit.limit) * limit.per.micros, limit.limit)
            scoped = limit.scope == "member"
            written += (1, name_print(limit.label), scoped, limit.limit, *interval, *burst)
        case ConcurrencyLimit():
            written += (2, limit.scope == "member", limit.limit)
        case UsageLimit():
            at = windows.place(limit.usage_read(asked), of_member=limit.scope == "member")
            written += (3, limit.is_guard, at, limit.units, limit.when_exhausted == "deny")
        case SpendLimit():
            caps = list(_caps(limit, asked, windows))
            written += (4, len(caps))
            for cap in caps:
                written += cap
        case _:
            raise TypeError(f"`{limit.kind}` is not known to the script")


def _caps(limit: SpendLimit, asked: Asked, windows: _Windows) -> Iterator[tuple[int, int, bytes]]:
    amounts = limit.limit if isinstance(limit.limit, dict) else {asked.currency: limit.limit}
    for read in limit.reads(asked):
        if isinstance(read, UsageRead) and read.currency is not None:
            at = windows.place(read, of_member=limit.scope == "member")
            yield at, amounts[read.currency], name_print(read.currency)


def _write_source(
    written: list[Value],
    source: Source,
    weight: int,
    guards: list[int],
    asked: Asked,
    windows: _Windows,
) -> None:
    name = name_print(source.label)
    if isinstance(source, (DailyAllowance, Allowance)):
        at = windows.place(source.usage_read(asked), of_member=source.scope == "member")
        written += (1, at, source.units, weight, source.split, name, len(guards), *guards)
    else:
        written += (2, 0, 0, weight, source.split, name, len(guards), *guards)
