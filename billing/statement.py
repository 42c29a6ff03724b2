"""A statement: one account's lines of a period, each dated, with the balance after it. Pure.

Lines come from what was posted, and from what has fallen due and is not written yet. What a line
cannot say by itself (attributes, weight, who paid) comes from the records, through `Told`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from billing.draft import Line
from billing.posted import Posted
from billing.sums import Check, Sums

WHAT: Final = {"grant": "granted"}
"""What a line is called, where that is not its record's kind."""


@dataclass(frozen=True, slots=True)
class Told:
    """What the records tell about a line.

    `weight`: the units that its grant took from the line's source. `used_after` and `limit`: the
    source's window right after the grant, in units. `detail`: a reason, a reference, a new setting.
    """

    grant_id: str | None = None
    lot_id: str | None = None
    member: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    weight: int | None = None
    used_after: int | None = None
    limit: int | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class StatementLine:
    """One line. `units`: taken (+) or given back (-). Money in minor units of `currency`.

    `refunded_minor`: unearned money of units that were revoked. `returned_minor` and `fee_minor`: what the buyer got
    back through Stripe, net of tax, and Stripe's fees.

    GPU cost is in micro-dollars: estimated when granted, actual when reported, unreported while
    only the estimate is known. `lot_units`: change of the credits available, `credits_after`: those
    that are available after this line.
    """

    at: datetime
    seq: int
    what: str
    grant_id: str | None
    plan: str
    operation: str
    member: str | None
    attributes: Mapping[str, Any]
    source: str
    weight: int | None
    units: int
    used_after: int | None
    limit: int | None
    lot_id: str | None
    lot_units: int
    credits_after: int
    currency: str | None
    sold_minor: int
    revenue_minor: int
    breakage_minor: int
    refunded_minor: int
    returned_minor: int
    fee_minor: int
    gpu_estimated_micro_usd: int
    gpu_micro_usd: int
    gpu_unreported_micro_usd: int
    detail: str


@dataclass(frozen=True, slots=True)
class StatementTotals:
    """What the lines add up to. Units by source, net of returns; money in minor units by currency.

    GPU cost in micro-dollars.
    """

    grants: int
    units: Mapping[str, int]
    sold_minor: Mapping[str, int]
    revenue_minor: Mapping[str, int]
    breakage_minor: Mapping[str, int]
    refunded_minor: Mapping[str, int]
    returned_minor: Mapping[str, int]
    fee_minor: Mapping[str, int]
    gpu_estimated_micro_usd: int
    gpu_micro_usd: int
    gpu_unreported_micro_usd: int


@dataclass(frozen=True, slots=True)
class Statement:
    """One account's lines from `since` on and before `until`.

    Credits before and after are in units. `check` says whether the lines agree with the ledger
    and with the lots' balances.
    """

    account: str
    since: datetime
    until: datetime
    opening_credits: int
    closing_credits: int
    lines: tuple[StatementLine, ...]
    totals: StatementTotals
    check: Check


def shaped(
    account: str,
    period: tuple[datetime, datetime],
    opening_credits: int,
    posted: Iterable[Posted],
    told: Callable[[Posted], Told],
    check: Callable[[Sums], Check],
) -> Statement:
    """Return the statement of lines in order. `opening_credits`: units before the first."""
    left, sums, lines = opening_credits, Sums(), []
    for each in posted:
        sums.add_line(each.line)
        left += each.line.lot_units
        lines.append(_line(each, told(each), left))
    return Statement(
        account=account,
        since=period[0],
        until=period[1],
        opening_credits=opening_credits,
        closing_credits=left,
        lines=tuple(lines),
        totals=_totals(lines, sums),
        check=check(sums),
    )


def zero_line(seq: int, kind: str, at: datetime) -> Posted:
    """Return a line for a record that has none: it moved nothing, but a reader wants to know."""
    return Posted(seq, kind, at, None, "", "", "", Line())


def _line(posted: Posted, told: Told, credits_after: int) -> StatementLine:
    line = posted.line
    return StatementLine(
        at=posted.at,
        seq=posted.seq,
        what=WHAT.get(posted.kind, posted.kind),
        grant_id=told.grant_id,
        plan=posted.plan,
        operation=posted.operation,
        member=told.member,
        attributes=told.attributes,
        source=line.source,
        weight=told.weight,
        units=line.units,
        used_after=told.used_after,
        limit=told.limit,
        lot_id=told.lot_id,
        lot_units=line.lot_units,
        credits_after=credits_after,
        currency=line.currency,
        sold_minor=line.sold_minor,
        revenue_minor=line.revenue_minor,
        breakage_minor=line.breakage_minor,
        refunded_minor=line.refunded_minor,
        returned_minor=line.returned_minor,
        fee_minor=line.fee_minor,
        gpu_estimated_micro_usd=line.gpu_estimated_micro_usd,
        gpu_micro_usd=line.gpu_micro_usd,
        gpu_unreported_micro_usd=line.gpu_unreported_micro_usd,
        detail=told.detail,
    )


def _totals(lines: list[StatementLine], sums: Sums) -> StatementTotals:
    units: dict[str, int] = {}
    for line in lines:
        if line.source:
            units[line.source] = units.get(line.source, 0) + line.units
    return StatementTotals(
        grants=len({line.seq for line in lines if line.what == "granted"}),
        units=dict(sorted(units.items())),
        sold_minor=_kept(sums.sold_minor),
        revenue_minor=_kept(sums.revenue_minor),
        breakage_minor=_kept(sums.breakage_minor),
        refunded_minor=_kept(sums.refunded_minor),
        returned_minor=_kept(sums.returned_minor),
        fee_minor=_kept(sums.fee_minor),
        gpu_estimated_micro_usd=sum(line.gpu_estimated_micro_usd for line in lines),
        gpu_micro_usd=sum(line.gpu_micro_usd for line in lines),
        gpu_unreported_micro_usd=sum(line.gpu_unreported_micro_usd for line in lines),
    )


def _kept(amounts: Mapping[str, int]) -> dict[str, int]:
    return {currency: amount for currency, amount in sorted(amounts.items()) if amount}
