"""The decision: limits first, then the sources in order until the request is paid for. The only place where rules live.

Pure: one function from (request, rules, circumstances, state, now) to a decision. All or nothing: what is refused
takes nothing anywhere. A fraction of the request is what is still to be paid for; each source weighs it on its own
scale, so that a request can be divided between sources of different weights without a unit given twice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from fractions import Fraction
from typing import Final

from policies.decision import Allocation, Decision, Finding, Outcome, Reason
from policies.policy import Asked, Cap, Check, Limit
from policies.request import Circumstances, Request
from policies.rules import Ruleset
from policies.state import BudgetRead, RateRead, State
from policies.units import UNITS_MAX

ACCOUNT: Final = "account"
WHOLE: Final = Fraction(1)


def decide(
    request: Request, rules: Ruleset, circumstances: Circumstances, state: State, now: datetime
) -> Decision:
    """Decide one request.

    Raises:
        InvalidRequest: its weight or its GPU cost cannot be found for these attributes.
    """
    return _Waterfall(rules, rules.asked(request, circumstances), state, now).decide()


@dataclass(frozen=True, slots=True)
class _Terms:
    """On which terms sources may be used: with what paid use, and whether guards and spend limits are heeded."""

    paid_units: int
    heed_stops: bool = True
    heed_spend: bool = True


@dataclass(frozen=True, slots=True)
class _Room:
    """How many of the units asked for a source lets go, why no more, and whether the waterfall stops here."""

    units: int
    reason: str | None
    stop: bool


Gives = tuple[tuple[int, int], ...]
"""(index of the source, units) in order."""


class _Waterfall:
    def __init__(self, rules: Ruleset, asked: Asked, state: State, now: datetime) -> None:
        self.rules, self.asked, self.state, self.now = rules, asked, state, now
        self.sources = rules.sources
        self.weights = tuple(
            rules.units(source, asked.request.attributes) for source in rules.sources
        )
        limits = rules.limits_of(asked.circumstances)
        self.unguarded = tuple(limit for limit in limits if not limit.is_guard)
        self.guards = tuple(
            tuple(limit for limit in limits if limit.is_guard and limit.guards(source))
            for source in self.sources
        )

    def decide(self) -> Decision:
        asked = self.asked
        if asked.circumstances.frozen:
            finding = Finding(
                ACCOUNT, "refused", used=0, limit=None, asked=0, reason=Reason.ACCOUNT_FROZEN
            )
            return Decision(Reason.ACCOUNT_FROZEN, (finding,), (), asked.gpu_cost_micro_usd)
        terms = _Terms(paid_units=self._paid_units())
        gives = () if self.rules.operation.limits_only else self._cover(0, WHOLE, terms)
        units = sum(units for _, units in gives) if gives is not None else self._first_weight()
        checks = tuple(
            (limit, limit.check(_asking(asked, units), self.state, self.now))
            for limit in self.unguarded
        )
        refusing = next((limit.reason for limit, check in checks if not check.ok), None)
        reason = refusing or (self._why_uncovered() if gives is None else None)
        findings = (
            *(_finding(limit, check) for limit, check in checks),
            *self._source_findings(gives, terms),
        )
        if reason is not None or gives is None:
            return Decision(reason, findings, (), asked.gpu_cost_micro_usd)
        return self._grant(gives, findings)

    def _grant(self, gives: Gives, findings: tuple[Finding, ...]) -> Decision:
        allocations: list[Allocation] = []
        limits: dict[str, Limit] = {limit.label: limit for limit in self.unguarded}
        for index, units in gives:
            asked = _asking(self.asked, units)
            allocations.extend(self.sources[index].allocate(asked, self.state, self.now))
            limits.update({guard.label: guard for guard in self.guards[index]})
        rates: tuple[tuple[RateRead, int], ...] = tuple(
            rate
            for limit in limits.values()
            for rate in limit.admitted(self.asked, self.state, self.now)
        )
        budgets = tuple(
            read
            for limit in limits.values()
            for read in limit.reads(self.asked)
            if isinstance(read, BudgetRead)
        )
        return Decision(
            None, findings, tuple(allocations), self.asked.gpu_cost_micro_usd, rates, budgets
        )

    def _cover(self, index: int, fraction: Fraction, terms: _Terms) -> Gives | None:
        """Find who pays for `fraction` of the request from this source on; None: they cannot."""
        if fraction == 0:
            return ()
        if index == len(self.sources):
            return None
        source, weight = self.sources[index], self.weights[index]
        need = _ceil(weight * fraction)
        room = self._room(index, need, terms)
        if room.units >= need:
            return ((index, need),)
        if room.stop:
            return None
        if not source.split or room.units == 0:
            return self._cover(index + 1, fraction, terms)

        def rest(units: int) -> Gives | None:
            left = replace(terms, paid_units=terms.paid_units - units) if source.paid else terms
            return self._cover(index + 1, fraction - Fraction(units, weight), left)

        others = rest(room.units)
        if others is None:
            return None
        # It gives as many units as lower what the others must give, no more: the least with the same effect.
        least, most = 0, room.units
        while least < most:
            units = (least + most) // 2
            if rest(units) == others:
                most = units
            else:
                least = units + 1
        return (*(((index, least),) if least else ()), *others)

    def _room(self, index: int, need: int, terms: _Terms) -> _Room:
        """Ask a source, and then the limits that guard it, for `need` units."""
        source, asked = self.sources[index], _asking(self.asked, need)
        units = source.room(asked, self.state, self.now)
        reason = source.exhausted if units < need else None
        if source.paid and terms.paid_units < units:
            units = max(0, terms.paid_units)
            reason = reason or self._not_permitted()
        stop = False
        for guard in self.guards[index]:
            if source.paid and not isinstance(guard, Cap) and not terms.heed_spend:
                continue
            room = guard.room(asked, self.state, self.now)
            if room < need:
                stop = stop or (
                    isinstance(guard, Cap) and guard.when_exhausted == "deny" and self._stops(terms)
                )
                reason = reason or guard.reason
                units = min(units, room)
        return _Room(units, reason, stop)

    def _stops(self, terms: _Terms) -> bool:
        return terms.heed_stops and not self.asked.request.consent

    def _paid_units(self) -> int:
        """How many units may be used from sources whose use is paid."""
        consent, paid_use = self.asked.request.consent, self._paid_use()
        if paid_use == "never":
            return 0
        if not isinstance(consent, bool):
            return consent
        return UNITS_MAX if consent or paid_use == "auto" else 0

    def _paid_use(self) -> str:
        return self.asked.circumstances.paid_use or self.rules.paid_use

    def _not_permitted(self) -> Reason:
        return Reason.PAID_USE_OFF if self._paid_use() == "never" else Reason.CONSENT_NEEDED

    def _why_uncovered(self) -> str:
        """Where credits would cover the request, say what keeps them from it; else why the first source did not."""
        anyhow = _Terms(paid_units=UNITS_MAX, heed_stops=False, heed_spend=False)
        covered = self._cover(0, WHOLE, anyhow)
        if covered is not None and any(self.sources[index].paid for index, _ in covered):
            if self._paid_use() == "never":
                return Reason.PAID_USE_OFF
            permitted = self._cover(0, WHOLE, _Terms(self._paid_units(), heed_spend=False))
            return Reason.CONSENT_NEEDED if permitted is None else Reason.SPEND_EXCEEDED
        if not self.sources:
            return Reason.ALLOWANCE_EXHAUSTED
        first = self._room(0, self.weights[0], _Terms(self._paid_units()))
        return first.reason or self.sources[0].exhausted

    def _first_weight(self) -> int:
        return self.weights[0] if self.weights else 0

    def _source_findings(self, gives: Gives | None, terms: _Terms) -> list[Finding]:
        findings: list[Finding] = []
        given = dict(gives or ())
        last = max(given, default=-1) if gives is not None else len(self.sources)
        for index, source in enumerate(self.sources):
            need = given.get(index, self.weights[index])
            asked = _asking(self.asked, need)
            room = self._room(index, need, terms)
            reason = None if index in given or index > last else room.reason
            outcome: Outcome = (
                "gave" if index in given else "not_needed" if index > last else "passed_over"
            )
            check = source.check(asked, self.state, self.now)
            findings.append(
                Finding(source.label, outcome, check.used, check.limit, check.asked, reason)
            )
            if outcome != "not_needed":
                findings.extend(
                    _finding(guard, guard.check(asked, self.state, self.now))
                    for guard in self.guards[index]
                )
        return findings


def _finding(limit: Limit, check: Check) -> Finding:
    outcome: Outcome = "passed" if check.ok else "refused"
    return Finding(
        limit.label,
        outcome,
        check.used,
        check.limit,
        check.asked,
        None if check.ok else limit.reason,
    )


def _asking(asked: Asked, units: int) -> Asked:
    return Asked(
        asked.request, asked.circumstances, units, asked.gpu_cost_micro_usd, asked.currency
    )


def _ceil(value: Fraction) -> int:
    return -(-value.numerator // value.denominator)
