"""The report of the whole business for a period. Pure shaping of sums that were made elsewhere.

Everything is counted by the record's own instant: a due by when it fell due, all else by when it
was recorded. So a closed month never changes, whether or when a sweep runs. Money of different
currencies is kept apart and never added; GPU cost is in micro-dollars, and so is the margin.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Final, Literal, get_args

from billing.posted import Posted
from billing.sums import Check, Sums
from policies.errors import InvalidRequest
from policies.instants import zone_named

Dimension = Literal["plan", "operation", "source", "account", "member", "currency", "day", "month"]
DIMENSIONS: Final[tuple[str, ...]] = get_args(Dimension)
CALENDAR: Final = ("day", "month")
COUNTED: Final = ("grant", "settled", "released", "expired", "late", "attempt")
"""Kinds of records whose number a report gives."""

MICRO_PER_CENT: Final = 10_000
BUCKETS_MAX: Final = 4_000
Key = tuple[str, ...]


@dataclass(slots=True)
class Tally:
    """What one group adds up to. Units; GPU cost in micro-dollars; revenue in minor units."""

    counts: Counter[str] = field(default_factory=Counter)
    units_granted: int = 0
    units_returned: int = 0
    gpu_estimated_micro_usd: int = 0
    gpu_micro_usd: int = 0
    gpu_unreported_micro_usd: int = 0
    revenue_minor: Counter[str] = field(default_factory=Counter)

    def add(self, other: Tally) -> None:
        """Add another group to this one."""
        self.counts.update(other.counts)
        self.units_granted += other.units_granted
        self.units_returned += other.units_returned
        self.gpu_estimated_micro_usd += other.gpu_estimated_micro_usd
        self.gpu_micro_usd += other.gpu_micro_usd
        self.gpu_unreported_micro_usd += other.gpu_unreported_micro_usd
        self.revenue_minor.update(other.revenue_minor)

    def add_line(self, posted: Posted) -> None:
        """Add one line; its record is counted by `count`."""
        line = posted.line
        self.units_granted += max(0, line.units)
        self.units_returned += max(0, -line.units)
        self.gpu_estimated_micro_usd += line.gpu_estimated_micro_usd
        self.gpu_micro_usd += line.gpu_micro_usd
        self.gpu_unreported_micro_usd += line.gpu_unreported_micro_usd
        if line.revenue_minor:
            self.revenue_minor[line.currency or ""] += line.revenue_minor


@dataclass(frozen=True, slots=True)
class ReportRow:
    """One group: what was granted out of it, what it cost, and what it earned.

    `units_net` is granted less returned. GPU cost in micro-dollars: `estimated` when granted,
    `gpu_micro_usd` as reported, `unreported` where only the estimate is known. Revenue in minor
    units by currency. `margin_micro_usd`: revenue in US dollars less GPU cost, reported or not, in
    micro-dollars; revenue in other currencies is not in it.
    """

    key: Mapping[str, str]
    grants: int
    settled: int
    released: int
    expired: int
    late: int
    attempts: int
    units_granted: int
    units_returned: int
    units_net: int
    gpu_estimated_micro_usd: int
    gpu_micro_usd: int
    gpu_unreported_micro_usd: int
    revenue_minor: Mapping[str, int]
    margin_micro_usd: int


@dataclass(frozen=True, slots=True)
class Deferred:
    """Unearned money of one currency rolled forward, in minor units.

    opening + sold - recognised - breakage - refunded = closing. Beside it, what buyers got back through Stripe net of
    tax (what of that is not among the refunded was earned before, and is lost), and Stripe's fees.
    """

    currency: str
    opening_minor: int
    sold_minor: int
    recognised_minor: int
    breakage_minor: int
    refunded_minor: int
    closing_minor: int
    returned_minor: int = 0
    fee_minor: int = 0


@dataclass(frozen=True, slots=True)
class Report:
    """The business from `since` on and before `until`, by groups, with totals and deferred revenue.

    `check` says whether it agrees with the ledger's transfers and the lots' balances to the cent.
    A grant that took from several sources counts in each source's group, and once in the totals.
    """

    since: datetime
    until: datetime
    by: tuple[str, ...]
    timezone: str
    rows: tuple[ReportRow, ...]
    totals: ReportRow
    deferred: tuple[Deferred, ...]
    check: Check


def dimensions(by: Sequence[str]) -> tuple[str, ...]:
    """Check what a report is to be grouped by.

    Raises:
        InvalidRequest: a name is unknown or comes twice, or both day and month are asked for.
    """
    if isinstance(by, str) or not all(isinstance(name, str) for name in by):
        raise InvalidRequest("by must be a list of names such as ['plan', 'operation']")
    wanted = tuple(by)
    if "member" in wanted and "account" not in wanted:
        # A member is somebody within an account: two accounts may well have one of the same name.
        place = wanted.index("member")
        wanted = (*wanted[:place], "account", *wanted[place:])
    for name in wanted:
        if name not in DIMENSIONS:
            raise InvalidRequest(
                f"a report cannot be grouped by `{name:.40}`: use {', '.join(DIMENSIONS)}"
            )
    if len(set(wanted)) < len(wanted) or set(CALENDAR) <= set(wanted):
        raise InvalidRequest(f"group by each name once, and by day or month: {', '.join(wanted)}")
    return wanted


def buckets(
    by: tuple[str, ...], timezone: str, since: datetime, until: datetime
) -> list[tuple[str, datetime, datetime]]:
    """Cut a period at local midnights, or firsts of the month: (name, start, end); one if neither.

    Raises:
        InvalidRequest: there is no such time zone, or the period has too many days.
    """
    zone = zone_named(timezone)
    step = next((name for name in by if name in CALENDAR), None)
    if step is None or since >= until:
        return [("", since, until)]
    parts: list[tuple[str, datetime, datetime]] = []
    start = since
    while start < until:
        if len(parts) == BUCKETS_MAX:
            raise InvalidRequest(f"that is more than {BUCKETS_MAX} {step}s: take a shorter period")
        day = start.astimezone(zone).date()
        first = day if step == "day" else day.replace(day=1)
        end = min(until, _midnight(_next(step, first), zone))
        parts.append((str(first) if step == "day" else f"{first:%Y-%m}", start, end))
        start = end
    return parts


def shaped(
    period: tuple[datetime, datetime],
    by: tuple[str, ...],
    timezone: str,
    tallies: Mapping[Key, Tally],
    totals: Tally,
    money: tuple[Sums, Sums],
    check: Check,
    named: Callable[[str, Key], str],
) -> Report:
    """Return the report. `money`: sums of all lines before the period, and of those within it.

    `named` says what a reader calls a group's value in one dimension.
    """
    rows = [
        _row({name: named(name, key) for name in by}, key_tally)
        for key, key_tally in tallies.items()
        if key_tally != Tally()
    ]
    if by[:1] == ("account",):
        # Who costs most comes first: that is what such a report is asked for.
        rows.sort(key=lambda row: (-_gpu_cost(row), tuple(row.key.values())))
    else:
        rows.sort(key=lambda row: tuple(row.key.values()))
    return Report(
        since=period[0],
        until=period[1],
        by=by,
        timezone=timezone,
        rows=tuple(rows),
        totals=_row({}, totals),
        deferred=tuple(_deferred(*money)),
        check=check,
    )


def usd_micro(revenue_minor: Mapping[str, int]) -> int:
    """Return the US dollars among revenue in minor units, in micro-dollars."""
    return revenue_minor.get("usd", 0) * MICRO_PER_CENT


def _row(key: dict[str, str], tally: Tally) -> ReportRow:
    revenue = {name: amount for name, amount in sorted(tally.revenue_minor.items()) if amount}
    cost = tally.gpu_micro_usd + tally.gpu_unreported_micro_usd
    return ReportRow(
        key=key,
        grants=tally.counts["grant"],
        settled=tally.counts["settled"],
        released=tally.counts["released"],
        expired=tally.counts["expired"],
        late=tally.counts["late"],
        attempts=tally.counts["attempt"],
        units_granted=tally.units_granted,
        units_returned=tally.units_returned,
        units_net=tally.units_granted - tally.units_returned,
        gpu_estimated_micro_usd=tally.gpu_estimated_micro_usd,
        gpu_micro_usd=tally.gpu_micro_usd,
        gpu_unreported_micro_usd=tally.gpu_unreported_micro_usd,
        revenue_minor=revenue,
        margin_micro_usd=usd_micro(revenue) - cost,
    )


def _gpu_cost(row: ReportRow) -> int:
    return row.gpu_micro_usd + row.gpu_unreported_micro_usd


def _deferred(before: Sums, within: Sums) -> list[Deferred]:
    rolled = []
    for currency in sorted({*before.currencies, *within.currencies}):
        opening = before.deferred_minor(currency)
        rolled.append(
            Deferred(
                currency=currency,
                opening_minor=opening,
                sold_minor=within.sold_minor[currency],
                recognised_minor=within.revenue_minor[currency],
                breakage_minor=within.breakage_minor[currency],
                refunded_minor=within.refunded_minor[currency],
                closing_minor=opening + within.deferred_minor(currency),
                returned_minor=within.returned_minor[currency],
                fee_minor=within.fee_minor[currency],
            )
        )
    return [each for each in rolled if each != Deferred(each.currency, 0, 0, 0, 0, 0, 0)]


def _next(step: str, first: date) -> date:
    if step == "day":
        return first + timedelta(days=1)
    return date(first.year + first.month // 12, first.month % 12 + 1, 1)


def _midnight(day: date, zone: object) -> datetime:
    return datetime.combine(day, time(), tzinfo=zone).astimezone(UTC)  # type: ignore[arg-type]
