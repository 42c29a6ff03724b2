"""What a denial says besides no: when asking again will succeed, and what would get the request through now.

Both are found by deciding again, so that they are as exact as the decision is: at `retry_at` the same request is
granted if nothing else happens until then (open grants run into their expiry), and at no earlier instant.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Final

from policies.decision import Decision, Offer, Price
from policies.errors import InvalidRequest
from policies.kinds.allowance import Renewing
from policies.operation import Operation
from policies.policy import Asked, Limit, Source
from policies.request import AttributeValue, Circumstances, Request
from policies.state import History, LotView
from policies.units import div_ceil
from policies.waterfall import decide

if TYPE_CHECKING:
    from policies.policy_set import Pack, PolicySet
    from policies.rules import Ruleset

STEPS_MAX: Final = 500
"""How many instants are tried for `retry_at` before giving up on it."""

PACKS_MAX: Final = 200
"""How many packs are offered for one request at most: nobody buys more."""

SMALLER_MAX: Final = 24
"""How many smaller requests are tried for an offer."""


@dataclass(frozen=True, slots=True)
class Advice:
    """When waiting helps, and what else does."""

    retry_at: datetime | None
    offers: tuple[Offer, ...]


@dataclass(frozen=True, slots=True)
class _Case:
    """A denied request with all that it was decided from."""

    policy_set: PolicySet
    rules: Ruleset
    request: Request
    circumstances: Circumstances
    history: History
    now: datetime

    def granted(self, request: Request | None = None, history: History | None = None) -> bool:
        return self.decide(request, history).granted

    def decide(self, request: Request | None = None, history: History | None = None) -> Decision:
        asked = request or self.request
        return decide(asked, self.rules, self.circumstances, history or self.history, self.now)


def advise(
    policy_set: PolicySet,
    rules: Ruleset,
    request: Request,
    circumstances: Circumstances,
    history: History,
    now: datetime,
) -> Advice:
    """Find out what would help a request that was denied."""
    if circumstances.frozen:
        return Advice(None, ())
    case = _Case(policy_set, rules, request, circumstances, history, now)
    retry_at = _retry_at(case)
    offers = [Offer("wait", at=retry_at)] if retry_at is not None else []
    offers.extend(_consent(case))
    offers.extend(_buy(case))
    offers.extend(_smaller(case))
    offers.extend(_upgrade(case))
    return Advice(retry_at, tuple(offers))


def _retry_at(case: _Case) -> datetime | None:
    """Step from one instant at which some policy's answer may improve to the next, until the request is granted."""
    now = case.now
    for _ in range(STEPS_MAX):
        chances = [(policy, at) for policy, at in _chances(case, now) if at > now]
        if not chances:
            return None
        if len(chances) == 1 and isinstance(chances[0][0], Renewing):
            return _once_enough_has_left(case, chances[0][0], now)
        now = min(at for _, at in chances)
        if _granted_at(case, now):
            return now
    return None


def _once_enough_has_left(case: _Case, source: Renewing, now: datetime) -> datetime | None:
    """Find the instant where nothing but one window changes: the more has left it the better, so by bisection."""
    asked = case.rules.asked(case.request, case.circumstances)
    instants = case.history.leaving(source.usage_read(asked), now)
    first = bisect_left(instants, True, key=lambda at: _granted_at(case, at))  # noqa: FBT003 - what is sought
    return instants[first] if first < len(instants) else None


def _granted_at(case: _Case, at: datetime) -> bool:
    return decide(case.request, case.rules, case.circumstances, case.history, at).granted


def _chances(case: _Case, now: datetime) -> Iterator[tuple[Limit | Source, datetime]]:
    asked = case.rules.asked(case.request, case.circumstances)
    weights = [case.rules.units(source, case.request.attributes) for source in case.rules.sources]
    for limit in case.rules.limits_of(case.circumstances.spend_cap):
        # However the request is divided, it takes at least its least weight; of one source maybe a single unit.
        units = 0 if limit.is_guard else min(weights, default=0)
        at = limit.next_chance(_weighing(asked, units), case.history, now)
        if at is not None:
            yield limit, at
    divided = False
    for source in case.rules.sources:
        # Where a source before it may pay for a part, each unit that comes back may be the one that lacked.
        units = 1 if divided else case.rules.units(source, case.request.attributes)
        divided = divided or source.split
        at = source.next_chance(_weighing(asked, units), case.history, now)
        if at is not None:
            yield source, at


def _weighing(asked: Asked, units: int) -> Asked:
    return asked._replace(units=units)


def _consent(case: _Case) -> Iterator[Offer]:
    if case.request.consent is True:
        return
    decision = case.decide(replace(case.request, consent=True))
    paid = [allocation for allocation in decision.allocations if allocation.lot_id is not None]
    if decision.granted and paid:
        currencies = {allocation.currency for allocation in paid if allocation.price_minor}
        total = sum(allocation.price_minor for allocation in paid)
        price = Price(total, str(*currencies)) if len(currencies) == 1 else None
        yield Offer(
            "consent", source=paid[0].source, units=sum(part.units for part in paid), price=price
        )
    elif decision.granted:
        yield Offer(
            "consent", source=decision.allocations[0].source if decision.allocations else None
        )


def _buy(case: _Case) -> Iterator[Offer]:
    """Offer each pack that would get the request through, with as many of it as that takes."""
    credits_source = next((source for source in case.rules.sources if source.paid), None)
    if credits_source is None:
        return
    need = case.rules.units(credits_source, case.request.attributes)
    missing = need - sum(lot.available for lot in case.history.lots(case.now))
    if missing <= 0:
        return
    for name, pack in case.policy_set.packs.items():
        try:
            each = pack.price_in(case.policy_set.currency, case.policy_set.currency)
        except InvalidRequest:
            continue
        most = div_ceil(missing, pack.units)
        if most > PACKS_MAX or not _granted_with(case, pack, each, most):
            continue
        # Sources that may pay for a part lower what is missing, so that fewer packs may do.
        least = 1
        while least < most:
            quantity = (least + most) // 2
            if _granted_with(case, pack, each, quantity):
                most = quantity
            else:
                least = quantity + 1
        yield Offer(
            "buy",
            source=credits_source.label,
            units=pack.units * least,
            pack=name,
            quantity=least,
            price=Price(each.minor * least, each.currency),
        )


def _granted_with(case: _Case, pack: Pack, each: Price, quantity: int) -> bool:
    """Whether the request, with consent, is granted once so many of the pack are bought."""
    now = case.now
    expires_at = None if pack.valid_for is None else pack.valid_for.after(now)
    first = max((lot.number for lot in case.history.all_lots), default=0) + 1
    # As the purchases will make them: which lots are used first, and at what price, may decide.
    bought = tuple(
        LotView(
            f"offered_{number}",
            pack.units,
            each.minor,
            each.currency,
            pack.units,
            pack.priority,
            expires_at,
            now,
            number,
        )
        for number in range(first, first + quantity)
    )
    richer = replace(case.history, all_lots=(*case.history.all_lots, *bought))
    return case.granted(replace(case.request, consent=True), richer)


def _smaller(case: _Case) -> Iterator[Offer]:
    """Offer the heaviest request that differs in one attribute and would be granted."""
    operation = case.rules.operation
    heaviest_first = sorted(_lighter(case, operation), key=lambda pair: -pair[0])
    for units, attributes in heaviest_first[:SMALLER_MAX]:
        if case.granted(replace(case.request, attributes=attributes)):
            yield Offer("smaller", attributes=attributes, units=units)
            return


def _lighter(case: _Case, operation: Operation) -> Iterator[tuple[int, dict[str, AttributeValue]]]:
    if not case.rules.sources:
        return
    first = case.rules.sources[0]
    own = case.rules.units(first, case.request.attributes)
    for name, attribute in operation.attributes.items():
        for value in (attribute.values() or ())[:1000]:
            attributes = {**case.request.attributes, name: value}
            try:
                units = case.rules.units(first, attributes)
            except InvalidRequest:
                continue
            if units < own:
                yield units, attributes


def _upgrade(case: _Case) -> Iterator[Offer]:
    """Offer each plan that is sold and under which the request would be granted now."""
    for name in case.policy_set.plans:
        plan = case.policy_set.plan(name)
        if name == case.circumstances.plan or plan.price is None:
            continue
        rules = case.policy_set.rules(name, case.request.operation)
        circumstances = replace(case.circumstances, plan=name)
        if decide(case.request, rules, circumstances, case.history, case.now).granted:
            yield Offer("upgrade", plan=name, price=plan.price_in(case.policy_set.currency))
