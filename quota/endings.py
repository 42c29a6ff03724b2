"""How grants end: settled, released or expired, exactly once; and what that does to units, money and GPU cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from fractions import Fraction
from typing import Any, Final, NamedTuple

from sqlalchemy import bindparam, delete

from billing import chart
from billing import lots as lot_rules
from billing.books import BookState
from billing.draft import Draft, Line
from billing.lots import Lot
from billing.sql import Db, Statement, insert_into
from billing.transfer import Transfer
from policies.decision import Allocation
from policies.instants import Length
from policies.request import AttributeValue
from policies.rules import Ruleset
from quota.grant_rows import GrantFacts
from quota.grants import Status
from quota.ids import parse_lot_id
from quota.lots_in_hand import LotsInHand, lot_price
from quota.tables import ENDINGS, HOLDS

CARRIED_OVER: Final = "carried_over"
"""The origin of a lot that holds units of an expired one, after a failure of ours."""

_END: Final = insert_into(ENDINGS)
_UNHOLD: Final = Statement(
    delete(HOLDS).where(
        HOLDS.c.book_id == bindparam("of_book"), HOLDS.c.grant_no == bindparam("of_grant")
    )
)


class End(NamedTuple):
    """How a grant is to end. `kept`: the units of each allocation that are charged. GPU cost in micro-dollars."""

    grant: GrantFacts
    status: Status
    reason: str | None
    kept: tuple[int, ...]
    gpu_account: str
    gpu_cost_micro_usd: int
    gpu_reported: bool
    ours: bool = False
    grace: Length | None = None
    facts: Mapping[str, Any] | None = None

    @classmethod
    def of_expiry(cls, grant: GrantFacts, *, charge: bool) -> End:
        """Return the end of a grant that expired: its cost is unknown, so its estimate is posted as unreported."""
        return cls(
            grant=grant,
            status="expired",
            reason=None,
            kept=tuple(allocation.units if charge else 0 for allocation in grant.allocations),
            gpu_account=chart.GPU_UNREPORTED,
            gpu_cost_micro_usd=grant.gpu_cost_micro_usd,
            gpu_reported=False,
        )


def delivered_units(
    grant: GrantFacts, rules: Ruleset, delivered: Mapping[str, AttributeValue]
) -> tuple[int, ...]:
    """Return what each allocation keeps if only this was delivered: re-weighed in order, never above what is held."""
    left, kept = Fraction(1), []
    sources = {source.label: source for source in rules.sources}
    for allocation in grant.allocations:
        source = sources[allocation.source]
        weight = rules.units(source, delivered)
        need = -(-(left * weight).numerator // (left * weight).denominator)
        units = min(allocation.units, need)
        left = max(Fraction(0), left - Fraction(units, weight))
        kept.append(units)
    return tuple(kept)


def draft_end(
    book: BookState, grant: GrantFacts, end: End, lots: LotsInHand, at: datetime
) -> Draft:
    """Draft the end of a grant: units used or given back to where they came from, money earned, GPU cost booked.

    Units that come back to a lot that died meanwhile share its fate: refunded, they are revoked and refunded; expired,
    they become breakage, unless the failure was ours: then they live on in a new lot at the same price basis.
    """
    transfers: list[Transfer] = []
    lines: list[Line] = []
    new_lots: list[Lot] = []
    counts_at = grant.at
    shares = split_cost(end.gpu_cost_micro_usd, [part.units for part in grant.allocations])
    for part, kept, share in zip(grant.allocations, end.kept, shares, strict=True):
        known, unknown = _known_or_not(end, share)
        if part.lot_id is None:
            lines.append(
                Line(
                    source=part.source,
                    units=kept - part.units,
                    counts_at=counts_at,
                    currency=part.currency,
                    gpu_micro_usd=known,
                    gpu_unreported_micro_usd=unknown,
                )
            )
            continue
        moves, line = _end_lot(book, grant, end, part, kept, lots, at, new_lots)
        transfers.extend(moves)
        lines.append(replace(line, gpu_micro_usd=known, gpu_unreported_micro_usd=unknown))
    if not grant.allocations:
        known, unknown = _known_or_not(end, end.gpu_cost_micro_usd)
        lines.append(Line(gpu_micro_usd=known, gpu_unreported_micro_usd=unknown))
    transfers.extend(gpu_transfers(end.gpu_account, end.gpu_cost_micro_usd, grant.number))
    facts = {
        "status": end.status,
        "reason": end.reason,
        "kept": list(end.kept),
        "gpu_cost_micro_usd": end.gpu_cost_micro_usd,
        "gpu_reported": end.gpu_reported,
        **(end.facts or {}),
    }
    return Draft(
        end.status,
        at,
        facts,
        once=f"end:{grant.number}",
        grant_no=grant.number,
        plan=grant.plan,
        operation=grant.operation,
        member=grant.member,
        transfers=tuple(transfers),
        lines=tuple(lines),
        new_lots=tuple(new_lots),
    )


def _end_lot(
    book: BookState,
    grant: GrantFacts,
    end: End,
    part: Allocation,
    kept: int,
    lots: LotsInHand,
    at: datetime,
    new_lots: list[Lot],
) -> tuple[list[Transfer], Line]:
    """Use up what an allocation keeps of its lot, and give back the rest."""
    number = parse_lot_id(part.lot_id)[1]
    returned = part.units - kept
    moves, revenue = lot_rules.use(lots.get(number), kept, grant.number)
    lots.apply(moves)
    if returned:
        back = lot_rules.give_back(lots.get(number), returned, grant.number)
        lots.apply([back])
        moves.append(back)
    fate = _fate(book, grant, end, lots.get(number), returned, at)
    if fate.new_lot is not None:
        lots.add(fate.new_lot)
        new_lots.append(fate.new_lot)
    lots.apply(fate.transfers)
    lot = lots.get(number)
    line = Line(
        source=part.source,
        lot_no=number,
        units=-returned,
        lot_units=fate.lot_units,
        counts_at=grant.at,
        spend_minor=lot_price(lot, kept) - part.price_minor,
        currency=part.currency,
        revenue_minor=revenue,
        breakage_minor=fate.breakage_minor,
        refunded_minor=fate.refunded_minor,
    )
    return [*moves, *fate.transfers], line


@dataclass(frozen=True, slots=True)
class _Fate:
    """What becomes of units that came back. `lot_units`: how many can be used again. Money in minor units."""

    transfers: tuple[Transfer, ...] = ()
    lot_units: int = 0
    breakage_minor: int = 0
    refunded_minor: int = 0
    new_lot: Lot | None = None


def _fate(
    book: BookState, grant: GrantFacts, end: End, lot: Lot, returned: int, at: datetime
) -> _Fate:
    """Decide what becomes of units that came back to their lot: what happened to it meanwhile decides it.

    Units whose money went back are revoked; others join a dispute's, where there is one, or expire with their lot.
    """
    if not returned:
        return _Fate()
    revoked = returned if lot.refunded else min(returned, lot.owed)
    transfers, refunded = lot_rules.revoke(lot, revoked, grant.number)
    then = lot_rules.after(lot, transfers)
    transfers += lot_rules.chargeback(lot, then)
    left = returned - revoked
    if lot.disputed:
        transfers += lot_rules.suspend(then, left)
        return _Fate(tuple(transfers), refunded_minor=refunded)
    if not left or not lot.has_expired(at):
        return _Fate(tuple(transfers), lot_units=left, refunded_minor=refunded)
    if end.ours and end.grace is not None:
        book.lots += 1
        moves, price = lot_rules.carry_over(then, left, book.lots, grant.number)
        new_lot = Lot(
            number=book.lots,
            origin=CARRIED_OVER,
            reference=f"{grant.number}:{lot.number}",
            pack=lot.pack,
            units=left,
            price_minor=price,
            currency=lot.currency,
            priority=lot.priority,
            created_at=at,
            expires_at=end.grace.after(at),
        )
        transfers += moves
        return _Fate(tuple(transfers), left, refunded_minor=refunded, new_lot=new_lot)
    moves, breakage = lot_rules.expire(then, left, grant.number)
    return _Fate((*transfers, *moves), breakage_minor=breakage, refunded_minor=refunded)


def split_cost(cost_micro_usd: int, units: list[int]) -> list[int]:
    """Divide a GPU cost, in micro-dollars, over allocations by their units, so that the parts add up exactly."""
    total, done, shares = sum(units), 0, []
    for count in units:
        shares.append(cost_micro_usd * (done + count) // total - cost_micro_usd * done // total)
        done += count
    return shares


def gpu_transfers(account: str, cost_micro_usd: int, grant_no: int) -> list[Transfer]:
    """Return the transfer that books a GPU cost in micro-dollars; a negative one takes a booking back."""
    if cost_micro_usd == 0:
        return []
    debit, credit = (
        (account, chart.GPU_ACCRUED) if cost_micro_usd > 0 else (chart.GPU_ACCRUED, account)
    )
    return [Transfer(debit, credit, chart.GPU, abs(cost_micro_usd), grant_no=grant_no)]


def write_end(db: Db, book: BookState, end: End, seq: int, at: datetime) -> None:
    """Write the row for which all who end a grant compete, and take its hold away."""
    db.run(
        _END,
        book_id=book.id,
        grant_no=end.grant.number,
        seq=seq,
        status=end.status,
        reason=end.reason,
        at=at,
        units_charged=sum(end.kept),
        gpu_cost_micro_usd=end.gpu_cost_micro_usd,
        gpu_reported=int(end.gpu_reported),
    )
    db.run(_UNHOLD, of_book=book.id, of_grant=end.grant.number)


def _known_or_not(end: End, cost_micro_usd: int) -> tuple[int, int]:
    """Return a GPU cost in micro-dollars as what is known of it, and what is not."""
    return (0, cost_micro_usd) if end.gpu_account == chart.GPU_UNREPORTED else (cost_micro_usd, 0)
