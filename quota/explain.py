"""Explaining a grant: what each policy read and found, and whether deciding again gives the same.

Everything comes from the grant's own record, as it was chained: the numbers that were read, the
policy version, the account's settings. How it ended comes with it, and what was earned per lot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final

from sqlalchemy import bindparam, func, select

from billing.books import BookState, read_book_by_id
from billing.lots import Lot
from billing.sql import Db, Statement
from billing.tables import LINES
from policies.decision import Finding
from policies.errors import ComptrollerError, UnknownGrant
from policies.instants import from_micros
from policies.policy import Policy
from policies.request import AttributeValue
from policies.state import BudgetRead, OpenRead, RateRead, Read, UsageRead
from policies.words import at_attributes, dollars, money, policy_words
from quota.again import Case, case_of, differences, readings_of
from quota.grant_rows import Ended, GrantFacts, load_ended, load_grant, load_late
from quota.grants import Grant
from quota.ids import grant_id, lot_id
from quota.load import load_picture
from quota.lot_rows import load_lot
from quota.records import record_facts, value_of
from quota.version import ENGINE
from quota.versions import stored
from quota.views import folded_dues, view_grant

_RECOGNISED: Final = Statement(
    select(LINES.c.lot_no, LINES.c.currency, func.sum(LINES.c.revenue_minor))
    .where(
        LINES.c.book_id == bindparam("book_id"),
        LINES.c.grant_no == bindparam("grant_no"),
        LINES.c.lot_no.is_not(None),
    )
    .group_by(LINES.c.lot_no, LINES.c.currency)
    .order_by(LINES.c.lot_no)
)


@dataclass(frozen=True, slots=True)
class NumberRead:
    """One number that policies read: `what` it is, and its value then."""

    policies: tuple[str, ...]
    what: str
    number: int


@dataclass(frozen=True, slots=True)
class LotRead:
    """A lot that was open then, with the units available in it."""

    lot_id: str
    available: int


@dataclass(frozen=True, slots=True)
class Recognised:
    """Money earned by a grant's use of a lot, in minor units of its currency."""

    lot_id: str
    revenue_minor: int
    currency: str


@dataclass(frozen=True, slots=True)
class HowItEnded:
    """How a grant ended. `units_charged`: units that were not given back. GPU cost in micro-dollars.

    `late`: a report came after the expiry; units and cost are then the report's.
    """

    status: str
    at: datetime
    reason: str | None
    units_charged: int
    gpu_cost_micro_usd: int
    gpu_reported: bool
    late: bool


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a grant was granted, out of what, and what became of it. GPU cost in micro-dollars.

    `waterfall` says in words what each policy found, in order. `same`: whether deciding again from
    the recorded numbers gives the same; `differences` says what differs, or why it cannot be done.
    """

    grant: Grant
    attributes: Mapping[str, AttributeValue]
    engine: str
    engine_now: str
    policy_version: str
    consent: bool | int
    paid_use: str | None
    timezones: tuple[str, ...]
    numbers: tuple[NumberRead, ...]
    lots: tuple[LotRead, ...]
    findings: tuple[Finding, ...]
    waterfall: tuple[str, ...]
    same: bool
    differences: tuple[str, ...]
    ending: HowItEnded | None
    recognised: tuple[Recognised, ...]

    def __str__(self) -> str:
        return "\n".join(_words(self))


def explain(db: Db, ids: tuple[int, int], now: datetime) -> Explanation:
    """Explain a grant from its record.

    Raises:
        UnknownGrant: there is no such grant.
    """
    book = read_book_by_id(db, ids[0])
    if book is None:
        raise UnknownGrant(f"there is no grant `{grant_id(*ids)}`")
    now = max(now, book.at)
    grant = load_grant(db, *ids)
    facts = record_facts(db, book.id, grant.seq)
    view = view_grant(db, book, grant, now)
    case, differs = _again(db, grant, facts)
    findings = tuple(Finding(*found) for found in facts["findings"])
    return Explanation(
        grant=view,
        attributes=view.attributes,
        engine=facts["engine"],
        engine_now=ENGINE,
        policy_version=grant.policy_version,
        consent=facts["consent"],
        paid_use=facts["paid_use"],
        timezones=_zones(facts["zones"]),
        numbers=() if case is None else tuple(_numbers(case, partial(value_of, db, book.id))),
        lots=tuple(LotRead(lot_id(book.id, number), left) for number, left in facts["lots"]),
        findings=findings,
        waterfall=tuple(_finding_words(case, found) for found in findings),
        same=not differs,
        differences=tuple(differs),
        ending=_ending(db, book, grant, now),
        recognised=tuple(
            Recognised(lot_id(book.id, number), int(revenue), currency or "")
            for number, currency, revenue in db.rows(
                _RECOGNISED, book_id=book.id, grant_no=grant.number
            )
        ),
    )


def _again(db: Db, grant: GrantFacts, facts: Mapping[str, Any]) -> tuple[Case | None, list[str]]:
    """Decide again, and say what differs."""

    def lot_of(number: int) -> Lot:
        lot = load_lot(db, grant.book_id, number)
        if lot is None:
            raise LookupError(f"lot {number} is not in the book")
        return lot

    case = None
    try:
        policy_set = stored(db, grant.policy_version)
        case = case_of(grant, facts, policy_set, partial(value_of, db, grant.book_id))
        decision = case.decide(readings_of(case, grant.book_id, lot_of))
        return case, [
            f"{what}: recorded {recorded}, now {found}"
            for what, recorded, found in differences(case, decision)
        ]
    except (ComptrollerError, LookupError, ValueError) as error:
        return case, [f"it cannot be decided again: {error}"]


def _ending(db: Db, book: BookState, grant: GrantFacts, now: datetime) -> HowItEnded | None:
    """Return how it ended, written or only due; None while it is open."""
    ended = load_ended(db, book.id, grant.number)
    if ended is None:
        for due in folded_dues(db, load_picture(db, book), now):
            if due.end is not None and due.end.grant.number == grant.number:
                cost = due.end.gpu_cost_micro_usd
                ended = Ended("expired", None, due.draft.at, sum(due.end.kept), cost, False)  # noqa: FBT003
    if ended is None:
        return None
    late = load_late(db, book.id, grant.number)
    return HowItEnded(
        status=ended.status,
        at=ended.at,
        reason=ended.reason,
        units_charged=ended.units_charged + (0 if late is None else late.units_charged),
        gpu_cost_micro_usd=(late or ended).gpu_cost_micro_usd,
        gpu_reported=(late or ended).gpu_reported,
        late=late is not None,
    )


def _numbers(case: Case, value: Callable[[str], str]) -> Iterator[NumberRead]:
    asked = case.rules.asked(case.request, case.circumstances)
    policies = _policies(case)
    for read, number in zip(case.reads, case.facts["numbers"], strict=False):
        names = tuple(name for name, policy in policies.items() if read in policy.reads(asked))
        yield NumberRead(names, _read_words(read, value), number)


def _policies(case: Case) -> dict[str, Policy]:
    rules = case.rules
    every: tuple[Policy, ...] = (
        *rules.limits_of(case.circumstances.spend_cap),
        *rules.sources,
    )
    return {policy.label: policy for policy in every}


def _read_words(read: Read, value: Callable[[str], str]) -> str:
    member = getattr(read, "member", None)
    whose = "" if member is None else f" of member {value(member) if member else '(none)'}"
    match read:
        case UsageRead():
            of = f"units of {', '.join(read.sources) or 'all sources'}"
            if read.measure == "spend":
                of = f"money in {read.currency} (minor units) of {', '.join(read.sources) or 'all'}"
            return f"{of} in the {read.window.kind} window of {read.window.length}{whose}"
        case OpenRead():
            return f"open grants{whose}"
        case RateRead():
            return f"theoretical arrival time of rate {read.policy}, in microseconds{whose}"
        case BudgetRead():
            return f"micro-USD that budget {read.budget} had spent on the day"


def _finding_words(case: Case | None, found: Finding) -> str:
    policy = None if case is None else _policies(case).get(found.policy)
    name = found.policy if policy is None else f"{found.policy} ({policy_words(policy)})"
    limit = "no limit" if found.limit is None else str(found.limit)
    why = "" if found.reason is None else f", {found.reason}"
    outcome = found.outcome.replace("_", " ")
    return f"{name}: {outcome}{why}; {found.used} of {limit} used, {found.asked} asked"


def _zones(zones: list[Any]) -> tuple[str, ...]:
    if not zones:
        return ("UTC",)
    first, *changes = zones
    return (first, *(f"{zone} asked for at {from_micros(at).isoformat()}" for at, zone in changes))


def _words(told: Explanation) -> Iterator[str]:
    grant = told.grant
    attributes = at_attributes(told.attributes)
    yield f"{grant.id}: {grant.operation} ({attributes}) for {grant.account} on {grant.plan}"
    yield f"granted {grant.at.isoformat()}, policy version {told.policy_version[:12]}"
    yield "what was read:"
    for number in told.numbers:
        yield f"  {', '.join(number.policies)}: {number.number} {number.what}"
    for lot in told.lots:
        yield f"  {lot.lot_id}: {lot.available} units available"
    yield "what was found:"
    yield from (f"  {words}" for words in told.waterfall)
    yield "what it took:"
    for part in grant.allocations:
        price = "" if part.currency is None else f" at {money(part.price_minor, part.currency)}"
        yield f"  {part.units} of {part.source} {part.lot_id or ''}{price}".rstrip()
    yield f"  GPU cost estimated {dollars(grant.gpu_cost_micro_usd)}"
    yield from _ending_words(told)
    if told.same:
        yield f"decided again by engine {told.engine_now}: the same"
    else:
        yield f"DECIDED AGAIN by engine {told.engine_now} (then {told.engine}): NOT THE SAME"
        yield from (f"  {difference}" for difference in told.differences)


def _ending_words(told: Explanation) -> Iterator[str]:
    ending = told.ending
    if ending is None:
        yield f"it is open until {told.grant.expires_at.isoformat()}"
        return
    why = "" if ending.reason is None else f" ({ending.reason})"
    how = "reported" if ending.gpu_reported else "not reported"
    late = ", reported late" if ending.late else ""
    yield (
        f"{ending.status}{why} {ending.at.isoformat()}{late}: {ending.units_charged} units "
        f"charged, GPU cost {dollars(ending.gpu_cost_micro_usd)} {how}"
    )
    for lot in told.recognised:
        yield f"  earned {money(lot.revenue_minor, lot.currency)} of {lot.lot_id}"
