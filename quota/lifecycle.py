"""The life of a grant after it was made: started, extended, settled, released; or reported late.

Every call locks the grant's book, posts what fell due, and only then looks at the grant: so a settle that comes after
the expiry finds the grant expired, whether or not a sweep has run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final, Literal

from sqlalchemy import bindparam, func, select, update

from billing import chart
from billing import lots as lot_rules
from billing.draft import Draft, Line
from billing.posting import BookState, lock_book_by_id, post, save_book
from billing.sql import Db, Statement, insert_into
from billing.transfer import Transfer
from policies.decision import Allocation
from policies.errors import GrantEnded, IdempotencyConflict, InvalidRequest, UnknownGrant
from policies.instants import micros
from policies.late import still_fits
from policies.policy_set import PolicySet
from policies.request import AttributeValue, Request
from policies.units import GPU_SECONDS_MAX, exact, gpu_micro_usd
from quota.budgets import charge
from quota.dues import post_dues
from quota.endings import (
    End,
    Ended,
    GrantFacts,
    LotsInHand,
    delivered_units,
    draft_end,
    gpu_transfers,
    load_ended,
    load_grant,
    load_late,
    lot_price,
    split_cost,
    write_end,
)
from quota.grants import Ending
from quota.ids import grant_id, parse_lot_id
from quota.load import LINE, HoldView, Picture, load_readings
from quota.records import attributes_of, record_facts
from quota.tables import GPU_ATTEMPTS, HOLDS, LATE_ENDINGS

EXTENSION_MAX: Final = timedelta(days=366)

_RENEW: Final = Statement(
    update(HOLDS)
    .where(HOLDS.c.book_id == bindparam("of_book"), HOLDS.c.grant_no == bindparam("of_grant"))
    .values(expires_at=bindparam("until"), started_at=bindparam("since"))
)
_BOOKED: Final = Statement(
    select(
        func.coalesce(func.sum(LINE.c.gpu_micro_usd + LINE.c.gpu_unreported_micro_usd), 0)
    ).where(LINE.c.book_id == bindparam("book_id"), LINE.c.grant_no == bindparam("grant_no"))
)
_LATE: Final = insert_into(LATE_ENDINGS)
_ATTEMPT: Final = insert_into(GPU_ATTEMPTS)
_FIND_ATTEMPT: Final = Statement(
    select(GPU_ATTEMPTS.c.gpu_cost_micro_usd, GPU_ATTEMPTS.c.gpu_seconds, GPU_ATTEMPTS.c.gpu).where(
        GPU_ATTEMPTS.c.book_id == bindparam("book_id"),
        GPU_ATTEMPTS.c.grant_no == bindparam("grant_no"),
        GPU_ATTEMPTS.c.attempt == bindparam("attempt"),
    )
)


@dataclass(frozen=True, slots=True)
class Report:
    """What the end of the work reports. GPU time in seconds; None: unknown."""

    status: Literal["settled", "released"]
    reason: str | None = None
    gpu_seconds: Decimal | None = None
    gpu: str | None = None
    delivered: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True)
class Locked:
    """A grant under the lock of its book, with everything due posted."""

    book: BookState
    picture: Picture
    grant: GrantFacts
    ended: Ended | None
    now: datetime

    @property
    def hold(self) -> HoldView:
        """The grant's hold; it must be open."""
        return next(hold for hold in self.picture.holds if hold.grant_no == self.grant.number)


def lock_grant(db: Db, ids: tuple[int, int], now: datetime) -> Locked:
    """Lock a grant's book, post what is due, and load the grant.

    Raises:
        UnknownGrant: there is none of that id.
    """
    book = lock_book_by_id(db, ids[0])
    if book is None or ids[1] > book.grants:
        raise UnknownGrant(f"there is no grant `{grant_id(*ids)}`")
    now = max(now, book.at)
    picture = post_dues(db, book, now)
    save_book(db, book)
    return Locked(book, picture, load_grant(db, *ids), load_ended(db, *ids), now)


def renew(db: Db, locked: Locked, then: PolicySet, *, by: timedelta | None) -> None:
    """Start a grant (`by` is None) or extend its hold by a length of time from now.

    Raises:
        GrantEnded: it was cancelled, expired or finished: its work must not run.
    """
    book, grant, now = locked.book, locked.grant, locked.now
    if locked.ended is not None:
        raise GrantEnded(
            f"grant `{grant.id}` has ended: it is {locked.ended.status}", status=locked.ended.status
        )
    hold = locked.hold
    started_at = hold.started_at
    if by is None:
        until = then.operation(grant.operation).hold.running.after(now)
        # From the first start on the hold lives as long as running work does, however long it might have queued.
        until = until if started_at is None else max(hold.expires_at, until)
        started_at = started_at or now
    else:
        until = max(hold.expires_at, now + by)
    if until == hold.expires_at and started_at == hold.started_at:
        return
    kind = "start" if by is None else "extend"
    facts = {
        "expires_at": micros(until),
        "started_at": None if started_at is None else micros(started_at),
    }
    post(db, book, _of_grant(kind, grant, now, facts), now)
    db.run(_RENEW, of_book=book.id, of_grant=grant.number, until=until, since=started_at)
    save_book(db, book)


def finish(db: Db, locked: Locked, then: PolicySet, today: PolicySet, report: Report) -> Ending:
    """Settle or release a grant, or say how it has ended already.

    Raises:
        InvalidRequest: the GPU type or what was delivered is unknown or not allowed.
    """
    cost = _cost(locked.grant, then, today, report)
    kept = _kept(db, locked.grant, then, report)
    if locked.ended is not None:
        if locked.ended.status != "expired":
            return _told(locked.grant, locked.ended)
        return _late(db, locked, then, report, cost, kept)
    return _end(db, locked, then, report, cost, kept)


def book_attempt(
    db: Db,
    locked: Locked,
    then: PolicySet,
    today: PolicySet,
    *,
    gpu_seconds: Decimal,
    gpu: str | None,
    attempt: str,
) -> int:
    """Book the GPU time of a crashed attempt, once per attempt. Returns its cost in micro-dollars.

    Raises:
        IdempotencyConflict: the attempt was booked with another time or GPU.
        InvalidRequest: the GPU type is unknown.
    """
    book, grant = locked.book, locked.grant
    cost = _price(grant, then, today, gpu_seconds, gpu)
    found = db.row(_FIND_ATTEMPT, book_id=book.id, grant_no=grant.number, attempt=attempt)
    if found is not None:
        if (Decimal(found[1]), found[2]) != (gpu_seconds, gpu or ""):
            raise IdempotencyConflict(
                f"attempt `{attempt}` of grant `{grant.id}` was booked with another time or GPU"
            )
        return int(found[0])
    facts = {
        "attempt": attempt,
        "gpu_seconds": str(gpu_seconds),
        "gpu": gpu,
        "gpu_cost_micro_usd": cost,
        "budgets": _overrun(db, locked, then, cost),
    }
    draft = _of_grant("attempt", grant, locked.now, facts)
    draft = replace(
        draft,
        once=f"attempt:{grant.number}:{attempt}",
        transfers=tuple(gpu_transfers(chart.GPU_CRASHED, cost, grant.number)),
        lines=gpu_lines(grant, cost, 0),
    )
    seq = post(db, book, draft, locked.now)
    db.run(
        _ATTEMPT,
        book_id=book.id,
        grant_no=grant.number,
        attempt=attempt,
        seq=seq,
        gpu_cost_micro_usd=cost,
        gpu_seconds=str(gpu_seconds),
        gpu=gpu or "",
    )
    save_book(db, book)
    return cost


def seconds(value: object, name: str = "gpu_seconds") -> Decimal | None:
    """Check a GPU time in seconds; None stays None.

    Raises:
        InvalidRequest: it is no number, negative, NaN or too large.
    """
    return None if value is None else exact(value, name, most=GPU_SECONDS_MAX)


def extension(value: object) -> timedelta:
    """Check a length of time to extend a hold by.

    Raises:
        InvalidRequest: it is no timedelta, not positive, or longer than a year.
    """
    if not isinstance(value, timedelta):
        raise InvalidRequest(f"extend takes a timedelta, not `{value!r:.60}`")
    if not timedelta(0) < value <= EXTENSION_MAX:
        raise InvalidRequest(
            f"extend takes more than zero and at most {EXTENSION_MAX.days} days, not `{value}`"
        )
    return value


def told(grant: GrantFacts, ended: Ended, late: tuple[datetime, int, int] | None) -> Ending:
    """Return how a grant has ended, as a later caller is told."""
    if late is None:
        return replace(_told(grant, ended), late=ended.status == "expired")
    at, units, cost = late
    return Ending(
        grant.id,
        ended.status,
        by_this_call=False,
        late=True,
        units_charged=ended.units_charged + units,
        gpu_cost_micro_usd=cost,
        gpu_reported=True,
        at=at,
        reason=ended.reason,
    )


def _told(grant: GrantFacts, ended: Ended) -> Ending:
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


def _end(
    db: Db, locked: Locked, then: PolicySet, report: Report, cost: int | None, kept: tuple[int, ...]
) -> Ending:
    book, grant, now = locked.book, locked.grant, locked.now
    rule = then.release_rule(report.reason or "")
    booked = grant.gpu_cost_micro_usd if cost is None else cost
    facts: dict[str, Any] = {"budgets": _overrun(db, locked, then, booked)}
    if report.delivered is not None:
        facts["delivered"] = {name: str(value) for name, value in sorted(report.delivered.items())}
    if report.gpu_seconds is not None:
        facts |= {"gpu_seconds": str(report.gpu_seconds), "gpu": report.gpu}
    end = End(
        grant=grant,
        status=report.status,
        reason=report.reason,
        kept=kept,
        gpu_account=chart.GPU_DELIVERED if report.status == "settled" else chart.GPU_FAILED,
        gpu_cost_micro_usd=booked,
        gpu_reported=cost is not None,
        ours=report.status == "released" and rule.ours,
        grace=rule.grace,
        facts=facts,
    )
    draft = draft_end(book, grant, end, LotsInHand(db, book.id, locked.picture.lots), now)
    seq = post(db, book, draft, now)
    write_end(db, book, end, seq, now)
    save_book(db, book)
    return Ending(
        grant_id=grant.id,
        status=report.status,
        by_this_call=True,
        late=False,
        units_charged=sum(kept),
        gpu_cost_micro_usd=booked,
        gpu_reported=cost is not None,
        at=now,
        reason=report.reason,
        refunded_minor=sum(line.refunded_minor for line in draft.lines),
    )


def _late(
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
        facts["budgets"] = _overrun(db, locked, then, cost - grant.gpu_cost_micro_usd)
        transfers += gpu_transfers(chart.GPU_UNREPORTED, -grant.gpu_cost_micro_usd, grant.number)
        transfers += gpu_transfers(chart.GPU_LATE, cost, grant.number)
        lines = gpu_lines(grant, cost, -grant.gpu_cost_micro_usd)
    lots = LotsInHand(db, book.id, locked.picture.lots)
    moves, charges = charge_now(grant.number, charged, lots, now)
    facts["charged"] = [part.units for part in charged]
    draft = _of_grant("late", grant, now, facts)
    draft = replace(
        draft, once=f"late:{grant.number}", transfers=(*transfers, *moves), lines=(*lines, *charges)
    )
    seq = post(db, book, draft, now)
    units = sum(part.units for part in charged)
    db.run(
        _LATE,
        book_id=book.id,
        grant_no=grant.number,
        seq=seq,
        at=now,
        units_charged=units,
        gpu_cost_micro_usd=booked,
    )
    save_book(db, book)
    return told(grant, ended, (now, units, booked))


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
            if lot.is_dead(now) or lot.available < part.units:
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


def _kept(db: Db, grant: GrantFacts, then: PolicySet, report: Report) -> tuple[int, ...]:
    """Return the units of each allocation that are charged."""
    if report.status == "released":
        charge_all = then.release_rule(report.reason or "").units == "charge"
        return tuple(part.units if charge_all else 0 for part in grant.allocations)
    if report.delivered is None:
        return tuple(part.units for part in grant.allocations)
    asked = {**attributes_of(db, grant), **report.delivered}
    delivered: Mapping[str, AttributeValue] = then.operation(grant.operation).normalise(asked)
    return delivered_units(grant, then.rules(grant.plan, grant.operation), delivered)


def _cost(grant: GrantFacts, then: PolicySet, today: PolicySet, report: Report) -> int | None:
    """Return the reported GPU cost in micro-dollars; None: nothing was reported."""
    if report.gpu_seconds is None:
        if report.gpu is not None:
            raise InvalidRequest("gpu without gpu_seconds says nothing: give both")
        return None
    return _price(grant, then, today, report.gpu_seconds, report.gpu)


def _price(
    grant: GrantFacts, then: PolicySet, today: PolicySet, gpu_seconds: Decimal, gpu: str | None
) -> int:
    model = then.operation(grant.operation).gpu_cost
    name = gpu or (None if model is None else model.gpu)
    if name is None:
        if gpu_seconds == 0:
            return 0
        raise InvalidRequest(
            f"`{grant.operation}` runs on no GPU of the policy file: say which one with gpu="
        )
    source = then if name in then.gpus else today
    return gpu_micro_usd(gpu_seconds, source.gpu(name).usd_per_hour)


def _overrun(db: Db, locked: Locked, then: PolicySet, more_micro_usd: int) -> list[list[Any]]:
    """Debit what the cost goes over the estimate to the budgets that the estimate was charged to."""
    grant = locked.grant
    row = db.row(_BOOKED, book_id=grant.book_id, grant_no=grant.number) or (0,)
    before = max(int(row[0]), grant.gpu_cost_micro_usd)
    over = int(row[0]) + more_micro_usd - before
    if over <= 0:
        return []
    charged = record_facts(db, grant.book_id, grant.seq)["budgets"]
    known = [name for name, _, _ in charged if name in then.budgets]
    return [charge(db, name, then.budgets[name].read.window, over, locked.now) for name in known]


def gpu_lines(
    grant: GrantFacts, cost_micro_usd: int, unreported_micro_usd: int
) -> tuple[Line, ...]:
    """Return the lines of a GPU cost, in micro-dollars, divided over what the grant took."""
    units = [part.units for part in grant.allocations]
    if not units:
        return (Line(gpu_micro_usd=cost_micro_usd, gpu_unreported_micro_usd=unreported_micro_usd),)
    known, unknown = split_cost(cost_micro_usd, units), split_cost(-unreported_micro_usd, units)
    return tuple(
        Line(
            source=part.source,
            lot_no=None if part.lot_id is None else parse_lot_id(part.lot_id)[1],
            gpu_micro_usd=share,
            gpu_unreported_micro_usd=-less,
        )
        for part, share, less in zip(grant.allocations, known, unknown, strict=True)
    )


def _of_grant(kind: str, grant: GrantFacts, at: datetime, facts: Mapping[str, Any]) -> Draft:
    return Draft(
        kind,
        at,
        facts,
        grant_no=grant.number,
        plan=grant.plan,
        operation=grant.operation,
        member=grant.member,
    )
