"""What a denial says besides no: the very first instant at which waiting helps, and what else would."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies import (
    Advice,
    Circumstances,
    History,
    OpenGrant,
    PolicySet,
    Price,
    SpendCap,
    Use,
    Zones,
    advise,
    decide,
)
from tests.policies.build import HOUR, MICRO, NOW, lot, policy_set

HORIZON = 80
"""Hours within which everything in these histories has happened."""


def advice(
    policies: PolicySet,
    history: History,
    *,
    attributes: dict[str, Any] | None = None,
    consent: bool | int = False,
    **circumstances: Any,
) -> Advice:
    request = policies.request("make", attributes, None, consent)
    rules = policies.rules("plan", "make")
    return advise(policies, rules, request, Circumstances("plan", **circumstances), history, NOW)


# --- retry_at -----------------------------------------------------------------------------------

hours = st.integers(-30, 0)


WINDOWS = st.sampled_from(
    [
        "per: 24h",
        "per: 9h",
        "per: 1d, window: calendar",
        "per: 1d, window: calendar, timezone: Asia/Tokyo",
    ]
)
SMALL = st.integers(1, 9)


@st.composite
def plans(draw: st.DrawFn) -> str:
    when = draw(st.sampled_from(["deny", "next_source"]))
    limits = [
        f"kind: rate, limit: 1, per: {draw(st.integers(1, 5))}h, burst: {draw(st.integers(1, 3))}",
        f"kind: concurrency, limit: {draw(st.integers(1, 3))}",
        f"kind: usage, units: {draw(SMALL)}, per: 5h",
        f"kind: usage, name: guard, units: {draw(SMALL)}, per: 7h, sources: [a], when_exhausted: {when}",
        f"kind: spend, limit: {draw(st.integers(40, 200))}, per: 6h",
    ]
    split = str(draw(st.booleans())).lower()
    sources = [f"kind: allowance, name: a, units: {draw(SMALL)}, split: {split}, {draw(WINDOWS)}"]
    more = [f"kind: allowance, name: b, units: {draw(SMALL)}, {draw(WINDOWS)}", "kind: credits"]
    sources += [each for each in more if draw(st.booleans())]
    held = [each for each in limits if draw(st.booleans())]
    paid_use = draw(st.sampled_from(["auto", "ask"]))
    lists = (", ".join(f"{{{each}}}" for each in policies) for policies in (held, sources))
    return "paid_use: {}\nlimits: [{}]\nsources: [{}]".format(paid_use, *lists)


@st.composite
def histories(draw: st.DrawFn, policies: PolicySet) -> History:
    names = [source.label for source in policies.plan("plan").sources]
    uses, grants = [], []
    paid: dict[str, Any]
    for _ in range(draw(st.integers(0, 8))):
        source = draw(st.sampled_from(names))
        units = draw(st.integers(1, 4))
        ends = NOW + draw(st.integers(1, 20)) * HOUR if draw(st.booleans()) else None
        paid = (
            {"lot_id": "lot", "spend_minor": 40 * units, "currency": "usd"}
            if source == "credits"
            else {}
        )
        uses.append(Use(source, NOW + draw(hours) * HOUR, units, returns_at=ends, **paid))
        if ends is not None:
            grants.append(OpenGrant(ends))
    lots = tuple(
        lot(name, draw(st.integers(0, 6)), number=number, expires_at=expires)
        for number, (name, expires) in enumerate(
            [("lot", None), ("short", NOW + draw(st.integers(1, 30)) * HOUR)], start=1
        )
        if draw(st.booleans())
    )
    rates: dict[tuple[str, str | None], tuple[int, int]] = {}
    rates["rate", None] = (draw(st.integers(-5, 15)) * HOUR // MICRO + _micros(NOW), 1)
    budgets = {("all", NOW.replace(hour=0)): draw(st.sampled_from([0, 9_500_000]))}
    return History(tuple(uses), tuple(grants), lots, rates, budgets)


def _micros(instant: datetime) -> int:
    return (instant - datetime.fromtimestamp(0, instant.tzinfo)) // MICRO


@st.composite
def cases(draw: st.DrawFn) -> tuple[PolicySet, History, Circumstances, bool | int]:
    weights = st.one_of(
        st.integers(1, 6).map(str),
        st.tuples(*[st.integers(1, 5)] * 3).map(
            lambda w: "{{a: {}, b: {}, credits: {}}}".format(*w)
        ),
    )
    plan = draw(plans())
    weight = draw(weights)
    for name in ("b", "credits"):
        if f"name: {name}" not in plan and f"kind: {name}" not in plan and weight.startswith("{"):
            weight = (
                "{" + ", ".join(w for w in weight[1:-1].split(", ") if not w.startswith(name)) + "}"
            )
    budget = draw(st.sampled_from(["", "budgets: {all: {usd_per_day: 10}}"]))
    policies = policy_set(plan, weight=weight, more=budget)
    zones = draw(
        st.sampled_from(
            [Zones(), Zones("America/New_York"), Zones("UTC", ((NOW - HOUR, "Asia/Tokyo"),))]
        )
    )
    cap = draw(st.sampled_from([None, SpendCap(200, "day")]))
    consent = draw(st.sampled_from([False, True, 2]))
    return policies, draw(histories(policies)), Circumstances("plan", zones, spend_cap=cap), consent


@given(cases())
@settings(max_examples=max(150, settings().max_examples))
def test_retry_at_is_the_first_instant_at_which_the_request_is_granted(case):
    policies, history, circumstances, consent = case
    request = policies.request("make", None, None, consent)
    rules = policies.rules("plan", "make")

    def granted(at: datetime) -> bool:
        return decide(request, rules, circumstances, history, at).granted

    if granted(NOW):
        return
    retry_at = advise(policies, rules, request, circumstances, history, NOW).retry_at
    # All that happens in these histories happens on the hour, so these instants are all that count.
    first = next((NOW + n * HOUR for n in range(1, HORIZON) if granted(NOW + n * HOUR)), None)
    assert retry_at == first
    if retry_at is not None:
        assert not granted(retry_at - MICRO)


def test_an_exhausted_rolling_allowance_returns_unit_by_unit():
    policies = policy_set("sources: [{kind: daily_allowance, units: 3}]", weight="2")
    uses = tuple(Use("daily_allowance", NOW - n * HOUR, 1) for n in (20, 10, 5))
    assert advice(policies, History(uses)).retry_at == NOW + 14 * HOUR


def test_a_request_that_never_fits_has_no_retry_at():
    policies = policy_set("sources: [{kind: daily_allowance, units: 3}]", weight="4")
    assert advice(policies, History()).retry_at is None


def test_a_rate_limit_says_the_very_microsecond():
    policies = policy_set(
        "limits: [{kind: rate, limit: 7, per: 1m, burst: 1}]\nsources: [{kind: daily_allowance, units: 9}]"
    )
    rules = policies.rules("plan", "make")
    request = policies.request("make", None, None, consent=False)
    first = decide(request, rules, Circumstances("plan"), History(), NOW)
    history = History(rates={("rate", None): (first.rates[0][1], first.rates[0][0].scale)})
    retry_at = advise(policies, rules, request, Circumstances("plan"), history, NOW).retry_at
    assert retry_at == NOW + timedelta(microseconds=8_571_429)
    assert not decide(request, rules, Circumstances("plan"), history, retry_at - MICRO).granted
    assert decide(request, rules, Circumstances("plan"), history, retry_at).granted


def test_a_frozen_account_gets_no_advice():
    policies = policy_set("sources: [{kind: daily_allowance, units: 3}]")
    assert advice(policies, History(), frozen=True) == Advice(None, ())


# --- offers -------------------------------------------------------------------------------------

PLAN = """
paid_use: ask
sources:
  - {kind: daily_allowance, units: 5}
  - {kind: credits}
"""
EXHAUSTED = (Use("daily_allowance", NOW - HOUR, 5),)


def offers(found: Advice) -> dict[str, Any]:
    return {offer.kind: offer for offer in found.offers}


def test_consent_is_offered_with_the_units_and_what_they_cost():
    policies = policy_set(PLAN, weight="3")
    found = offers(advice(policies, History(EXHAUSTED, all_lots=(lot(),))))
    assert (found["consent"].source, found["consent"].units) == ("credits", 3)
    assert found["consent"].price == Price(120, "usd")
    assert "buy" not in found
    assert found["wait"].at == NOW + 23 * HOUR


def test_a_pack_is_offered_as_often_as_the_request_takes():
    policies = policy_set(PLAN, weight="9")
    found = offers(advice(policies, History(EXHAUSTED, all_lots=(lot(available=2),))))
    assert (found["buy"].pack, found["buy"].quantity, found["buy"].units) == ("ten", 1, 10)
    assert found["buy"].price == Price(400, "usd")
    more = offers(advice(policy_set(PLAN, weight="25"), History(EXHAUSTED)))
    assert (more["buy"].quantity, more["buy"].units) == (3, 30)
    assert more["buy"].price == Price(1200, "usd")


def test_no_more_packs_are_offered_than_a_split_allowance_leaves_missing():
    plan = """
paid_use: ask
sources:
  - {kind: daily_allowance, units: 20, split: true}
  - {kind: credits}
"""
    found = offers(advice(policy_set(plan, weight="25"), History()))
    assert (found["buy"].quantity, found["buy"].units) == (1, 10)
    assert found["buy"].price == Price(400, "usd")


def test_no_pack_is_offered_where_it_would_not_help():
    plan = PLAN.replace("sources:", "limits: [{kind: concurrency, limit: 1}]\nsources:")
    blocked = History(EXHAUSTED, grants=(OpenGrant(NOW + HOUR),))
    assert set(offers(advice(policy_set(plan), blocked))) == {"wait"}
    free = policy_set("sources: [{kind: daily_allowance, units: 5}]")
    assert set(offers(advice(free, History(EXHAUSTED)))) == {"wait"}


def test_a_smaller_request_is_offered_the_largest_that_is_granted():
    policies = policy_set(PLAN, weight="{each: {size: 1}}")
    history = History((Use("daily_allowance", NOW - HOUR, 2),))
    found = offers(advice(policies, history, attributes={"size": 4}))
    assert (found["smaller"].attributes, found["smaller"].units) == ({"size": 3}, 3)


def test_a_plan_that_would_grant_it_now_is_offered_at_its_price():
    policies = PolicySet.parse(
        """
schema: 1
operations: {make: {gpu_cost: {usd: 1}}}
plans:
  plan: {sources: [{kind: daily_allowance, units: 5}]}
  pro: {price: {usd: 20.00, every: 1mo}, sources: [{kind: daily_allowance, units: 100}]}
  tiny: {price: {usd: 2.00, every: 1mo}, sources: [{kind: daily_allowance, units: 5}]}
  gift: {sources: [{kind: daily_allowance, units: 100}]}
default_plan: plan
"""
    )
    found = advice(policies, History(EXHAUSTED))
    upgrades = [(offer.plan, offer.price) for offer in found.offers if offer.kind == "upgrade"]
    assert upgrades == [("pro", Price(2000, "usd"))]


@given(cases())
def test_what_is_offered_would_be_granted(case):
    policies, history, circumstances, consent = case
    request = policies.request("make", None, None, consent)
    rules = policies.rules("plan", "make")
    if decide(request, rules, circumstances, history, NOW).granted:
        return
    for offer in advise(policies, rules, request, circumstances, history, NOW).offers:
        if offer.kind == "wait":
            assert offer.at is not None
            assert decide(request, rules, circumstances, history, offer.at).granted
        if offer.kind == "consent":
            willing = replace(request, consent=True)
            decision = decide(willing, rules, circumstances, history, NOW)
            assert decision.granted
            exact = replace(request, consent=offer.units or 0)
            assert decide(exact, rules, circumstances, history, NOW).granted or offer.units is None
        if offer.kind == "smaller":
            smaller = replace(request, attributes=offer.attributes or {})
            assert decide(smaller, rules, circumstances, history, NOW).granted


@pytest.mark.parametrize("weight", ["1", "7"])
def test_after_buying_what_is_offered_the_request_is_granted(weight):
    policies = policy_set(PLAN, weight=weight)
    history = History(EXHAUSTED)
    found = offers(advice(policies, history))["buy"]
    bought = replace(history, all_lots=(lot(available=found.units, units=found.units),))
    request = policies.request("make", None, None, consent=True)
    rules = policies.rules("plan", "make")
    assert decide(request, rules, Circumstances("plan"), bought, NOW).granted
