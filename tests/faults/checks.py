"""What must be true of the books and of what callers were told, whatever went wrong. Each check returns what is not.

Counted from the bare rows, in the order in which they were recorded, by the limits that plan.py states: none of the
engine's own code decides here.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Final

from tests.faults.books import Books, Granted, Line
from tests.faults.clock import MICROSECOND
from tests.faults.journal import Answer, Entry
from tests.faults.plan import CAP_MICRO_USD, LIMITS, Limits, Window

DAY: Final = 86_400_000_000


def all_wrong(books: Books, told: Iterable[Entry]) -> list[str]:
    """Return all that is wrong."""
    entries = list(told)
    return [
        *no_window_was_passed(books),
        *every_unit_is_accounted_for(books),
        *every_lot_adds_up(books),
        *every_budget_adds_up(books),
        *what_was_acknowledged_is_there(books, entries),
        *nothing_is_there_unasked(books, entries),
        *nobody_saw_anything_but_our_errors(entries),
    ]


# --- limits -------------------------------------------------------------------------------------


def no_window_was_passed(books: Books) -> Iterator[str]:
    """At each grant: the units in each window that ends there, the grants then open, and the rate."""
    of_book: dict[int, list[Granted]] = defaultdict(list)
    for grant in books.grants:
        if grant.operation == "clip":
            of_book[grant.book].append(grant)
    lines: dict[int, list[Line]] = defaultdict(list)
    for line in books.lines:
        lines[line.book].append(line)
    for book, grants in of_book.items():
        limits = LIMITS[grants[0].account]
        for window in limits.windows:
            yield from _passed(window, grants, lines[book])
        yield from _too_many_at_once(limits, grants)
        yield from _too_fast(limits, grants)


def _passed(window: Window, grants: list[Granted], lines: list[Line]) -> Iterator[str]:
    """Units recorded up to a grant, less those given back up to then, dated within the window."""
    left, standing = iter([*lines, None]), Counter[int]()
    line = next(left)
    length = window.length // MICROSECOND
    for grant in grants:
        while line is not None and line.seq <= grant.seq:
            if line.counts_at is not None and line.source == (window.source or line.source):
                standing[line.counts_at] += line.units
            line = next(left)
        used = sum(units for at, units in standing.items() if grant.at - at < length)
        if used > window.units:
            yield f"{grant.account}: {used} of {window.units} in {window.length} at {grant.id}"


def _too_many_at_once(limits: Limits, grants: list[Granted]) -> Iterator[str]:
    for place, grant in enumerate(grants):
        open_then = sum(
            1 for each in grants[: place + 1] if each.ended is None or each.ended.seq > grant.seq
        )
        if limits.concurrency is not None and open_then > limits.concurrency:
            yield f"{grant.account}: {open_then} open grants at {grant.id}"


def _too_fast(limits: Limits, grants: list[Granted]) -> Iterator[str]:
    if limits.rate is None:
        return
    (interval, burst), arrival = limits.rate, Fraction(0)
    for grant in grants:
        arrival = max(arrival, Fraction(grant.at)) + interval
        if arrival - grant.at > burst * interval:
            yield f"{grant.account}: faster than its rate at {grant.id}"


# --- units --------------------------------------------------------------------------------------


def every_unit_is_accounted_for(books: Books) -> Iterator[str]:
    """Each grant's lines add up: to what it was granted while it is open, then to what stays charged."""
    taken: dict[tuple[int, int], Counter[tuple[str, int | None]]] = defaultdict(Counter)
    net: Counter[tuple[int, int]] = Counter()
    for line in books.lines:
        if line.grant is not None:
            net[line.book, line.grant] += line.units
            if line.kind == "grant" and line.units:
                taken[line.book, line.grant][line.source, line.lot] += line.units
    for grant in books.grants:
        ids = (grant.book, grant.number)
        granted: Counter[tuple[str, int | None]] = Counter()
        for source, units, lot in grant.parts:
            granted[source, lot] += units
        if taken[ids] != granted:
            yield f"{grant.id} was granted {granted} and took {taken[ids]}"
        stays = granted.total() if grant.ended is None else grant.ended.units + grant.late_units
        if net[ids] != stays:
            yield f"{grant.id}: its lines add up to {net[ids]}, and {stays} are charged"
        if (grant.ended is None) != (ids in books.held):
            yield f"{grant.id}: it ended {grant.ended}, and is held: {ids in books.held}"


def every_lot_adds_up(books: Books) -> Iterator[str]:
    """For each lot: in = used + gone + held + available, where all but `gone` is counted from other rows."""
    held: Counter[tuple[int, int]] = Counter()
    used: Counter[tuple[int, int]] = Counter()
    available: Counter[tuple[int, int]] = Counter()
    is_open = {(grant.book, grant.number): grant.ended is None for grant in books.grants}
    for line in books.lines:
        if line.lot is None:
            continue
        available[line.book, line.lot] += line.lot_units
        if line.grant is not None:
            of = held if is_open[line.book, line.grant] else used
            of[line.book, line.lot] += line.units
    for each in books.balances:
        lot = (each.book, each.lot)
        if (used[lot], held[lot]) != (each.used, each.held):
            yield f"lot {lot}: used {used[lot]}, held {held[lot]}, but its balance says {each}"
        if each.came != used[lot] + each.gone + held[lot] + available[lot] or available[lot] < 0:
            yield f"lot {lot}: {available[lot]} available do not add up with {each}"


def every_budget_adds_up(books: Books) -> Iterator[str]:
    """On each day was charged, outside of blocks and in those that are left, what grants of that day cost; no more."""
    for start, charged in books.budgets.items():
        estimated = sum(grant.cost for grant in books.grants if start <= grant.at < start + DAY)
        if charged != estimated:
            yield f"budget: {charged} was charged on the day from {start}, and grants cost {estimated}"
        if charged > CAP_MICRO_USD:
            yield f"budget: {charged} of {CAP_MICRO_USD} was charged on the day from {start}"


# --- what callers were told ---------------------------------------------------------------------


def what_was_acknowledged_is_there(books: Books, entries: Iterable[Entry]) -> Iterator[str]:
    """Every grant that somebody was told of, the same for all who asked; every end, brought about by one of them."""
    by_id = {grant.id: grant for grant in books.grants}
    by_key = books.by_key
    ended_by: Counter[str] = Counter()
    for entry in entries:
        answer = entry.answer or {}
        if "allocations" in answer and _is_booked(answer) and _stays(answer):
            grant = by_key.get((entry.account, entry.key))
            if grant is None or grant.id != answer["grant"]:
                yield f"{entry}: not in the books, which have {grant}"
            elif _parts(answer) != [[s, units, lot] for s, units, lot in grant.parts]:
                yield f"{entry}: other allocations than {grant.parts}"
        elif "ended" in answer and _is_booked(answer):
            found = by_id.get(answer["grant"])
            if found is None or found.ended is None or found.ended.status != answer["ended"]:
                yield f"{entry}: not so in the books, which have {found}"
            ended_by[answer["grant"]] += answer["mine"]
    for grant_id, times in ended_by.items():
        if times > 1:
            yield f"{grant_id} was ended by {times} calls"


def nothing_is_there_unasked(books: Books, entries: Iterable[Entry]) -> Iterator[str]:
    """No grant that nobody asked for, none that only a host asked for who never commits, no key twice."""
    kept = {(entry.account, entry.key) for entry in entries if entry.kind != "rollback"}
    for grant in books.grants:
        if (grant.account, grant.key) not in kept:
            yield f"{grant}: nobody asked for it, or its transaction was rolled back"
    for key, times in Counter((grant.account, grant.key) for grant in books.grants).items():
        if times > 1:
            yield f"{key} brought {times} grants"


def nobody_saw_anything_but_our_errors(entries: Iterable[Entry]) -> Iterator[str]:
    for entry in entries:
        answer = entry.answer or {}
        if "crash" in answer:
            yield f"{entry.lane} #{entry.number} {entry.kind}: {answer['crash']}"
        expected = _EXPECTED.get(answer.get("error", ""), ())
        if "error" in answer and expected != "any" and entry.kind not in expected:
            yield f"{entry}: an error that has no place here"


_EXPECTED = {
    "StoreUnavailable": "any",
    "AccountBusy": "any",
    "StaleTransaction": ("commit", "rollback"),
    "IdempotencyConflict": ("conflict",),
    "GrantEnded": ("start", "extend"),
    "InvalidRequest": ("refund",),  # it was refunded before
}
"""Which errors may answer which kind of operation."""


def _is_booked(answer: Answer) -> bool:
    return not str(answer["grant"]).startswith("un_")


def _stays(answer: Answer) -> bool:
    return bool(answer.get("host", "committed") == "committed")


def _parts(answer: Answer) -> list[list[object]]:
    """The allocations with the lots' own numbers."""
    return [
        [source, units, None if lot is None else int(lot.rsplit("_", 1)[1])]
        for source, units, lot in answer["allocations"]
    ]
