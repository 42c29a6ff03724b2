"""Checking a grant's record: what its policies read, what was decided, and what it takes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from billing.draft import Draft
from billing.entries import Entry
from policies.errors import ComptrollerError
from policies.instants import from_micros, micros
from policies.request import Circumstances
from policies.state import OpenRead, Read, UsageRead, burn_order
from quota.again import Case, differences, grant_facts, readings_of
from quota.audit.state import BookAudit, OpenHold
from quota.grant_rows import GrantFacts
from quota.granting import grant_lines, grant_transfers
from quota.load import view_of


def check_grant(book: BookAudit, entry: Entry) -> None:
    """Check a grant against the records before it, and open its hold."""
    facts, number = entry.facts, entry.grant_no or 0
    grant = grant_facts(book.book_id, entry)
    book.same(entry, "number of the grant", book.settings.grants + 1, number)
    book.settings.grants = max(book.settings.grants, number)
    if book.settings.frozen is not None:
        book.say(entry, "account", "frozen, so that nothing is granted", "a grant")
    told = book.told(entry.plan, facts)
    known = book.settings.circumstances(entry.plan)
    if known != told:
        book.same(entry, "time zones of the account", known.zones, told.zones)
        book.same(entry, "paid use of the account", known.paid_use, told.paid_use)
        book.same(entry, "spend cap of the account", known.spend_cap, told.spend_cap)
    book.needed[facts["key"]] = entry.seq
    if entry.member:
        book.needed[entry.member] = entry.seq
    for value in facts["attributes"].values():
        if isinstance(value, dict) and "hash" in value:
            book.needed[value["hash"]] = entry.seq
    try:
        _check_decision(book, entry, grant, told)
    except ComptrollerError as error:
        book.say(entry, "decision", "one that can be made again", error)
    book.grant_seq[number] = entry.seq
    book.hold(OpenHold(grant, facts, from_micros(facts["expires_at"])))
    book.budgets.add(facts["budgets"])
    book.take(entry)


def _check_decision(book: BookAudit, entry: Entry, grant: GrantFacts, told: Circumstances) -> None:
    """Check the numbers against earlier records, and decide again upon those that were recorded.

    Raises:
        InvalidRequest: the policy version has no such plan or operation, or cannot weigh it.
    """
    facts, policy_set = entry.facts, book.policy_set(grant.policy_version)
    case = Case(entry.at, facts, *book.asking(grant, facts, told))
    for what, expected, found in _read_otherwise(book, case):
        book.say(entry, what, expected, found)
    readings = readings_of(case, book.book_id, book.ledger.lot)
    decision = case.decide(readings)
    for what, recorded, now in differences(case, decision):
        book.say(entry, f"{what}, decided again (engine {facts['engine']})", now, recorded)
    operation = case.rules.operation
    expires_at = micros(operation.hold.queued.after(entry.at))
    book.same(entry, "expiry of the hold", expires_at, facts["expires_at"])
    book.same(entry, "units on expiry", policy_set.on_expire == "return_units", facts["returns"])
    if not decision.granted:
        return
    draft = Draft(
        "grant",
        entry.at,
        facts,
        once=f"grant:{grant.number}",
        grant_no=grant.number,
        plan=grant.plan,
        operation=grant.operation,
        member=grant.member,
        transfers=grant_transfers(decision, grant.number),
        lines=grant_lines(decision, entry.at),
    )
    book.same_draft(entry, draft)


def _read_otherwise(book: BookAudit, case: Case) -> Iterator[tuple[str, Any, Any]]:
    """Say what the record holds of windows, open grants and lots otherwise than earlier records.

    Rate state is excepted, it may be kept elsewhere; budgets are no part of a single book.
    """
    for read, recorded in zip(case.reads, case.facts["numbers"], strict=True):
        expected = derived(book, read, case.at)
        if expected is not None and expected != recorded:
            yield _read_name(read), expected, recorded
    ledger, recorded_lots = book.ledger, case.facts["lots"]
    if not ledger.available and recorded_lots == []:
        return
    views = (view_of(book.book_id, ledger.lots[number].lot) for number in ledger.available)
    available = sorted(views, key=burn_order)
    lots = [[view.number, view.available] for view in available]
    if lots != recorded_lots:
        yield "lots that were read", lots, recorded_lots


def derived(book: BookAudit, read: Read, now: datetime) -> int | None:
    """Return the number that a read must have found; None where the book's records cannot say."""
    if isinstance(read, UsageRead):
        return book.usage.read(read, now)
    if isinstance(read, OpenRead):
        return book.open_grants(read.member)
    return None


def _read_name(read: Read) -> str:
    if isinstance(read, UsageRead):
        of = ", ".join(read.sources) or "all sources"
        window = f"{read.window.kind} {read.window.length}"
        return f"{read.measure} of {of} in the {window} window that was read"
    return "open grants that were read"
