"""Reading one account without writing: grants, balances, and dues folded in."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from sqlalchemy import bindparam, select

from billing.books import BookState, read_book, read_book_by_id
from billing.sql import Db, Statement
from policies.decision import Finding
from policies.errors import UnknownGrant
from policies.instants import from_micros
from policies.policy_set import PolicySet
from policies.request import Circumstances, PaidUse, Request
from policies.rules import SPEND_CAP
from policies.state import History, LotView, UsageRead
from quota.dues import Due, draft_dues
from quota.grant_rows import GrantFacts, load_ended, load_grant
from quota.grants import Grant, Status
from quota.ids import grant_id
from quota.load import Picture, load_history, load_picture
from quota.lots_in_hand import LotsInHand
from quota.plan_dues import plan_at, plans_due
from quota.records import account_name, attributes_of, record_facts, value_of
from quota.tables import GRANTS, HOLDS

_HOLD: Final = Statement(
    select(HOLDS.c.expires_at, HOLDS.c.started_at).where(
        HOLDS.c.book_id == bindparam("book_id"), HOLDS.c.grant_no == bindparam("number")
    )
)
_NUMBERS: Final = Statement(
    select(GRANTS.c.number)
    .where(GRANTS.c.book_id == bindparam("book_id"), GRANTS.c.number < bindparam("before"))
    .order_by(GRANTS.c.number.desc())
    .limit(bindparam("most"))
)
_OPEN_NUMBERS: Final = Statement(
    select(HOLDS.c.grant_no)
    .where(HOLDS.c.book_id == bindparam("book_id"))
    .order_by(HOLDS.c.grant_no)
)


@dataclass(frozen=True, slots=True)
class AllowanceBalance:
    """A source's window now, in units. `next_return_at`: when the next unit comes back, if nothing else happens."""

    source: str
    limit: int
    used: int
    remaining: int
    next_return_at: datetime | None


@dataclass(frozen=True, slots=True)
class LotBalance:
    """A lot now. Units: available now and held by open grants. Money in minor units of `currency`."""

    id: str
    units: int
    available: int
    held: int
    price_minor: int
    currency: str
    expires_at: datetime | None
    origin: str
    reference: str


@dataclass(frozen=True, slots=True)
class Spend:
    """What the account's own cap allows now, in minor units; `cap_minor` None: no cap."""

    used_minor: int
    cap_minor: int | None
    per: str | None


@dataclass(frozen=True, slots=True)
class Balance:
    """What an account has now. `held`: units of open grants, from whatever source. `open_grants`: live ones."""

    account: str
    at: datetime
    plan: str
    paid_use: PaidUse
    frozen: bool
    timezone: str
    allowances: tuple[AllowanceBalance, ...]
    credits: int
    lots: tuple[LotBalance, ...]
    held: int
    open_grants: int
    spend: Spend


def grant_view(db: Db, ids: tuple[int, int], now: datetime, *, replayed: bool = False) -> Grant:
    """Return a grant as it stands at `now`, with what has fallen due folded in.

    Raises:
        UnknownGrant: there is none.
    """
    book = read_book_by_id(db, ids[0])
    if book is None:
        raise UnknownGrant(f"there is no grant `{grant_id(*ids)}`")
    return view_grant(db, book, load_grant(db, *ids), max(now, book.at), replayed=replayed)


def view_grant(
    db: Db, book: BookState, grant: GrantFacts, now: datetime, *, replayed: bool = False
) -> Grant:
    """Return a grant of a book as it stands at `now`."""
    facts = record_facts(db, book.id, grant.seq)
    hold = db.row(_HOLD, book_id=book.id, number=grant.number)
    expires_at = from_micros(facts["expires_at"]) if hold is None else hold[0]
    status: Status = "held"
    if hold is None:
        ended = load_ended(db, book.id, grant.number)
        status = "expired" if ended is None else ended.status
    elif expires_at <= now:
        status = "expired"
    return Grant(
        id=grant.id,
        account=account_name(db, book.id),
        operation=grant.operation,
        attributes=attributes_of(db, grant),
        at=grant.at,
        policy_version=grant.policy_version,
        findings=tuple(Finding(*found) for found in facts["findings"]),
        plan=grant.plan,
        member=value_of(db, book.id, grant.member) if grant.member else None,
        key=value_of(db, book.id, facts["key"]),
        allocations=grant.allocations,
        gpu_cost_micro_usd=grant.gpu_cost_micro_usd,
        expires_at=expires_at,
        status=status,
        live=status == "held",
        started_at=None if hold is None else hold[1],
        replayed=replayed,
    )


def grant_numbers(db: Db, book_id: int, *, open_only: bool, most: int, before: int) -> list[int]:
    """Return the numbers of a book's grants, the newest first, or of its open ones."""
    if open_only:
        return [int(row[0]) for row in db.rows(_OPEN_NUMBERS, book_id=book_id)]
    return [int(row[0]) for row in db.rows(_NUMBERS, book_id=book_id, before=before, most=most)]


def folded_dues(db: Db, picture: Picture, now: datetime) -> list[Due]:
    """Draft what is due on a book without writing it."""
    if not picture.has_dues(now):
        return []
    book = replace(picture.book)
    lots = LotsInHand(db, book.id, picture.lots)
    return list(
        draft_dues(
            book,
            picture.holds,
            lots,
            lambda number: load_grant(db, book.id, number),
            now,
            plans_due(db, book, now),
        )
    )


def balance(
    db: Db, policy_set: PolicySet, account: str, member: str | None, now: datetime
) -> Balance:
    """Return what an account has at `now`, with what has fallen due folded in."""
    book = read_book(db, account)
    picture = None if book is None else load_picture(db, book)
    now = now if book is None else max(now, book.at)
    plan = policy_set.plan_of_account(None if book is None else plan_at(db, book, now))
    member_ref = (
        None if member is None else (member if book is None else book.hashed("member", member))
    )
    reads, names, caps = _reads(policy_set, plan, book, member_ref)
    history = History() if picture is None else load_history(db, picture, (*reads, *caps), now)
    allowances = tuple(
        _allowance(name, limit, read, history, now)
        for (name, limit), read in zip(names, reads, strict=True)
    )
    views = history.lots(now)
    live = [] if picture is None else [hold for hold in picture.holds if now < hold.expires_at]
    held: Counter[str | None] = Counter()
    for hold in live:
        for part in load_grant(db, 0 if book is None else book.id, hold.grant_no).allocations:
            held[part.lot_id] += part.units
    spend = sum(history.read(read, now) for read in caps)
    default_paid_use = policy_set.plan(plan).paid_use
    return Balance(
        account=account,
        at=now,
        plan=plan,
        paid_use=(book.paid_use if book is not None else None) or default_paid_use,
        frozen=book is not None and book.frozen is not None,
        timezone="UTC" if book is None else book.zones.latest,
        allowances=allowances,
        credits=sum(view.available for view in views),
        lots=() if picture is None else tuple(_lot(picture, view, held[view.id]) for view in views),
        held=held.total(),
        open_grants=len(live),
        spend=Spend(
            spend,
            None if book is None else book.spend_cap_minor,
            None if book is None else book.spend_cap_per,
        ),
    )


def _reads(
    policy_set: PolicySet, plan: str, book: BookState | None, member_ref: str | None
) -> tuple[list[UsageRead], list[tuple[str, int]], list[UsageRead]]:
    """Return the windows of the plan's allowances with their names and limits, and those of the account's spend cap."""
    paying = (
        name for name, operation in policy_set.operations.items() if not operation.limits_only
    )
    operation = next(paying, next(iter(policy_set.operations)))
    rules = policy_set.rules(plan, operation)
    circumstances = Circumstances(plan) if book is None else book.circumstances(plan)
    asked = rules.asked_for_nothing(Request(operation, {}, member_ref), circumstances)
    reads, names = [], []
    for source in rules.sources:
        windows = [read for read in source.reads(asked) if isinstance(read, UsageRead)]
        limit = getattr(source, "units", None)
        if len(windows) == 1 and isinstance(limit, int):
            reads.append(windows[0])
            names.append((source.label, limit))
    own = [limit for limit in rules.limits_of(circumstances.spend_cap) if limit.label == SPEND_CAP]
    caps = [read for limit in own for read in limit.reads(asked) if isinstance(read, UsageRead)]
    return reads, names, caps


def _allowance(
    name: str, limit: int, read: UsageRead, history: History, now: datetime
) -> AllowanceBalance:
    used = history.read(read, now)
    return AllowanceBalance(name, limit, used, max(0, limit - used), history.next_return(read, now))


def _lot(picture: Picture, view: LotView, held: int) -> LotBalance:
    lot = next(lot for lot in picture.lots if lot.number == view.number)
    return LotBalance(
        id=view.id,
        units=lot.units,
        available=view.available,
        held=held,
        price_minor=lot.price_minor,
        currency=lot.currency,
        expires_at=lot.expires_at,
        origin=lot.origin,
        reference=lot.reference,
    )
