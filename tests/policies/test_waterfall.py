"""The decision: limits first, then the sources in order until the request is paid for."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from policies import History, OpenGrant, Reason, Use
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
