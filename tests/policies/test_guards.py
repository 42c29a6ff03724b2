"""Limits that guard sources, budgets and spend: what is exhausted, and what happens then."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from policies import History, Reason, SpendCap, Use
from tests.policies.build import HOUR, NOW, ask, lot, policy_set

BOTH = """
paid_use: auto
sources:
  - {kind: daily_allowance, units: 5}
  - {kind: credits}
"""


def used(units: int, source: str = "daily_allowance", **parameters: Any) -> Use:
    return Use(source, NOW - HOUR, units, **parameters)


def given(decision: Any) -> dict[str, int]:
    units: dict[str, int] = {}
    for allocation in decision.allocations:
        units[allocation.source] = units.get(allocation.source, 0) + allocation.units
    return units


def outcomes(decision: Any) -> dict[str, tuple[str, str | None]]:
    return {finding.policy: (finding.outcome, finding.reason) for finding in decision.findings}


EXHAUSTED = (used(5),)

# --- guards -------------------------------------------------------------------------------------


def guarded(when: str, paid_use: str = "auto") -> str:
    return f"""
paid_use: {paid_use}
limits:
  - {{kind: usage, units: 2, per: 5h, sources: [daily_allowance], when_exhausted: {when}}}
sources:
  - {{kind: daily_allowance, units: 5}}
  - {{kind: credits}}
"""


SHORT = History((used(2),), all_lots=(lot(),))


def test_a_guard_that_is_not_exhausted_lets_its_source_give():
    decision = ask(policy_set(guarded("deny")), History((used(1),), all_lots=(lot(),)))
    assert given(decision) == {"daily_allowance": 1}
    assert outcomes(decision)["usage"] == ("passed", None)


def test_an_exhausted_guard_denies_and_asks_for_consent_where_credits_would_cover_it():
    decision = ask(policy_set(guarded("deny")), SHORT)
    assert decision.reason == Reason.CONSENT_NEEDED
    assert outcomes(decision)["usage"] == ("refused", "usage_exceeded")
    assert outcomes(decision)["daily_allowance"] == ("passed_over", "usage_exceeded")


def test_with_consent_an_exhausted_guard_leaves_the_request_to_the_next_source():
    for consent in (True, 1):
        assert given(ask(policy_set(guarded("deny")), SHORT, consent=consent)) == {"credits": 1}


def test_an_exhausted_guard_without_credits_is_the_reason_itself():
    decision = ask(policy_set(guarded("deny")), replace(SHORT, all_lots=()))
    assert decision.reason == Reason.USAGE_EXCEEDED


def test_an_exhausted_guard_of_an_account_that_never_pays_says_so():
    decision = ask(policy_set(guarded("deny", "never")), SHORT, consent=True)
    assert decision.reason == Reason.PAID_USE_OFF


def test_a_guard_may_leave_the_request_to_the_next_source_unasked():
    policies = policy_set(guarded("next_source"))
    assert given(ask(policies, SHORT)) == {"credits": 1}
    assert ask(policies, SHORT, paid_use="ask").reason == Reason.CONSENT_NEEDED


def test_a_guard_counts_only_the_units_of_the_sources_that_it_names():
    policies = policy_set(guarded("deny"))
    history = History((used(9, "credits", lot_id="lot"),), all_lots=(lot(),))
    assert given(ask(policies, history)) == {"daily_allowance": 1}


BUDGET = "budgets: {free: {usd_per_day: 10, sources: [daily_allowance], when_exhausted: WHEN}}"


def spent(micro_usd: int, name: str = "free") -> History:
    midnight = NOW.replace(hour=0)
    return History(all_lots=(lot(),), budgets={(name, midnight): micro_usd})


@pytest.mark.parametrize(
    ("when", "spent_micro_usd", "gives"),
    [
        ("deny", 9_000_000, {"daily_allowance": 1}),
        ("deny", 9_000_001, {}),
        ("next_source", 9_000_001, {"credits": 1}),
    ],
)
def test_a_budget_guards_its_sources_up_to_its_last_micro_dollar(when, spent_micro_usd, gives):
    policies = policy_set(BOTH, more=BUDGET.replace("WHEN", when))
    decision = ask(policies, spent(spent_micro_usd))
    assert given(decision) == gives
    charged = [read.budget for read in decision.budgets]
    assert charged == (["free"] if gives == {"daily_allowance": 1} else [])


def test_a_budget_that_names_no_source_denies_even_with_consent():
    policies = policy_set(BOTH, more="budgets: {all: {usd_per_day: 10}}")
    for consent in (False, True, 5):
        decision = ask(policies, spent(9_500_000, "all"), consent=consent)
        assert decision.reason == Reason.BUDGET_EXHAUSTED
    granted = ask(policies, spent(9_000_000, "all"))
    assert [read.budget for read in granted.budgets] == ["all"]


def test_a_budget_is_not_charged_for_a_source_that_it_does_not_guard():
    policies = policy_set(BOTH, more=BUDGET.replace("WHEN", "deny"))
    history = replace(spent(0), uses=EXHAUSTED)
    decision = ask(policies, history)
    assert given(decision) == {"credits": 1}
    assert decision.budgets == ()


def test_yesterdays_spend_is_no_spend_of_today():
    policies = policy_set(BOTH, more="budgets: {all: {usd_per_day: 10}}")
    history = replace(spent(10_000_000, "all"))
    assert not ask(policies, history, now=NOW.replace(hour=23, minute=59)).granted
    assert ask(policies, history, now=NOW.replace(hour=0) + 24 * HOUR).granted


# --- spend --------------------------------------------------------------------------------------

SPEND = """
paid_use: auto
limits: [{kind: spend, limit: 100, per: 24h}]
sources:
  - {kind: daily_allowance, units: 5}
  - {kind: credits}
"""


def spent_money(minor: int) -> History:
    use = used(1, "credits", lot_id="x", spend_minor=minor, currency="usd")
    return History((*EXHAUSTED, use), all_lots=(lot(),))


@pytest.mark.parametrize(("minor", "granted"), [(0, True), (60, True), (61, False), (100, False)])
def test_money_is_spent_up_to_the_limit_and_no_cent_further(minor, granted):
    decision = ask(policy_set(SPEND), spent_money(minor))
    assert decision.granted is granted
    assert decision.reason == (None if granted else Reason.SPEND_EXCEEDED)


def test_a_spend_limit_is_not_consulted_while_the_free_units_last():
    decision = ask(policy_set(SPEND), replace(spent_money(100), uses=()))
    assert given(decision) == {"daily_allowance": 1}
    assert "spend" not in outcomes(decision)


def test_consent_does_not_lift_a_spend_limit():
    assert ask(policy_set(SPEND), spent_money(61), consent=True).reason == Reason.SPEND_EXCEEDED


def test_free_credits_cost_nothing_of_a_spend_limit():
    history = replace(spent_money(100), all_lots=(lot(price_minor=0),))
    assert given(ask(policy_set(SPEND), history)) == {"credits": 1}


def test_the_accounts_own_cap_holds_too():
    cap = SpendCap(39, "month")
    decision = ask(policy_set(BOTH), History(EXHAUSTED, all_lots=(lot(),)), spend_cap=cap)
    assert decision.reason == Reason.SPEND_EXCEEDED
    assert outcomes(decision)["spend_cap"] == ("refused", "spend_exceeded")
    enough = SpendCap(40, "month")
    assert ask(policy_set(BOTH), History(EXHAUSTED, all_lots=(lot(),)), spend_cap=enough).granted


def test_money_in_a_currency_without_a_limit_is_not_spent():
    history = replace(spent_money(0), all_lots=(lot(currency="eur"),))
    assert ask(policy_set(SPEND), history).reason == Reason.SPEND_EXCEEDED
