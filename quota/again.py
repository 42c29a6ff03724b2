"""Deciding again: the state that a grant's record holds, put back together, and decided upon.

A record holds the numbers that each policy read, the lots, the account's settings, the policy
version. From them alone the waterfall must find the same again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from billing.entries import Entry
from billing.lots import Lot
from policies.decision import Decision, Finding
from policies.instants import from_micros, micros
from policies.policy_set import PolicySet
from policies.request import AttributeValue, Circumstances, Request, SpendCap
from policies.rules import Ruleset
from policies.state import LotView, Read, Readings
from policies.waterfall import decide
from policies.window import Zones
from quota.grant_rows import GrantFacts, allocation_from, allocation_text
from quota.load import tat_key, view_of

Difference = tuple[str, object, object]
"""(what, as recorded, as found now)."""


class Asking(NamedTuple):
    """What was asked under which rules, and all that these read."""

    request: Request
    rules: Ruleset
    circumstances: Circumstances
    reads: tuple[Read, ...]


class Case(NamedTuple):
    """A grant's record, with the request, the rules and the reads that it was decided on."""

    at: datetime
    facts: Mapping[str, Any]
    request: Request
    rules: Ruleset
    circumstances: Circumstances
    reads: tuple[Read, ...]

    def decide(self, readings: Readings) -> Decision:
        """Decide again.

        Raises:
            InvalidRequest: its weight or its GPU cost cannot be found for these attributes.
        """
        return decide(self.request, self.rules, self.circumstances, readings, self.at)


def grant_facts(book_id: int, entry: Entry) -> GrantFacts:
    """Return a grant as its record says it was made."""
    facts = entry.facts
    return GrantFacts(
        book_id=book_id,
        number=entry.grant_no or 0,
        seq=entry.seq,
        at=entry.at,
        plan=entry.plan,
        operation=entry.operation,
        member=entry.member,
        attributes=facts["attributes"],
        policy_version=facts["policy"],
        gpu_cost_micro_usd=facts["gpu_cost_micro_usd"],
        allocations=tuple(allocation_from(book_id, part) for part in facts["allocations"]),
    )


def case_of(
    grant: GrantFacts,
    facts: Mapping[str, Any],
    policy_set: PolicySet,
    text_of: Callable[[str], str],
) -> Case:
    """Put together what a grant was decided on. `text_of` knows the text behind a salted hash.

    Raises:
        InvalidRequest: the policy version has no such plan or operation.
    """
    told = circumstances_of(grant.plan, facts)
    return Case(grant.at, facts, *asking_of(grant, facts, policy_set, told, text_of))


def asking_of(
    grant: GrantFacts,
    facts: Mapping[str, Any],
    policy_set: PolicySet,
    told: Circumstances,
    text_of: Callable[[str], str],
) -> Asking:
    """Return what was asked. Grants that differ in their instant and in what was read alone have it in common.

    Raises:
        InvalidRequest: the policy version has no such plan or operation.
    """
    request = Request(
        grant.operation,
        attributes_from(grant.attributes, text_of),
        grant.member or None,
        facts["consent"],
    )
    rules = policy_set.rules(grant.plan, grant.operation)
    return Asking(request, rules, told, rules.reads(request, told))


def attributes_from(
    attributes: Mapping[str, Any], text_of: Callable[[str], str]
) -> dict[str, AttributeValue]:
    """Return attributes as the waterfall takes them; free text that was erased has a stand-in."""
    return {name: _attribute(value, text_of) for name, value in attributes.items()}


def circumstances_of(plan: str, facts: Mapping[str, Any]) -> Circumstances:
    """Return what the waterfall was told about the account."""
    cap = facts["spend_cap"]
    return Circumstances(
        plan,
        zones_of(facts["zones"]),
        facts["paid_use"],
        None if cap is None else SpendCap(*cap),
    )


def zones_of(recorded: list[Any]) -> Zones:
    """Return the zones that a record holds."""
    if not recorded:
        return Zones()
    first, *changes = recorded
    return Zones(first, tuple((from_micros(at), zone) for at, zone in changes))


def readings_of(case: Case, book_id: int, lot_of: Callable[[int], Lot]) -> Readings:
    """Return the numbers and the lots that the record says were read.

    Raises:
        ValueError: there are more or fewer numbers than its policies read.
        LookupError: a lot is not in the book.
    """
    numbers = dict(zip(case.reads, case.facts["numbers"], strict=True))
    lots = tuple(
        _with_available(view_of(book_id, lot_of(number)), available)
        for number, available in case.facts["lots"]
    )
    return Readings(numbers, lots)


def differences(case: Case, decision: Decision) -> Iterator[Difference]:
    """Say what was recorded otherwise than it is found now."""
    facts = case.facts
    if not decision.granted:
        yield "decision", "granted", f"denied: {decision.reason}"
        return
    if facts["findings"] != [*map(list, decision.findings)]:
        yield from _findings(facts["findings"], decision.findings)
    cost = decision.gpu_cost_micro_usd
    rates = [[tat_key(read.policy, read.member), tat, read.scale] for read, tat in decision.rates]
    charged = [
        [read.budget, micros(read.window.bounds(case.at)[0]), cost]
        for read in decision.budgets
        if cost
    ]
    for what, recorded_value, found_value in (
        ("allocations", facts["allocations"], allocation_text(decision.allocations)),
        ("estimated GPU cost in micro-USD", facts["gpu_cost_micro_usd"], cost),
        ("rate state", facts["rates"], rates),
        ("charges to budgets", [charge[:3] for charge in facts["budgets"]], charged),
    ):
        if recorded_value != found_value:
            yield what, recorded_value, found_value


def _findings(said: Iterable[Iterable[Any]], now: Sequence[Finding]) -> Iterator[Difference]:
    findings = tuple(Finding(*found) for found in said)
    for recorded, found in zip(findings, now, strict=False):
        if recorded != found:
            yield f"finding of {recorded.policy}", tuple(recorded), tuple(found)
    if len(findings) != len(now):
        yield "findings", len(findings), len(now)


def _attribute(value: Any, text_of: Callable[[str], str]) -> AttributeValue:
    if isinstance(value, dict):
        return Decimal(value["decimal"]) if "decimal" in value else text_of(value["hash"])
    return value if isinstance(value, (bool, int)) else str(value)


def _with_available(view: LotView, available: int) -> LotView:
    values = {name: getattr(view, name) for name in LotView.__slots__}
    return LotView(**{**values, "available": available})
