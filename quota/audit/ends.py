"""Checking how grants are renewed, how they end, and what is booked for them after that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any, Final

from billing import chart
from billing.draft import Draft, Line
from billing.entries import LINE_FIELDS, Entry
from billing.transfer import Transfer
from policies.decision import Allocation
from policies.instants import from_micros, micros
from policies.late import still_fits
from policies.policy_set import PolicySet
from policies.request import AttributeValue, Request
from policies.state import Readings, burn_order
from policies.units import gpu_micro_usd
from quota.again import attributes_from
from quota.audit.grants import derived
from quota.audit.state import HOLD, BookAudit, HowEnded
from quota.endings import End, delivered_units, draft_end, gpu_transfers
from quota.gpu_costs import gpu_lines
from quota.grant_rows import GrantFacts
from quota.ids import parse_lot_id
from quota.late import charge_now
from quota.load import view_of

_ATTRIBUTE: Final[Mapping[str, Callable[[str], AttributeValue]]] = {
    "integer": int,
    "decimal": Decimal,
    "boolean": lambda text: text == "True",
    "string": str,
}
_GPU: Final = LINE_FIELDS.index("gpu_micro_usd")


def check_renewal(book: BookAudit, entry: Entry) -> None:
    """Check that a grant was started, or its hold extended, while it was open."""
    number, until = entry.grant_no or 0, from_micros(entry.facts["expires_at"])
    hold = book.open.get(number)
    if hold is None:
        book.say(entry, f"grant {number}", "an open one", _state_of(book, number))
        return
    started_at, began = hold.started_at, entry.facts["started_at"]
    if entry.kind == "start":
        operation = book.policy_set(hold.grant.policy_version).operation(hold.grant.operation)
        least = operation.hold.running.after(entry.at)
        expected = least if started_at is None else max(hold.expires_at, least)
        book.same(entry, "expiry of the started grant", expected, until)
        started_at = started_at or entry.at
    elif until < max(hold.expires_at, entry.at):
        book.say(entry, "expiry of the extended hold", f"{hold.expires_at} or later", until)
    book.same(entry, "start", None if started_at is None else micros(started_at), began)
    hold.expires_at, hold.started_at = until, started_at
    book.expires(HOLD, number, until)
    book.same_draft(entry, of_grant(entry, hold.grant))


def check_end(book: BookAudit, entry: Entry) -> None:
    """Check that an open grant ended as its policy version says, and at its time if it expired."""
    number, facts = entry.grant_no or 0, entry.facts
    hold = book.open.get(number)
    if hold is None:
        book.say(entry, f"end of grant {number}", "of an open one", _state_of(book, number))
        return
    grant, policy_set = hold.grant, book.policy_set(hold.grant.policy_version)
    if entry.kind == "expired":
        at = hold.expires_at if book.ledger.at is None else max(hold.expires_at, book.ledger.at)
        book.same(entry, "instant of the expiry", at, entry.at)
        end = End.of_expiry(grant, charge=not hold.facts["returns"])
    else:
        end = _reported_end(book, entry, grant, policy_set)
    cost, kept = facts["gpu_cost_micro_usd"], tuple(facts["kept"])
    said = (cost, facts["gpu_reported"])
    ours = (end.kept, end.status, end.gpu_cost_micro_usd, end.gpu_reported)
    if ours != (kept, facts["status"], *said):
        book.same(entry, "units kept", list(end.kept), facts["kept"])
        book.same(entry, "status", entry.kind, facts["status"])
        book.same(entry, "GPU cost in micro-USD", (end.gpu_cost_micro_usd, end.gpu_reported), said)
        end = end._replace(kept=kept, gpu_cost_micro_usd=cost)  # the rest is to follow from it
    book.settings.lots = len(book.ledger.lots)
    book.same_draft(entry, draft_end(book.settings, grant, end, book.lots_of(grant), entry.at))
    # An expired grant's cost is not known: nothing more is debited until it is.
    _take_over(book, entry, grant, hold.facts, 0 if entry.kind == "expired" else cost)
    book.end(number, HowEnded(entry.kind, entry.seq, sum(facts["kept"])))


def check_attempt(book: BookAudit, entry: Entry) -> None:
    """Check what was booked for a crashed attempt."""
    grant, granted = book.grant(entry.grant_no or 0)
    facts = entry.facts
    cost = facts["gpu_cost_micro_usd"]
    priced = _priced(book.policy_set(grant.policy_version), grant, facts)
    book.same(entry, "GPU cost in micro-USD", cost if priced is None else priced, cost)
    draft = replace(
        of_grant(entry, grant),
        once=f"attempt:{grant.number}:{facts['attempt']}",
        transfers=tuple(gpu_transfers(chart.GPU_CRASHED, cost, grant.number)),
        lines=gpu_lines(grant, cost, 0),
    )
    book.same_draft(entry, draft)
    _take_over(book, entry, grant, granted, cost)


def check_late(book: BookAudit, entry: Entry) -> None:
    """Check what was booked for work that was reported after its grant had expired."""
    number = entry.grant_no or 0
    grant, granted = book.grant(number)
    book.same(entry, f"end of grant {number}", "expired", _state_of(book, number))
    if number in book.late:
        book.say(entry, "late report", "one", f"another, after record {book.late[number]}")
    book.late[number] = entry.seq
    cost, reported = entry.facts["gpu_cost_micro_usd"], entry.facts["gpu_reported"]
    transfers: list[Transfer] = []
    lines: list[Line] = []
    if reported:
        transfers += gpu_transfers(chart.GPU_UNREPORTED, -grant.gpu_cost_micro_usd, number)
        transfers += gpu_transfers(chart.GPU_LATE, cost, number)
        lines += gpu_lines(grant, cost, -grant.gpu_cost_micro_usd)
    charged = _charged(book, entry, grant)
    moves, charges = charge_now(number, charged, book.lots_of(grant), entry.at)
    draft = replace(
        of_grant(entry, grant),
        once=f"late:{number}",
        transfers=(*transfers, *moves),
        lines=(*lines, *charges),
    )
    book.same(entry, "units charged", [part.units for part in charged], entry.facts["charged"])
    book.same_draft(entry, draft)
    _take_over(book, entry, grant, granted, cost if reported else 0)


def _reported_end(book: BookAudit, entry: Entry, grant: GrantFacts, policy_set: PolicySet) -> End:
    """Return the end that its report and its policy version make of a settled or released grant."""
    facts, settled = entry.facts, entry.kind == "settled"
    rule = None if settled else policy_set.release_rule(facts["reason"] or "")
    priced = _priced(policy_set, grant, facts)
    cost = priced if priced is not None else facts["gpu_cost_micro_usd"]
    if "gpu_seconds" not in facts:
        cost = grant.gpu_cost_micro_usd
    return End(
        grant=grant,
        status="settled" if settled else "released",
        reason=facts["reason"],
        kept=_kept(book, entry, grant, policy_set),
        gpu_account=chart.GPU_DELIVERED if settled else chart.GPU_FAILED,
        gpu_cost_micro_usd=cost,
        gpu_reported="gpu_seconds" in facts,
        ours=rule is not None and rule.ours,
        grace=None if rule is None else rule.grace,
    )


def _kept(
    book: BookAudit, entry: Entry, grant: GrantFacts, policy_set: PolicySet
) -> tuple[int, ...]:
    every = tuple(part.units for part in grant.allocations)
    if entry.kind == "released":
        rule = policy_set.release_rule(entry.facts["reason"] or "")
        return every if rule.units == "charge" else tuple(0 for _ in every)
    if "delivered" not in entry.facts:
        return every
    declared = policy_set.operation(grant.operation).attributes
    delivered: dict[str, AttributeValue] = {
        name: _ATTRIBUTE[declared[name].type](text)
        for name, text in entry.facts["delivered"].items()
    }
    attributes = {**attributes_from(grant.attributes, book.text_of), **delivered}
    return delivered_units(grant, policy_set.rules(grant.plan, grant.operation), attributes)


def _priced(policy_set: PolicySet, grant: GrantFacts, facts: Mapping[str, Any]) -> int | None:
    """Return the GPU cost of a reported time, in micro-dollars; None: not stated, or not known here.

    A GPU that the grant's own policy version does not have was priced by the one in force then.
    """
    if "gpu_seconds" not in facts:
        return None
    model = policy_set.operation(grant.operation).gpu_cost
    name = facts["gpu"] or (None if model is None else model.gpu)
    if name not in policy_set.gpus:
        return None
    return gpu_micro_usd(Decimal(facts["gpu_seconds"]), policy_set.gpus[name].usd_per_hour)


def _charged(book: BookAudit, entry: Entry, grant: GrantFacts) -> tuple[Allocation, ...]:
    """Return what was charged late, after a check that it was still to be had."""
    charged = tuple(
        part._replace(units=line.units)
        for line in entry.lines
        if line.units
        for part in grant.allocations
        if (part.source, _number(part)) == (line.source, line.lot_no)
    )
    if not charged:
        return ()
    policy_set = book.policy_set(grant.policy_version)
    if policy_set.on_late_settle != "charge_if_available" or book.settings.frozen is not None:
        book.say(entry, "late units", "forgiven", sum(part.units for part in charged))
    ended = book.ended.get(grant.number)
    if ended is not None and ended.units_charged:
        book.say(entry, "late units", "none, they were charged at the expiry", charged)
    rules = policy_set.rules(grant.plan, grant.operation)
    attributes = attributes_from(grant.attributes, book.text_of)
    request = Request(grant.operation, attributes, grant.member, consent=True)
    circumstances = book.settings.circumstances(grant.plan)
    reads = rules.reads(request, circumstances)
    ledger = book.ledger
    views = (view_of(book.book_id, ledger.lots[number].lot) for number in ledger.available)
    state = Readings(
        {read: derived(book, read, entry.at) or 0 for read in reads},
        tuple(sorted(views, key=burn_order)),
    )
    if not still_fits(rules, request, circumstances, charged, state, entry.at):
        book.say(entry, "late units", "within every limit", [part.units for part in charged])
    return charged


def _take_over(
    book: BookAudit,
    entry: Entry,
    grant: GrantFacts,
    granted: Mapping[str, Any],
    more_micro_usd: int,
) -> None:
    """Check what a cost over the estimate debits to budgets, and take the record's lines over."""
    booked = book.booked[grant.number]
    over = booked + more_micro_usd - max(booked, grant.gpu_cost_micro_usd)
    budgets = book.policy_set(grant.policy_version).budgets
    expected = [
        [name, micros(budgets[name].read.window.bounds(entry.at)[0]), over]
        for name, *_ in granted["budgets"]
        if name in budgets and over > 0
    ]
    charged = entry.facts.get("budgets", [])
    book.same(entry, "overrun debited to budgets", expected, [charge[:3] for charge in charged])
    book.budgets.add(charged)
    for values in entry.line_values:
        book.booked[grant.number] += values[_GPU]
    book.take(entry)


def _state_of(book: BookAudit, number: int) -> str:
    if number in book.open:
        return "an open one"
    ended = book.ended.get(number)
    return "one that was never granted" if ended is None else ended.status


def _number(part: Allocation) -> int | None:
    return None if part.lot_id is None else parse_lot_id(part.lot_id)[1]


def of_grant(entry: Entry, grant: GrantFacts) -> Draft:
    return Draft(
        entry.kind,
        entry.at,
        entry.facts,
        grant_no=grant.number,
        plan=grant.plan,
        operation=grant.operation,
        member=grant.member,
    )
