"""What has fallen due: grants that expired, then lots, then plans. Whoever writes to the account next writes it.

Expiry is a fact of time. Every write to an account first posts its dues, each dated to its own instant; reads fold the
same drafts without writing them. So when a sweep runs changes no answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from billing import lots as lot_rules
from billing.books import BookState
from billing.draft import Draft, Line
from billing.lots import Lot
from billing.posting import post
from billing.sql import Db
from quota.endings import End, draft_end, write_end
from quota.grant_rows import GrantFacts, load_grant
from quota.load import HoldView, Picture, load_picture
from quota.lots_in_hand import LotsInHand
from quota.plan_dues import PlansInHand, Written, plans_due

PLANS: Final = 2
"""Where the dues of plans come among those of one instant."""


@dataclass(frozen=True, slots=True)
class Due:
    """One thing that has fallen due: its draft, the end of a grant where it is one, and what else it writes."""

    draft: Draft
    end: End | None
    write: Written | None = None


def draft_dues(
    book: BookState,
    holds: tuple[HoldView, ...],
    lots: LotsInHand,
    grant_of: Callable[[int], GrantFacts],
    now: datetime,
    plans: PlansInHand | None,
) -> Iterator[Due]:
    """Draft what is due by `now`, in order of due instants, holds before lots, and these before plans.

    `lots` and `plans` are kept up to date, and so is the book's plan.
    """
    of_plans = [] if plans is None else list(plans.draft_dues(now))
    events: list[tuple[datetime, int, int, HoldView | None]] = [
        (max(hold.expires_at, book.at), 0, hold.grant_no, hold)
        for hold in holds
        if hold.expires_at <= now
    ]
    events.extend(
        (max(lot.expires_at, lot.created_at, book.at), 1, lot.number, None)
        for lot in lots.all()
        if lot.expires_at is not None and lot.expires_at <= now
    )
    events.extend((at, PLANS, place, None) for place, (at, *_) in enumerate(of_plans))
    for at, kind, number, hold in sorted(events, key=lambda event: event[:3]):
        if kind == PLANS:
            _, draft, write = of_plans[number]
            yield Due(draft, None, write)
        elif hold is not None:
            grant = grant_of(number)
            end = End.of_expiry(grant, charge=not hold.returns)
            yield Due(draft_end(book, grant, end, lots, at), end)
        elif lots.get(number).available > 0:
            yield Due(draft_lot_expiry(lots, number, at), None)


def draft_lot_expiry(lots: LotsInHand, number: int, at: datetime) -> Draft:
    """Draft the expiry of what is available of a lot. `lots` is kept up to date."""
    lot: Lot = lots.get(number)
    units = lot.available
    transfers, breakage = lot_rules.expire(lot, units)
    lots.apply(transfers)
    line = Line(lot_no=number, lot_units=-units, currency=lot.currency, breakage_minor=breakage)
    facts = {"lot": number, "units": units, "breakage_minor": breakage}
    return Draft(
        "lot_expiry",
        at,
        facts,
        once=f"lot_expiry:{number}",
        transfers=tuple(transfers),
        lines=(line,),
        closes_lot=number,
    )


def post_dues(db: Db, book: BookState, now: datetime) -> Picture:
    """Write down what is due on a locked book, and return the book's picture after it."""
    picture = load_picture(db, book)
    if not picture.has_dues(now):
        return picture
    lots = LotsInHand(db, book.id, picture.lots)
    plans = plans_due(db, book, now)
    due = draft_dues(
        book, picture.holds, lots, lambda number: load_grant(db, book.id, number), now, plans
    )
    for item in due:
        seq = post(db, book, item.draft, now)
        if item.end is not None:
            write_end(db, book, item.end, seq, item.draft.at)
        if item.write is not None:
            item.write(db)
    return load_picture(db, book)
