"""The report of the business: sums made by the database, and the dues that nobody has written yet.

Expiry is a fact of time: what has fallen due on quiet accounts is drafted here as a write would
draft it, and counted at its own instant. So whether or when a sweep runs changes no figure.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial

from billing.books import read_book_by_id
from billing.groups import columns_of, key_of, load_names, load_tallies
from billing.lines import load_balance_sums, load_line_sums, load_transfer_sums
from billing.plans import RECOGNISED
from billing.posted import posted_by
from billing.report import COUNTED, Key, Report, Tally, buckets, shaped
from billing.sql import Db
from billing.sums import Check, Sums, differences
from quota.dues import Due
from quota.load import load_picture
from quota.records import ERASED, value_of
from quota.sweeps import books_with_dues
from quota.views import folded_dues

SumsLoader = Callable[[Db, datetime | None, datetime | None], Sums]


class Folded:
    """What unwritten dues add to the sums: before the period, within it, and after it."""

    def __init__(self) -> None:
        self.lines = (Sums(), Sums(), Sums())
        self.ledger = (Sums(), Sums(), Sums())
        self.tallies: dict[Key, Tally] = {}
        self.totals = Tally()


def report(
    db: Db,
    period: tuple[datetime, datetime],
    by: tuple[str, ...],
    timezone: str,
    now: datetime,
) -> Report:
    """Make the report of a period.

    Raises:
        InvalidRequest: there is no such time zone.
    """
    since, until = period
    parts = buckets(by, timezone, since, until)
    tallies: dict[Key, Tally] = {}
    for bucket, start, end in parts:
        tallies |= load_tallies(db, by, bucket, start, end)
    totals = load_tallies(db, (), "", since, until).get(("",), Tally())
    folded = _fold(db, period, by, parts, now)
    for key, tally in folded.tallies.items():
        tallies.setdefault(key, Tally()).add(tally)
    totals.add(folded.totals)
    lines = _with(folded.lines, db, period, load_line_sums)
    ledger = _with(folded.ledger, db, period, load_transfer_sums)
    return shaped(
        period,
        by,
        timezone,
        tallies,
        totals,
        lines[:2],
        Check(tuple(_problems(db, lines, ledger, folded))),
        partial(_named, db, columns_of(by), load_names(db) if "account" in by else {}),
    )


def each_due(db: Db, now: datetime) -> Iterator[tuple[int, list[tuple[int, Due]]]]:
    """Go through the books with unwritten dues, by number: each with its dues and their places."""
    after = 0
    while books := books_with_dues(db, now, after):
        for book_id in books:
            book = read_book_by_id(db, book_id)
            if book is not None:
                dues = folded_dues(db, load_picture(db, book), max(now, book.at))
                yield book_id, list(enumerate(dues, start=book.seq + 1))
        after = books[-1]


def _fold(
    db: Db,
    period: tuple[datetime, datetime],
    by: tuple[str, ...],
    parts: list[tuple[str, datetime, datetime]],
    now: datetime,
) -> Folded:
    folded, starts = Folded(), [start for _, start, _ in parts]
    for book_id, dues in each_due(db, now):
        for seq, due in dues:
            at = due.draft.at
            place = 0 if at < period[0] else 1 if at < period[1] else 2
            for transfer in due.draft.transfers:
                folded.ledger[place].add_transfer(transfer)
            keys: set[Key] = set()
            for posted in posted_by(due.draft, seq):
                folded.lines[place].add_line(posted.line)
                if place == 1 and (posted.grant_no is not None or posted.kind == RECOGNISED):
                    bucket = parts[bisect_right(starts, at) - 1][0]
                    key = key_of(by, bucket, book_id, posted)
                    folded.tallies.setdefault(key, Tally()).add_line(posted)
                    folded.totals.add_line(posted)
                    keys.add(key)
            if keys and due.draft.kind in COUNTED:
                folded.totals.counts[due.draft.kind] += 1
                for key in keys:
                    folded.tallies[key].counts[due.draft.kind] += 1
    return folded


def _with(
    folded: tuple[Sums, Sums, Sums], db: Db, period: tuple[datetime, datetime], load: SumsLoader
) -> tuple[Sums, Sums, Sums]:
    """Return what was posted and what is due, added up: before the period, within it, after it."""
    since, until = period
    posted = (load(db, None, since), load(db, since, until), load(db, until, None))
    for sums, due in zip(posted, folded, strict=True):
        sums.add(due)
    return posted


def _problems(
    db: Db, lines: tuple[Sums, ...], ledger: tuple[Sums, ...], folded: Folded
) -> Iterator[str]:
    """Say where lines disagree with transfers, or with what lots hold now."""
    for name, ours, theirs in zip(("before", "within", "after"), lines, ledger, strict=True):
        yield from differences(ours, theirs, f"{name} the period")
    units, deferred = load_balance_sums(db)
    whole = Sums()
    for sums in lines:
        whole.add(sums)
    for due in folded.lines:  # lots do not know yet what is only due
        units += due.credits
        for currency in due.currencies:
            deferred[currency] = deferred.get(currency, 0) + due.deferred_minor(currency)
    if whole.credits != units:
        yield f"all lines leave {whole.credits} credits available, the lots have {units}"
    for currency in sorted({*whole.currencies, *deferred}):
        if whole.deferred_minor(currency) != deferred.get(currency, 0):
            yield (
                f"all lines leave {whole.deferred_minor(currency)} {currency} (minor units) "
                f"unearned, lots and plans have {deferred.get(currency, 0)}"
            )


def _named(db: Db, columns: tuple[str, ...], names: dict[int, str], name: str, key: Key) -> str:
    """Return what a reader calls a group's value in one dimension."""
    if name in ("day", "month"):
        return key[0]
    values = dict(zip(columns, key[1:], strict=True))
    if name == "account":
        return names.get(int(values["book_id"]), f"{ERASED} book {values['book_id']}")
    if name == "member" and values["member"]:
        return value_of(db, int(values["book_id"]), values["member"])
    return values[name]
