"""Work that is reported after its grant has expired."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from billing import chart
from billing import lots as lot_rules
from billing.books import save_book
from billing.draft import Line
from billing.posting import post
from billing.sql import Db, insert_into
from billing.transfer import Transfer
from policies.decision import Allocation
from policies.late import still_fits
from policies.policy_set import PolicySet
from policies.request import Request
from quota.endings import gpu_transfers
from quota.gpu_costs import debit_overrun, gpu_lines
from quota.grant_rows import Ended, GrantFacts, LateReport, load_late
from quota.grants import Ending
from quota.ids import parse_lot_id
from quota.load import load_readings
from quota.locked import Locked, Report, of_grant
from quota.lots_in_hand import LotsInHand, lot_price
from quota.records import attributes_of
from quota.tables import LATE_ENDINGS

_LATE: Final = insert_into(LATE_ENDINGS)


def told(grant: GrantFacts, ended: Ended, late: LateReport | None) -> Ending:
    """Return how a grant has ended, as a later caller is told."""
    if late is None:
        return replace(told_end(grant, ended), late=ended.status == "expired")
    return Ending(
        grant.id,
        ended.status,
        by_this_call=False,
        late=True,
        units_charged=ended.units_charged + late.units_charged,
        gpu_cost_micro_usd=late.gpu_cost_micro_usd,
        gpu_reported=late.gpu_reported,
        at=late.at,
        reason=ended.reason,
    )


def told_end(grant: GrantFacts, ended: Ended) -> Ending:
    """Return the end of a grant as somebody is told who did not bring it about. GPU cost in micro-dollars."""
    return Ending(
        grant_id=grant.id,
        status=ended.status,
        by_this_call=False,
        late=False,
        units_charged=ended.units_charged,
        gpu_cost_micro_usd=ended.gpu_cost_micro_usd,
        gpu_reported=ended.gpu_reported,
        at=ended.at,
        reason=ended.reason,
    )


def report_late(
    db: Db, locked: Locked, then: PolicySet, report: Report, cost: int | None, kept: tuple[int, ...]
) -> Ending:
    """Book the truth about a grant that has expired: its GPU cost, and its units where they are still to be had."""
    book, grant, now = locked.book, locked.grant, locked.now
    ended = locked.ended
    if ended is None:
        raise LookupError("only an ended grant can be late")
    late = load_late(db, book.id, grant.number)
    charged = (
        _charged_late(db, locked, then, kept)
        if report.status == "settled" and not ended.units_charged
        else ()
    )
    if late is not None or (cost is None and not charged):
        return told(grant, ended, late)
    transfers: list[Transfer] = []
    booked = grant.gpu_cost_micro_usd if cost is None else cost
    facts: dict[str, Any] = {"gpu_cost_micro_usd": booked, "gpu_reported": cost is not None}
    lines: tuple[Line, ...] = ()
    if cost is not None:
        facts["budgets"] = debit_overrun(db, locked, then, cost)
        transfers += gpu_transfers(chart.GPU_UNREPORTED, -grant.gpu_cost_micro_usd, grant.number)
        transfers += gpu_transfers(chart.GPU_LATE, cost, grant.number)
        lines = gpu_lines(grant, cost, -grant.gpu_cost_micro_usd)
    lots = LotsInHand(db, book.id, locked.picture.lots)
    moves, charges = charge_now(grant.number, charged, lots, now)
    facts["charged"] = [part.units for part in charged]
    draft = of_grant("late", grant, now, facts)
    draft = replace(
        draft, once=f"late:{grant.number}", transfers=(*transfers, *moves), lines=(*lines, *charges)
    )
    seq = post(db, book, draft, now)
    late = LateReport(now, sum(part.units for part in charged), booked, cost is not None)
    db.run(
        _LATE,
        book_id=book.id,
        grant_no=grant.number,
        seq=seq,
        at=now,
        units_charged=late.units_charged,
        gpu_cost_micro_usd=booked,
        gpu_reported=int(late.gpu_reported),
    )
    save_book(db, book)
    return told(grant, ended, late)


def _charged_late(
    db: Db, locked: Locked, then: PolicySet, kept: tuple[int, ...]
) -> tuple[Allocation, ...]:
    """Return what can be charged for work that arrived late: all of it, if it is still to be had, or nothing."""
    book, grant, now = locked.book, locked.grant, locked.now
    if then.on_late_settle != "charge_if_available" or book.frozen is not None:
        return ()
    wanted = tuple(
        part._replace(units=units)
        for part, units in zip(grant.allocations, kept, strict=True)
        if units
    )
    lots = LotsInHand(db, book.id, locked.picture.lots)
    for part in wanted:
        if part.lot_id is not None:
            lot = lots.get(parse_lot_id(part.lot_id)[1])
            if lot.refunded or lot.has_expired(now) or lot.available < part.units:
                return ()
    rules = then.rules(grant.plan, grant.operation)
    request = Request(grant.operation, attributes_of(db, grant), grant.member, consent=True)
    circumstances = book.circumstances(grant.plan)
    state = load_readings(db, locked.picture, rules.reads(request, circumstances), now)
    return wanted if still_fits(rules, request, circumstances, wanted, state, now) else ()


def charge_now(
    grant_no: int, charged: tuple[Allocation, ...], lots: LotsInHand, now: datetime
) -> tuple[list[Transfer], tuple[Line, ...]]:
    """Return the transfers and lines by which these allocations are taken now, without a hold."""
    transfers: list[Transfer] = []
    lines: list[Line] = []
    for part in charged:
        line = Line(source=part.source, units=part.units, counts_at=now, currency=part.currency)
        if part.lot_id is not None:
            lot = lots.get(parse_lot_id(part.lot_id)[1])
            moves, revenue = lot_rules.use_now(lot, part.units, grant_no)
            lots.apply(moves)
            transfers.extend(moves)
            line = replace(
                line,
                lot_no=lot.number,
                lot_units=-part.units,
                spend_minor=lot_price(lot, part.units),
                revenue_minor=revenue,
            )
        lines.append(line)
    return transfers, tuple(lines)
