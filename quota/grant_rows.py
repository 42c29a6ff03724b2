"""A grant as it was made, and how it ended: what the tables say."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import bindparam, select

from billing.sql import Db, Question, Row, Statement
from policies.decision import Allocation
from policies.errors import UnknownGrant
from quota.grants import Status
from quota.ids import grant_id, lot_id, parse_lot_id
from quota.tables import ENDINGS, GRANTS, LATE_ENDINGS

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
        LATE_ENDINGS.c.at,
        LATE_ENDINGS.c.units_charged,
        LATE_ENDINGS.c.gpu_cost_micro_usd,
        LATE_ENDINGS.c.gpu_reported,
    ).where(
        LATE_ENDINGS.c.book_id == bindparam("book_id"),
        LATE_ENDINGS.c.grant_no == bindparam("number"),
    )
)


class GrantFacts(NamedTuple):
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
class Ended:
    """How a grant ended, as the tables have it. GPU cost in micro-dollars."""

    status: Status
    reason: str | None
    at: datetime
    units_charged: int
    gpu_cost_micro_usd: int
    gpu_reported: bool


@dataclass(frozen=True, slots=True)
class LateReport:
    """What was reported of a grant after it had expired, and booked. GPU cost in micro-dollars."""

    at: datetime
    units_charged: int
    gpu_cost_micro_usd: int
    gpu_reported: bool


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


def grant_questions(book_id: int, number: int) -> tuple[Question, Question]:
    """Return what `load_grant` and `load_ended` ask."""
    values = {"book_id": book_id, "number": number}
    return (_GRANT, values), (_ENDING, values)


def load_ended(db: Db, book_id: int, number: int) -> Ended | None:
    """Load how a grant ended; None while it is open."""
    row = db.row(_ENDING, book_id=book_id, number=number)
    return None if row is None else _ended(row)


def _ended(row: Row) -> Ended:
    return Ended(*(*row[:-1], bool(row[-1])))


def load_late(db: Db, book_id: int, number: int) -> LateReport | None:
    """Load the late report of a grant that had expired."""
    row = db.row(_LATE, book_id=book_id, number=number)
    if row is None:
        return None
    at, units_charged, cost, reported = row
    return LateReport(at, units_charged, cost, bool(reported))


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
