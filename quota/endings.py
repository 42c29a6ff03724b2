"""How grants end: settled, released or expired, exactly once; and what that does to units, money and GPU cost."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from fractions import Fraction
from typing import Any, Final

from sqlalchemy import bindparam, delete, select

from billing import chart
from billing import lots as lot_rules
from billing.draft import Draft, Line
from billing.lots import Lot
from billing.posting import BookState
from billing.sql import Db, Row, Statement, insert_into
from billing.transfer import Transfer, lot_deltas
from policies.decision import Allocation
from policies.errors import UnknownGrant
from policies.instants import Length
from policies.request import AttributeValue
from policies.rules import Ruleset
from policies.units import div_ceil
from quota.grants import Status
from quota.ids import grant_id, lot_id, parse_lot_id
from quota.load import load_lot
from quota.tables import ENDINGS, GRANTS, HOLDS, LATE_ENDINGS

CARRIED_OVER: Final = "carried_over"
"""The origin of a lot that holds units of an expired one, after a failure of ours."""

_GRANT: Final = Statement(
    select(
        GRANTS.c.number,
        GRANTS.c.seq,
        GRANTS.c.at,
        GRANTS.c.plan,
        GRANTS.c.operation,
        GRANTS.c.member,
        GRANTS.c.attributes,
        GRANTS.c.policy_version,
        GRANTS.c.gpu_cost_micro_usd,
        GRANTS.c.allocations,
    ).where(GRANTS.c.book_id == bindparam("book_id"), GRANTS.c.number == bindparam("number"))
)
_END: Final = insert_into(ENDINGS)
_UNHOLD: Final = Statement(
    delete(HOLDS).where(
        HOLDS.c.book_id == bindparam("of_book"), HOLDS.c.grant_no == bindparam("of_grant")
    )
)
_ENDING: Final = Statement(
    select(
        ENDINGS.c.status,
        ENDINGS.c.reason,
        ENDINGS.c.at,
        ENDINGS.c.units_charged,
        ENDINGS.c.gpu_cost_micro_usd,
        ENDINGS.c.gpu_reported,
    ).where(ENDINGS.c.book_id == bindparam("book_id"), ENDINGS.c.grant_no == bindparam("number"))
)
_LATE: Final = Statement(
    select(
        LATE_ENDINGS.c.at, LATE_ENDINGS.c.units_charged, LATE_ENDINGS.c.gpu_cost_micro_usd
    ).where(
        LATE_ENDINGS.c.book_id == bindparam("book_id"),
        LATE_ENDINGS.c.grant_no == bindparam("number"),
    )
)


@dataclass(frozen=True, slots=True)
class GrantFacts:
    """A grant as it was made. GPU cost is the estimate, in micro-dollars."""

    book_id: int
    number: int
    seq: int
    at: datetime
    plan: str
    operation: str
    member: str
    attributes: Mapping[str, Any]
    policy_version: str
    gpu_cost_micro_usd: int
    allocations: tuple[Allocation, ...]

    @property
    def id(self) -> str:
        """The grant's id."""
        return grant_id(self.book_id, self.number)

    @property
    def units(self) -> int:
        """All units it took."""
        return sum(allocation.units for allocation in self.allocations)


@dataclass(frozen=True, slots=True)
class End:
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


@dataclass(frozen=True, slots=True)
class Ended:
    """How a grant ended, as the tables have it. GPU cost in micro-dollars."""

    status: Status
    reason: str | None
    at: datetime
    units_charged: int
    gpu_cost_micro_usd: int
    gpu_reported: bool


class LotsInHand:
    """The lots of a book within one transaction, each as the drafts so far have left it."""

    def __init__(self, db: Db | None, book_id: int, lots: Iterable[Lot] = ()) -> None:
        self._db, self._book_id = db, book_id
        self._lots = {lot.number: lot for lot in lots}

    def get(self, number: int) -> Lot:
        """Return a lot, loading it where it is not in hand."""
        if number not in self._lots:
            lot = None if self._db is None else load_lot(self._db, self._book_id, number)
            if lot is None:
                raise LookupError(f"lot {number} is not in the book")
            self._lots[number] = lot
        return self._lots[number]

    def all(self) -> list[Lot]:
        """Return the lots in hand."""
        return list(self._lots.values())

    def add(self, lot: Lot) -> None:
        """Take a new lot in hand."""
        self._lots[lot.number] = lot

    def apply(self, transfers: Iterable[Transfer]) -> None:
        """Bring the lots up to what these transfers leave."""
        for number, delta in lot_deltas(transfers).items():
            lot = self.get(number)
            self._lots[number] = replace(
                lot,
                used=lot.used + delta.units_used,
                gone=lot.gone + delta.units_gone,
                held=lot.held + delta.units_held,
            )


def load_grant(db: Db, book_id: int, number: int) -> GrantFacts:
    """Load a grant as it was made.

    Raises:
        UnknownGrant: there is none.
    """
    row = db.row(_GRANT, book_id=book_id, number=number)
    if row is None:
        raise UnknownGrant(f"there is no grant `{grant_id(book_id, number)}`")
    number, seq, at, plan, operation, member, attributes, version, cost, allocations = row
    parts = tuple(allocation_from(book_id, part) for part in json.loads(allocations))
    return GrantFacts(
        book_id,
        number,
        seq,
        at,
        plan,
        operation,
        member,
        json.loads(attributes),
        version,
        cost,
        parts,
    )


def load_ended(db: Db, book_id: int, number: int) -> Ended | None:
    """Load how a grant ended; None while it is open."""
    row = db.row(_ENDING, book_id=book_id, number=number)
    return None if row is None else _ended(row)


def _ended(row: Row) -> Ended:
    return Ended(*(*row[:-1], bool(row[-1])))


def load_late(db: Db, book_id: int, number: int) -> tuple[datetime, int, int] | None:
    """Load the late report of a grant that had expired: when, units charged, and GPU cost in micro-dollars."""
    row = db.row(_LATE, book_id=book_id, number=number)
    return None if row is None else (row[0], int(row[1]), int(row[2]))


def allocation_text(allocations: Iterable[Allocation]) -> list[list[Any]]:
    """Return allocations as they are stored: (source, lot number, units, price in minor units, currency)."""
    return [
        [
            part.source,
            None if part.lot_id is None else parse_lot_id(part.lot_id)[1],
            part.units,
            part.price_minor,
            part.currency,
        ]
        for part in allocations
    ]


def allocation_from(book_id: int, part: list[Any]) -> Allocation:
    """Return an allocation that was stored."""
    source, lot_no, units, price_minor, currency = part
    return Allocation(
        source, units, None if lot_no is None else lot_id(book_id, lot_no), price_minor, currency
    )


def delivered_units(
    grant: GrantFacts, rules: Ruleset, delivered: Mapping[str, AttributeValue]
) -> tuple[int, ...]:
    """Return what each allocation keeps if only this was delivered: re-weighed in order, never above what is held."""
    left, kept = Fraction(1), []
    for allocation in grant.allocations:
        source = next(source for source in rules.sources if source.label == allocation.source)
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
    shares = split_cost(end.gpu_cost_micro_usd, [part.units for part in grant.allocations])
    for part, kept, share in zip(grant.allocations, end.kept, shares, strict=True):
        line = Line(
            source=part.source, units=kept - part.units, counts_at=grant.at, currency=part.currency
        )
        if part.lot_id is not None:
            moves, line = _end_lot(book, grant, end, part, kept, lots, at, new_lots)
            transfers.extend(moves)
        lines.append(_with_gpu(line, end, share))
    if not grant.allocations:
        lines.append(_with_gpu(Line(), end, end.gpu_cost_micro_usd))
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
    """Decide what becomes of units that came back to their lot: a lot that died meanwhile decides it."""
    if not returned or not lot.is_dead(at):
        return _Fate(lot_units=returned)
    if lot.refunded:
        transfers, refunded = lot_rules.revoke(lot, returned, grant.number)
        return _Fate(tuple(transfers), refunded_minor=refunded)
    if end.ours and end.grace is not None:
        book.lots += 1
        transfers, price = lot_rules.carry_over(lot, returned, book.lots, grant.number)
        new_lot = Lot(
            number=book.lots,
            origin=CARRIED_OVER,
            reference=f"{grant.number}:{lot.number}",
            pack=lot.pack,
            units=returned,
            price_minor=price,
            currency=lot.currency,
            priority=lot.priority,
            created_at=at,
            expires_at=end.grace.after(at),
        )
        return _Fate(tuple(transfers), lot_units=returned, new_lot=new_lot)
    transfers, breakage = lot_rules.expire(lot, returned, grant.number)
    return _Fate(tuple(transfers), breakage_minor=breakage)


def lot_price(lot: Lot, units: int) -> int:
    """Return what units of a lot cost its buyer, in minor units, rounded up."""
    return div_ceil(lot.price_minor * units, lot.units)


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


def _with_gpu(line: Line, end: End, cost_micro_usd: int) -> Line:
    if end.gpu_account == chart.GPU_UNREPORTED:
        return replace(line, gpu_unreported_micro_usd=cost_micro_usd)
    return replace(line, gpu_micro_usd=cost_micro_usd)
