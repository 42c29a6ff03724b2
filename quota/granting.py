"""Writing a grant: its record, its row, its hold, and what it takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from billing.book import canonical
from billing.books import BookState, save_book
from billing.draft import Draft, Line
from billing.lots import hold as hold_units
from billing.posting import post, remember
from billing.sql import Db, insert_into
from billing.transfer import Transfer
from policies.decision import Decision
from policies.instants import micros
from policies.operation import Attribute
from policies.request import AttributeValue
from policies.state import Readings
from policies.table import spelled
from quota.budgets import charge_budgets
from quota.case import Case, Look, request_hash_of
from quota.endings import split_cost
from quota.grant_rows import allocation_text
from quota.ids import parse_lot_id
from quota.load import tat_key
from quota.tables import GRANTS, HOLDS
from quota.version import ENGINE

_GRANT: Final = insert_into(GRANTS)


_HOLD: Final = insert_into(HOLDS)


@dataclass(frozen=True, slots=True)
class Granted:
    """A grant that was made now. `returns`: whether its expiry gives the units back."""

    book: BookState
    number: int
    decision: Decision
    attributes: Mapping[str, AttributeValue]
    plan: str
    at: datetime
    expires_at: datetime
    returns: bool


def write_grant(db: Db, book: BookState, looked: Look, readings: Readings) -> Granted:
    """Write a grant under the lock of its book: its record, its row, its hold, and what it takes."""
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
    request_hash = request_hash_of(book, ask, case.attributes)
    budgets = charge_budgets(db, case.policy_set, decision, now)
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
    remember(db, book, {key_hash: ask.key, **hashes})
    save_book(db, book)
    plan, returns = case.rules.plan, bool(facts["returns"])
    return Granted(book, number, decision, case.attributes, plan, now, expires_at, returns)


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


def _without_text(book: BookState, case: Case, hashes: dict[str, str]) -> dict[str, Any]:
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
