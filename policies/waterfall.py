"""The decision: limits first, then the sources in order until the request is paid for. The only place where rules live.

Pure: one function from (request, rules, circumstances, state, now) to a decision. All or nothing: what is refused
takes nothing anywhere. A fraction of the request is what is still to be paid for; each source weighs it on its own
scale, so that a request can be divided between sources of different weights without a unit given twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from fractions import Fraction
from typing import Final, NamedTuple

from policies.decision import Allocation, Decision, Finding, Outcome, Reason
from policies.kinds.budget import Budget
from policies.policy import Asked, Cap, Check, Limit, Source
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
    return _Waterfall(rules, request, circumstances, state, now).decide()


class _Terms(NamedTuple):
    """On which terms sources may be used: with what paid use, and whether guards and spend limits are heeded.

    `given`: what sources before have given to the same request, which limits that guard several of them add up.
    """

    paid_units: int
    heed_stops: bool = True
    heed_spend: bool = True
    given: tuple[tuple[int, int], ...] = ()


class _Room(NamedTuple):
    """How many of the units asked for a source lets go, why no more, and whether the waterfall stops here."""

    units: int
    reason: str | None
    stop: bool


Gives = tuple[tuple[int, int], ...]
"""(index of the source, units) in order."""


class _Waterfall:
    __slots__ = (
        "_asked",
        "_checks",
        "guards",
        "now",
        "rules",
        "sources",
        "state",
        "unguarded",
        "weights",
    )

    def __init__(
        self,
        rules: Ruleset,
        request: Request,
        circumstances: Circumstances,
        state: State,
        now: datetime,
    ) -> None:
        weighed = rules.weigh(request.attributes)
        in_force = rules.in_force(circumstances.spend_cap)
        self.rules, self.state, self.now = rules, state, now
        self.sources, self.weights = rules.sources, weighed.units
        self.unguarded, self.guards = in_force
        self._asked = Asked(request, circumstances, 0, weighed.gpu_cost_micro_usd, rules.currency)
        self._checks: dict[tuple[str | None, int], Check] = {}

    def decide(self) -> Decision:
        asked = self._asked
        if asked.circumstances.frozen:
            frozen = Reason.ACCOUNT_FROZEN
            return Decision(
                frozen,
                (Finding(ACCOUNT, "refused", 0, None, 0, frozen),),
                (),
                asked.gpu_cost_micro_usd,
            )
        terms = _Terms(self._paid_units())
        gives = () if self.rules.operation.limits_only else self._cover(0, WHOLE, terms)
        asked = self._asking(self._total(gives))
        findings: list[Finding] = []
        held: list[tuple[Limit, Check]] = []
        reason: str | None = None
        for limit in self.unguarded:
            check = limit.check(asked, self.state, self.now)
            if check.rate is not None or isinstance(limit, Budget):
                held.append((limit, check))
            findings.append(_finding(limit, check))
            if not check.ok and reason is None:
                reason = limit.reason
        self._find_sources(findings, gives, terms)
        if gives is None:
            reason = reason or self._why_uncovered()
        if reason is not None or gives is None:
            return Decision(reason, tuple(findings), (), asked.gpu_cost_micro_usd)
        return self._grant(gives, findings, held)

    def _grant(
        self, gives: Gives, findings: list[Finding], held: list[tuple[Limit, Check]]
    ) -> Decision:
        """Say what is taken: units from sources, and what the limits that were consulted keep of it."""
        allocations: list[Allocation] = []
        for index, units in gives:
            asked = self._asking(units)
            allocations.extend(self.sources[index].allocate(asked, self.state, self.now))
            if self.guards[index]:
                held.extend((guard, self._check(guard, units)) for guard in self.guards[index])
        rates: dict[RateRead, tuple[RateRead, int]] = {}
        budgets: dict[BudgetRead, None] = {}
        for limit, check in held:
            if check.rate is not None:
                rates[check.rate[0]] = check.rate
            if isinstance(limit, Budget):
                budgets[limit.read] = None
        cost = self._asked.gpu_cost_micro_usd
        return Decision(
            None, tuple(findings), tuple(allocations), cost, tuple(rates.values()), tuple(budgets)
        )

    def _cover(self, index: int, fraction: Fraction, terms: _Terms) -> Gives | None:
        """Find who pays for `fraction` of the request from this source on; None: they cannot."""
        if fraction is not WHOLE and not fraction:
            return ()
        if index == len(self.sources):
            return None
        source, weight = self.sources[index], self.weights[index]
        need = weight if fraction is WHOLE else _ceil(weight * fraction)
        room = self._room(index, need, terms)
        if room.units >= need:
            return ((index, need),)
        if room.stop:
            return None
        if not source.split or room.units == 0:
            return self._cover(index + 1, fraction, terms)

        def rest(units: int) -> Gives | None:
            paid_units = terms.paid_units - units if source.paid else terms.paid_units
            left = terms._replace(paid_units=paid_units, given=(*terms.given, (index, units)))
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
        source = self.sources[index]
        check = self._check(source, need)
        units = need if check.ok else max(0, min(need, (check.limit or 0) - check.used))
        reason = source.exhausted if units < need else None
        if source.paid and terms.paid_units < units:
            units = max(0, terms.paid_units)
            reason = reason or self._not_permitted()
        stop = False
        for guard in self.guards[index]:
            before = self._given(guard, terms.given) if terms.given else 0
            if (not isinstance(guard, Cap) and not terms.heed_spend) or self._check(
                guard, before + need
            ).ok:
                continue
            denies = isinstance(guard, Cap) and guard.when_exhausted == "deny"
            stop = stop or (denies and self._stops(terms))
            reason = reason or guard.reason
            room = guard.room(self._asking(before + need), self.state, self.now) - before
            units = min(units, max(0, room))
        return _Room(units, reason, stop)

    def _given(self, guard: Limit, given: Iterable[tuple[int, int]]) -> int:
        """Return the units of these that are from sources which this limit guards."""
        return sum(units for index, units in given if guard in self.guards[index])

    def _check(self, policy: Limit | Source, units: int) -> Check:
        """Ask a policy about so many units, once."""
        key = (policy.name, units)
        check = self._checks.get(key)
        if check is None:
            check = self._checks[key] = policy.check(self._asking(units), self.state, self.now)
        return check

    def _asking(self, units: int) -> Asked:
        """Return the question about so many units."""
        asked = self._asked
        if asked.units != units:
            request, circumstances, _, cost, currency = asked
            asked = self._asked = Asked(request, circumstances, units, cost, currency)
        return asked

    def _stops(self, terms: _Terms) -> bool:
        return terms.heed_stops and not self._asked.request.consent

    def _paid_units(self) -> int:
        """How many units may be used from sources whose use is paid."""
        consent, paid_use = self._asked.request.consent, self._paid_use()
        if paid_use == "never":
            return 0
        if not isinstance(consent, bool):
            return consent
        return UNITS_MAX if consent or paid_use == "auto" else 0

    def _paid_use(self) -> str:
        return self._asked.circumstances.paid_use or self.rules.paid_use

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

    def _total(self, gives: Gives | None) -> int:
        """Return the units that limits over all sources are asked about."""
        if gives is None:
            return self.weights[0] if self.weights else 0
        return sum(units for _, units in gives)

    def _find_sources(self, findings: list[Finding], gives: Gives | None, terms: _Terms) -> None:
        """Say what each source found, and each limit that was consulted with it."""
        given = dict(gives or ())
        last = max(given, default=-1) if gives is not None else len(self.sources)
        for index, source in enumerate(self.sources):
            units = given.get(index)
            need = self.weights[index] if units is None else units
            check = self._check(source, need)
            reason, outcome = None, _GAVE
            if units is None:
                outcome = _NOT_NEEDED if index > last else _PASSED_OVER
                reason = None if index > last else self._room(index, need, terms).reason
            findings.append(
                Finding(
                    source.name or source.kind,
                    outcome,
                    check.used,
                    check.limit,
                    check.asked,
                    reason,
                )
            )
            if outcome is _NOT_NEEDED:
                continue
            for guard in self.guards[index]:
                findings.append(_finding(guard, self._check(guard, need)))  # noqa: PERF401 - no list to make


_GAVE: Final[Outcome] = "gave"
_PASSED_OVER: Final[Outcome] = "passed_over"
_NOT_NEEDED: Final[Outcome] = "not_needed"


def _finding(limit: Limit, check: Check) -> Finding:
    if check.ok:
        return Finding(
            limit.name or limit.kind, "passed", check.used, check.limit, check.asked, None
        )
    return Finding(
        limit.name or limit.kind, "refused", check.used, check.limit, check.asked, limit.reason
    )


def _ceil(value: Fraction) -> int:
    return -(-value.numerator // value.denominator)
