"""The life of a grant after it was made: started, extended, settled, released; or reported late.

Every call locks the grant's book, posts what fell due, and only then looks at the grant: so a settle that comes after
the expiry finds the grant expired, whether or not a sweep has run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import bindparam, select, update

from billing import chart
from billing.books import save_book
from billing.posting import post
from billing.sql import Db, Statement, insert_into
from policies.errors import GrantEnded, IdempotencyConflict, InvalidRequest
from policies.instants import micros
from policies.policy_set import PolicySet
from policies.request import AttributeValue
from policies.units import GPU_SECONDS_MAX, exact
from quota.endings import End, delivered_units, draft_end, gpu_transfers, write_end
from quota.gpu_costs import debit_overrun, gpu_lines, price_gpu
from quota.grant_rows import GrantFacts
from quota.grants import Ending
from quota.late import report_late, told_end
from quota.locked import Locked, Report, of_grant
from quota.lots_in_hand import LotsInHand
from quota.records import attributes_of
from quota.tables import GPU_ATTEMPTS, HOLDS

EXTENSION_MAX: Final = timedelta(days=366)

_RENEW: Final = Statement(
    update(HOLDS)
    .where(HOLDS.c.book_id == bindparam("of_book"), HOLDS.c.grant_no == bindparam("of_grant"))
    .values(expires_at=bindparam("until"), started_at=bindparam("since"))
)
_ATTEMPT: Final = insert_into(GPU_ATTEMPTS)
_FIND_ATTEMPT: Final = Statement(
    select(GPU_ATTEMPTS.c.gpu_cost_micro_usd, GPU_ATTEMPTS.c.gpu_seconds, GPU_ATTEMPTS.c.gpu).where(
        GPU_ATTEMPTS.c.book_id == bindparam("book_id"),
        GPU_ATTEMPTS.c.grant_no == bindparam("grant_no"),
        GPU_ATTEMPTS.c.attempt == bindparam("attempt"),
    )
)


def renew(
    db: Db, locked: Locked, then: PolicySet, *, by: timedelta | None
) -> tuple[datetime, datetime | None]:
    """Start a grant (`by` is None) or extend its hold by a length of time from now.

    Returns when the hold now expires, and when the grant was started.

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
        return until, started_at
    kind = "start" if by is None else "extend"
    facts = {
        "expires_at": micros(until),
        "started_at": None if started_at is None else micros(started_at),
    }
    post(db, book, of_grant(kind, grant, now, facts), now)
    db.run(_RENEW, of_book=book.id, of_grant=grant.number, until=until, since=started_at)
    save_book(db, book)
    return until, started_at


def finish(db: Db, locked: Locked, then: PolicySet, today: PolicySet, report: Report) -> Ending:
    """Settle or release a grant, or say how it has ended already.

    Raises:
        InvalidRequest: the GPU type or what was delivered is unknown or not allowed.
    """
    cost = _cost(locked.grant, then, today, report)
    kept = _kept(db, locked.grant, then, report)
    if locked.ended is not None:
        if locked.ended.status != "expired":
            return told_end(locked.grant, locked.ended)
        return report_late(db, locked, then, report, cost, kept)
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
    cost = price_gpu(grant, then, today, gpu_seconds, gpu)
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
        "budgets": debit_overrun(db, locked, then, cost),
    }
    draft = of_grant("attempt", grant, locked.now, facts)
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


def _end(
    db: Db, locked: Locked, then: PolicySet, report: Report, cost: int | None, kept: tuple[int, ...]
) -> Ending:
    book, grant, now = locked.book, locked.grant, locked.now
    rule = then.release_rule(report.reason or "")
    booked = grant.gpu_cost_micro_usd if cost is None else cost
    facts: dict[str, Any] = {"budgets": debit_overrun(db, locked, then, booked)}
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
    return price_gpu(grant, then, today, report.gpu_seconds, report.gpu)
