"""One admission: look at the account without a lock, and only if it would be granted, grant it under the lock.

A denial ends with the look: it takes no write lock. Under the lock the look's decision still stands if the book has not
moved, since everything that was read belongs to the book; otherwise what fell due is posted, and it is decided again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import bindparam, select

from billing.book import canonical
from billing.draft import Draft, Line
from billing.lots import hold as hold_units
from billing.posting import BookState, lock_book, open_book, post, read_book, remember, save_book
from billing.sql import Db, Statement, insert_into
from billing.transfer import Transfer
from policies.advice import Advice, advise
from policies.decision import Decision
from policies.errors import DeadlinePassed, IdempotencyConflict, InvalidRequest
from policies.instants import micros
from policies.operation import Attribute
from policies.policy_set import PolicySet
from policies.request import AttributeValue, Circumstances, Request
from policies.rules import Ruleset
from policies.state import BudgetRead, History, Read, Readings, State
from policies.table import spelled
from policies.waterfall import decide
from quota.ask import Ask
from quota.budgets import charge_budgets
from quota.dues import post_dues
from quota.endings import allocation_text, split_cost
from quota.ids import parse_lot_id
from quota.load import (
    Picture,
    empty_history,
    load_history,
    load_picture,
    load_readings,
    load_spent,
    tat_key,
)
from quota.tables import GRANTS, HOLDS
from quota.version import ENGINE
from quota.versions import stored

_BY_KEY: Final = Statement(
    select(GRANTS.c.number, GRANTS.c.request_hash, GRANTS.c.policy_version).where(
        GRANTS.c.book_id == bindparam("book_id"), GRANTS.c.key_hash == bindparam("key_hash")
    )
)
_GRANT: Final = insert_into(GRANTS)
_HOLD: Final = insert_into(HOLDS)


@dataclass(frozen=True, slots=True)
class Found:
    """A grant that was made before under the same key."""

    ids: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Granted:
    """A grant that was made now."""

    book: BookState
    number: int
    decision: Decision
    attributes: Mapping[str, AttributeValue]
    plan: str
    at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class _Case:
    """One request against one state of the account."""

    ask: Ask
    policy_set: PolicySet
    picture: Picture | None
    now: datetime
    rules: Ruleset
    request: Request
    circumstances: Circumstances
    attributes: Mapping[str, AttributeValue]
    reads: tuple[Read, ...]

    def decide(self, state: State) -> Decision:
        return decide(self.request, self.rules, self.circumstances, state, self.now)


@dataclass(frozen=True, slots=True)
class Look:
    """A decision on what was read without a lock, and the state that it rests on."""

    case: _Case
    decision: Decision
    state: State


def look(db: Db, policy_set: PolicySet, ask: Ask, now: datetime) -> Found | Look:
    """Decide over a snapshot, without taking or writing anything.

    Raises:
        InvalidRequest: the plan, the operation or an attribute is unknown or not allowed.
        IdempotencyConflict: the key was used for another request.
    """
    book = read_book(db, ask.account)
    found = _replayed(db, policy_set, ask, book)
    if found is not None:
        return found
    picture = None if book is None else load_picture(db, book)
    return _look_at(db, _case(policy_set, ask, picture, now))


def advice_for(db: Db, looked: Look) -> Advice:
    """Find out what would help a request that was refused."""
    case = looked.case
    history = _history(db, case, _all_reads(case))
    return advise(case.policy_set, case.rules, case.request, case.circumstances, history, case.now)


def admit(
    db: Db, policy_set: PolicySet, ask: Ask, now: datetime, looked: Look | None
) -> Found | Granted | Look:
    """Decide under the lock, and write the grant. What is refused here writes nothing.

    Raises:
        InvalidRequest: the plan, the operation or an attribute is unknown or not allowed.
        IdempotencyConflict: the key was used for another request.
        DeadlinePassed: `not_after` is past.
    """
    book = lock_book(db, ask.account)
    now = now if book is None else max(now, book.at)
    if looked is None or not _still_stands(db, looked, book, now):
        found = _replayed(db, policy_set, ask, book)
        if found is not None:
            return found
        picture = None if book is None else post_dues(db, book, now)
        looked = _look_at(db, _case(policy_set, ask, picture, now))
    if not looked.decision.granted:
        if book is not None:
            save_book(db, book)
        return looked
    if ask.not_after is not None and now > ask.not_after:
        raise DeadlinePassed(f"not_after {ask.not_after.isoformat()} is past: nothing was taken")
    if book is None:
        # Only now has the account a salt, and what its records say of the member is hashed with it.
        book = open_book(db, ask.account, now)
        case = _case(policy_set, ask, load_picture(db, book), now)
        state = _state(db, case)
        looked = Look(case, case.decide(state), state)
    if not isinstance(looked.state, Readings):
        raise TypeError("a grant is decided on numbers, after what was due has been posted")
    return _write(db, book, looked, looked.state)


def _still_stands(db: Db, looked: Look, book: BookState | None, now: datetime) -> bool:
    """Whether what was read without the lock is what would be read under it."""
    case = looked.case
    seen = None if case.picture is None else case.picture.book
    if (
        (seen is None) != (book is None)
        or not isinstance(looked.state, Readings)
        or case.now != now
    ):
        return False
    if (
        seen is not None
        and book is not None
        and (seen.id, seen.seq, seen.head) != (book.id, book.seq, book.head)
    ):
        return False
    # Budgets are shared by all books, so that a book's row does not vouch for them.
    budgets = [read for read in case.reads if isinstance(read, BudgetRead)]
    return all(load_spent(db, read, now) == looked.state.read(read, now) for read in budgets)


def _replayed(db: Db, policy_set: PolicySet, ask: Ask, book: BookState | None) -> Found | None:
    """Return the grant that this key has already brought, if there is one.

    Raises:
        IdempotencyConflict: it was brought by another request.
    """
    if book is None:
        return None
    row = db.row(_BY_KEY, book_id=book.id, key_hash=book.hashed("key", ask.key))
    if row is None:
        return None
    number, request_hash, version = row
    # The request is normalised as it was then: a default that changed since makes no other request of it.
    then = policy_set if version == policy_set.version else stored(db, version)
    try:
        attributes = then.request(ask.operation, ask.attributes, None, consent=False).attributes
    except InvalidRequest:
        attributes = None
    if attributes is None or _request_hash(book, ask, attributes) != request_hash:
        raise IdempotencyConflict(
            f"key `{ask.key}` was used for another request of this account: use a new key"
        )
    return Found((book.id, int(number)))


def find(db: Db, account: str, key: str) -> tuple[int, int] | None:
    """Return the book and number of the grant that a key has brought, if there is one."""
    book = read_book(db, account)
    row = (
        None if book is None else db.row(_BY_KEY, book_id=book.id, key_hash=book.hashed("key", key))
    )
    return None if book is None or row is None else (book.id, int(row[0]))


def _case(policy_set: PolicySet, ask: Ask, picture: Picture | None, now: datetime) -> _Case:
    book = None if picture is None else picture.book
    now = now if book is None else max(now, book.at)
    plan = ask.plan or (book.plan if book is not None else None) or policy_set.default_plan
    member = None
    if ask.member is not None:
        member = ask.member if book is None else book.hashed("member", ask.member)
    request = policy_set.request(ask.operation, ask.attributes, member, ask.consent)
    rules = policy_set.rules(plan, ask.operation)
    circumstances = Circumstances(plan) if book is None else book.circumstances(plan)
    reads = rules.reads(request, circumstances)
    attributes = request.attributes
    return _Case(ask, policy_set, picture, now, rules, request, circumstances, attributes, reads)


def _look_at(db: Db, case: _Case) -> Look:
    state = _state(db, case)
    return Look(case, case.decide(state), state)


def _state(db: Db, case: _Case) -> State:
    if case.picture is None:
        return Readings(
            {read: empty_history(db, [read], case.now).read(read, case.now) for read in case.reads}
        )
    if case.picture.has_dues(case.now):
        return _history(db, case, case.reads)
    return load_readings(db, case.picture, case.reads, case.now)


def _history(db: Db, case: _Case, reads: tuple[Read, ...]) -> History:
    return (
        empty_history(db, reads, case.now)
        if case.picture is None
        else load_history(db, case.picture, reads, case.now)
    )


def _all_reads(case: _Case) -> tuple[Read, ...]:
    """Return what the policies of every plan read: an upgrade is offered only if it would help."""
    reads: dict[Read, None] = {}
    for plan in case.policy_set.plans:
        rules = case.policy_set.rules(plan, case.request.operation)
        reads |= dict.fromkeys(rules.reads(case.request, replace(case.circumstances, plan=plan)))
    return tuple(reads)


def _write(db: Db, book: BookState, looked: Look, readings: Readings) -> Granted:
    case, decision, ask, now = looked.case, looked.decision, looked.case.ask, looked.case.now
    book.grants += 1
    number = book.grants
    hold = case.rules.operation.hold.queued
    expires_at = hold.after(now)
    member = "" if ask.member is None else book.hashed("member", ask.member)
    key_hash = book.hashed("key", ask.key)
    hashes: dict[str, str] = {}
    if ask.member is not None:
        hashes[member] = ask.member
    attributes = _without_text(book, case, hashes)
    request_hash = _request_hash(book, ask, case.attributes)
    budgets = charge_budgets(db, decision, now)
    facts = _facts(book, looked, readings, expires_at, attributes, request_hash, budgets)
    draft = Draft(
        "grant",
        now,
        facts,
        once=f"grant:{number}",
        grant_no=number,
        plan=case.rules.plan,
        operation=ask.operation,
        member=member,
        transfers=grant_transfers(decision, number),
        lines=grant_lines(decision, now),
    )
    _keep_rates(book, decision, now)
    seq = post(db, book, draft, now)
    db.run(
        _GRANT,
        book_id=book.id,
        number=number,
        seq=seq,
        key_hash=key_hash,
        request_hash=request_hash,
        at=now,
        plan=case.rules.plan,
        operation=ask.operation,
        attributes=canonical(attributes).decode(),
        member=member,
        policy_version=case.policy_set.version,
        gpu_cost_micro_usd=decision.gpu_cost_micro_usd,
        allocations=canonical(facts["allocations"]).decode(),
    )
    db.run(
        _HOLD,
        book_id=book.id,
        grant_no=number,
        granted_at=now,
        expires_at=expires_at,
        started_at=None,
        returns=int(facts["returns"]),
        member=member,
    )
    remember(db, book, key_hash, ask.key, new=True)
    for hashed, value in hashes.items():
        remember(db, book, hashed, value)
    save_book(db, book)
    return Granted(book, number, decision, case.attributes, case.rules.plan, now, expires_at)


def _facts(
    book: BookState,
    looked: Look,
    readings: Readings,
    expires_at: datetime,
    attributes: Mapping[str, Any],
    request_hash: str,
    budgets: list[list[Any]],
) -> dict[str, Any]:
    """Return what the grant's record says: what was asked, what each policy read, and what was decided."""
    case, decision = looked.case, looked.decision
    spend_cap = case.circumstances.spend_cap
    return {
        "key": book.hashed("key", case.ask.key),
        "request": request_hash,
        "attributes": attributes,
        "consent": case.request.consent,
        "policy": case.policy_set.version,
        "engine": ENGINE,
        "paid_use": case.circumstances.paid_use,
        "spend_cap": None if spend_cap is None else [spend_cap.minor, spend_cap.per],
        "zones": [
            case.circumstances.zones.first,
            *([micros(at), zone] for at, zone in case.circumstances.zones.changes),
        ],
        "numbers": [readings.numbers[read] for read in case.reads],
        "lots": [[lot.number, lot.available] for lot in readings.open_lots],
        "findings": [
            [found.policy, found.outcome, found.used, found.limit, found.asked, found.reason]
            for found in decision.findings
        ],
        "allocations": allocation_text(decision.allocations),
        "gpu_cost_micro_usd": decision.gpu_cost_micro_usd,
        "expires_at": micros(expires_at),
        "returns": case.policy_set.on_expire == "return_units",
        "rates": [
            [tat_key(read.policy, read.member), tat, read.scale] for read, tat in decision.rates
        ],
        "budgets": budgets,
    }


def grant_transfers(decision: Decision, number: int) -> tuple[Transfer, ...]:
    """Return the transfers of a grant: units of lots are set aside."""
    return tuple(
        hold_units(parse_lot_id(part.lot_id)[1], part.units, number)
        for part in decision.allocations
        if part.lot_id is not None
    )


def grant_lines(decision: Decision, now: datetime) -> tuple[Line, ...]:
    """Return what a grant's record says in lines: each allocation with its share of the estimate."""
    if not decision.allocations:
        return (Line(gpu_estimated_micro_usd=decision.gpu_cost_micro_usd),)
    shares = split_cost(decision.gpu_cost_micro_usd, [part.units for part in decision.allocations])
    return tuple(
        Line(
            source=part.source,
            lot_no=None if part.lot_id is None else parse_lot_id(part.lot_id)[1],
            units=part.units,
            lot_units=0 if part.lot_id is None else -part.units,
            counts_at=now,
            spend_minor=part.price_minor,
            currency=part.currency,
            gpu_estimated_micro_usd=share,
        )
        for part, share in zip(decision.allocations, shares, strict=True)
    )


def _keep_rates(book: BookState, decision: Decision, now: datetime) -> None:
    """Store the new arrival times, and forget those that are past: they limit nothing any more."""
    if not decision.rates:
        return
    at = micros(now)
    book.tats = {key: (tat, scale) for key, (tat, scale) in book.tats.items() if tat > at * scale}
    for read, tat in decision.rates:
        book.tats[tat_key(read.policy, read.member)] = (tat, read.scale)


def _without_text(book: BookState, case: _Case, hashes: dict[str, str]) -> dict[str, Any]:
    """Return the attributes as hashed bytes may hold them: free text is replaced by its salted hash."""
    declared = case.policy_set.operation(case.ask.operation).attributes
    shown: dict[str, Any] = {}
    for attribute, value in case.attributes.items():
        if isinstance(value, str) and declared.get(attribute, _FREE_TEXT).is_free_text:
            hashed = book.hashed("text", value)
            hashes[hashed] = value
            shown[attribute] = {"hash": hashed}
        else:
            shown[attribute] = (
                value if isinstance(value, (bool, int, str)) else {"decimal": spelled(value)}
            )
    return shown


_FREE_TEXT: Final = Attribute(type="string")


def _request_hash(book: BookState, ask: Ask, attributes: Mapping[str, AttributeValue]) -> str:
    content = [
        ask.member,
        ask.operation,
        {name: spelled(value) for name, value in attributes.items()},
    ]
    return book.hashed("request", json.dumps(content, sort_keys=True, ensure_ascii=False))
