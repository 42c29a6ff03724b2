"""The decision: limits first, then the sources in order until the request is paid for."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from policies import History, OpenGrant, Reason, SpendCap, Use
from tests.policies.build import HOUR, NOW, ask, lot, policy_set

ALLOWANCE = """
sources:
  - {kind: daily_allowance, units: 5}
"""
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


# --- sources in order ---------------------------------------------------------------------------


def test_a_request_is_granted_from_the_first_source_that_covers_it():
    decision = ask(policy_set(BOTH), History(all_lots=(lot(),)))
    assert decision.granted
    assert given(decision) == {"daily_allowance": 1}
    assert outcomes(decision) == {
        "daily_allowance": ("gave", None),
        "credits": ("not_needed", None),
    }
    assert decision.gpu_cost_micro_usd == 1_000_000


def test_a_source_that_cannot_cover_the_whole_request_is_passed_over():
    policies = policy_set(BOTH, weight="3")
    decision = ask(policies, History((used(3),), all_lots=(lot(),)))
    assert given(decision) == {"credits": 3}
    assert outcomes(decision)["daily_allowance"] == ("passed_over", "allowance_exhausted")
    found = {finding.policy: finding for finding in decision.findings}
    assert (found["daily_allowance"].used, found["daily_allowance"].limit) == (3, 5)
    assert found["daily_allowance"].asked == 3


def test_each_source_weighs_the_request_on_its_own_scale():
    policies = policy_set(BOTH, weight="{daily_allowance: 4, credits: 3}")
    assert given(ask(policies)) == {"daily_allowance": 4}
    history = History((used(2),), all_lots=(lot(),))
    assert given(ask(policies, history)) == {"credits": 3}


def test_what_is_refused_takes_nothing_anywhere():
    plan = "limits: [{kind: rate, limit: 9, per: 1m}]" + BOTH
    policies = policy_set(plan, weight="9", more="budgets: {all: {usd_per_day: 100}}")
    decision = ask(policies, History(all_lots=(lot(available=8),)))
    assert not decision.granted
    assert (decision.allocations, decision.rates, decision.budgets) == ((), (), ())
    assert decision.reason == Reason.ALLOWANCE_EXHAUSTED
    assert outcomes(decision)["credits"] == ("passed_over", "credits_exhausted")


def test_the_reason_of_a_plan_with_credits_alone_is_that_they_are_exhausted():
    policies = policy_set("paid_use: auto\nsources: [{kind: credits}]")
    assert ask(policies).reason == Reason.CREDITS_EXHAUSTED


def test_units_come_from_lots_in_burn_order_at_their_own_price():
    lots = (
        lot("old", 2, number=1, created_at=NOW - 90 * HOUR),
        lot("soon", 1, number=2, expires_at=NOW + HOUR, price_minor=333),
        lot("first", 1, number=3, priority=-1, price_minor=0),
    )
    policies = policy_set("paid_use: auto\nsources: [{kind: credits}]", weight="3")
    decision = ask(policies, History(all_lots=lots))
    parts = [(part.lot_id, part.units, part.price_minor) for part in decision.allocations]
    assert parts == [("first", 1, 0), ("soon", 1, 34), ("old", 1, 40)]


# --- splitting ----------------------------------------------------------------------------------

SPLIT = """
paid_use: auto
sources:
  - {kind: daily_allowance, units: 5, split: true}
  - {kind: credits}
"""


def test_a_source_that_splits_gives_what_it_has_and_the_next_one_the_rest():
    policies = policy_set(SPLIT, weight="4")
    decision = ask(policies, History((used(3),), all_lots=(lot(),)))
    assert given(decision) == {"daily_allowance": 2, "credits": 2}


def test_a_source_that_splits_gives_no_unit_that_would_lower_nothing():
    # 4 units of the allowance or 2 credits: one unit alone would not save a credit.
    policies = policy_set(SPLIT, weight="{daily_allowance: 4, credits: 2}")
    expected = {
        1: {"credits": 2},
        2: {"daily_allowance": 2, "credits": 1},
        3: {"daily_allowance": 2, "credits": 1},
        4: {"daily_allowance": 4},
    }
    for left, gives in expected.items():
        decision = ask(policies, History((used(5 - left),), all_lots=(lot(),)))
        assert given(decision) == gives, left


def test_a_split_that_the_next_source_cannot_complete_takes_nothing():
    policies = policy_set(SPLIT, weight="4")
    decision = ask(policies, History((used(3),), all_lots=(lot(available=1),)))
    assert not decision.granted
    assert decision.allocations == ()


# --- paid use and consent -----------------------------------------------------------------------

EXHAUSTED = (used(5),)


@pytest.mark.parametrize(
    ("paid_use", "consent", "reason"),
    [
        ("auto", False, None),
        ("auto", True, None),
        ("ask", False, Reason.CONSENT_NEEDED),
        ("ask", True, None),
        ("never", False, Reason.PAID_USE_OFF),
        ("never", True, Reason.PAID_USE_OFF),
        ("never", 9, Reason.PAID_USE_OFF),
        ("ask", 3, None),
        ("ask", 4, None),
        ("ask", 2, Reason.CONSENT_NEEDED),
        ("ask", 0, Reason.CONSENT_NEEDED),
        ("auto", 2, Reason.CONSENT_NEEDED),
        ("auto", 0, Reason.CONSENT_NEEDED),
    ],
)
def test_paid_use_and_consent_decide_whether_credits_are_used(paid_use, consent, reason):
    policies = policy_set(BOTH.replace("auto", paid_use), weight="3")
    history = History(EXHAUSTED, all_lots=(lot(),))
    decision = ask(policies, history, consent=consent)
    assert decision.reason == reason
    assert given(decision) == ({} if reason else {"credits": 3})


@pytest.mark.parametrize("own", ["auto", "ask", "never"])
@pytest.mark.parametrize("plans", ["auto", "ask", "never"])
def test_the_accounts_own_setting_beats_the_plans(own, plans):
    history = History(EXHAUSTED, all_lots=(lot(),))
    decision = ask(policy_set(BOTH.replace("auto", plans)), history, paid_use=own)
    wanted = {"auto": None, "ask": Reason.CONSENT_NEEDED, "never": Reason.PAID_USE_OFF}
    assert decision.reason == wanted[own]


def test_without_credits_that_would_cover_it_nobody_is_asked_for_consent():
    policies = policy_set(BOTH.replace("auto", "ask"), weight="3")
    decision = ask(policies, History(EXHAUSTED, all_lots=(lot(available=2),)))
    assert decision.reason == Reason.ALLOWANCE_EXHAUSTED


def test_consent_to_some_units_is_used_together_with_a_split_allowance():
    policies = policy_set(SPLIT.replace("auto", "ask"), weight="4")
    history = History((used(3),), all_lots=(lot(),))
    assert given(ask(policies, history, consent=2)) == {"daily_allowance": 2, "credits": 2}
    assert ask(policies, history, consent=1).reason == Reason.CONSENT_NEEDED


# --- limits -------------------------------------------------------------------------------------


def test_every_limit_is_consulted_and_the_first_that_refused_gives_the_reason():
    plan = """
limits:
  - {kind: usage, units: 3, per: 1h}
  - {kind: concurrency, limit: 1}
  - {kind: rate, limit: 1, per: 1h}
sources: [{kind: daily_allowance, units: 5}]
"""
    history = History((), grants=(OpenGrant(NOW + HOUR),))
    decision = ask(policy_set(plan), history)
    assert decision.reason == Reason.CONCURRENCY_EXCEEDED
    assert outcomes(decision) == {
        "usage": ("passed", None),
        "concurrency": ("refused", "concurrency_exceeded"),
        "rate": ("passed", None),
        "daily_allowance": ("gave", None),
    }
    assert (decision.allocations, decision.rates) == ((), ())


def test_a_limit_beats_an_exhausted_source_as_the_reason():
    plan = "limits: [{kind: concurrency, limit: 1}]" + ALLOWANCE
    history = History(EXHAUSTED, grants=(OpenGrant(NOW + HOUR),))
    assert ask(policy_set(plan), history).reason == Reason.CONCURRENCY_EXCEEDED


def test_limits_of_one_kind_hold_together_and_are_told_apart():
    plan = """
limits:
  - {kind: usage, units: 5, per: 5h}
  - {kind: usage, units: 30, per: 7d}
sources: [{kind: daily_allowance, units: 100}]
"""
    policies = policy_set(plan)
    short = History(tuple(replace(used(1), at=NOW - timedelta(minutes=n)) for n in range(5)))
    assert outcomes(ask(policies, short))["usage"] == ("refused", "usage_exceeded")
    assert outcomes(ask(policies, short))["usage_2"] == ("passed", None)
    older = (replace(used(1), at=NOW - 6 * n * HOUR) for n in range(1, 28))
    weekly = History((*older, used(3)))
    decision = ask(policies, weekly)
    assert outcomes(decision)["usage"] == ("passed", None)
    assert outcomes(decision)["usage_2"] == ("refused", "usage_exceeded")


def test_an_operation_with_limits_only_takes_no_units_and_costs_nothing():
    plan = "limits: [{kind: rate, limit: 1, per: 1h}]" + ALLOWANCE
    policies = policy_set(plan, more="budgets: {all: {usd_per_day: 1}}")
    text = policies.canonical.replace(
        '"gpu_cost":{"gpu":"h100","gpu_seconds":"1000"}', '"limits_only":true'
    )
    free = type(policies).from_canonical(text)
    decision = ask(free, History(EXHAUSTED))
    assert decision.granted
    assert (decision.allocations, decision.budgets, decision.gpu_cost_micro_usd) == ((), (), 0)
    assert list(outcomes(decision)) == ["rate"]
    assert len(decision.rates) == 1


def test_a_frozen_account_is_refused_before_anything_is_read():
    decision = ask(policy_set(BOTH), frozen=True)
    assert decision.reason == Reason.ACCOUNT_FROZEN
    assert outcomes(decision) == {"account": ("refused", "account_frozen")}


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


# --- scopes -------------------------------------------------------------------------------------


def test_a_member_has_an_allowance_and_limits_of_their_own():
    plan = """
limits: [{kind: concurrency, limit: 1, scope: member}]
sources: [{kind: daily_allowance, units: 5, scope: member}]
"""
    policies = policy_set(plan)
    history = History((used(5, member="ann"),), grants=(OpenGrant(NOW + HOUR, "bob"),))
    assert ask(policies, history, member="ann").reason == Reason.ALLOWANCE_EXHAUSTED
    assert ask(policies, history, member="bob").reason == Reason.CONCURRENCY_EXCEEDED
    assert ask(policies, history, member="eve").granted
    assert ask(policies, history).granted, "requests without a member count as one of their own"


def test_an_allowance_of_the_account_counts_every_member():
    history = History((used(3, member="ann"), used(2, member="bob")))
    assert not ask(policy_set(ALLOWANCE), history, member="eve").granted


def test_guarantee_policy_change_never_resets_usage_whatever_the_kind_of_window():
    history = History((used(5),))
    for source in (
        "{kind: daily_allowance, units: 5}",
        "{kind: daily_allowance, units: 5, window: calendar}",
        "{kind: daily_allowance, units: 5, window: calendar, timezone: Asia/Tokyo}",
        "{kind: allowance, name: daily_allowance, units: 5, per: 7d}",
        "{kind: allowance, name: daily_allowance, units: 5, per: 1mo, window: calendar}",
    ):
        decision = ask(policy_set(f"sources: [{source}]"), history)
        found = decision.findings[0]
        assert (decision.granted, found.used, found.limit) == (False, 5, 5), source
