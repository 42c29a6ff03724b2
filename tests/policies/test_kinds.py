"""Each kind of policy by itself: what it reads, what it answers, and when that may improve."""

from __future__ import annotations

from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies import (
    Asked,
    BudgetRead,
    History,
    OpenGrant,
    OpenRead,
    RateRead,
    Readings,
    UsageRead,
    Use,
    Zones,
)
from policies.kinds.budget import Budget
from policies.state import burn_order
from tests.policies.build import HOUR, MICRO, NOW, limit, lot, question, source

MINUTE = timedelta(minutes=1)


def use(hours_ago: int, units: int = 1, name: str = "daily_allowance", **parameters: Any) -> Use:
    return Use(name, NOW - hours_ago * HOUR, units, **parameters)


def assert_chance_is_first(policy: Any, asked: Asked, history: History, steps: int = 60) -> None:
    """A refused question has its next chance at the first hour at which it is answered otherwise."""
    assert not policy.check(asked, history, NOW).ok
    first = next(
        (
            NOW + n * HOUR
            for n in range(1, steps)
            if policy.check(asked, history, NOW + n * HOUR).ok
        ),
        None,
    )
    assert policy.next_chance(asked, history, NOW) == first


# --- allowances ---------------------------------------------------------------------------------

DAILY = source(kind="daily_allowance", units=5)


def test_an_allowance_counts_the_units_within_its_window():
    history = History((use(1, 2), use(23), use(24, 5), use(2, 3, "credits")))
    check = DAILY.check(question(2), history, NOW)
    assert (check.used, check.limit, check.asked, check.ok) == (3, 5, 2, True)
    assert not DAILY.check(question(3), history, NOW).ok


def test_an_allowance_is_back_at_the_very_instant_at_which_a_unit_leaves():
    history = History((use(0, 5),))
    assert not DAILY.check(question(), history, NOW + 24 * HOUR - MICRO).ok
    assert DAILY.check(question(), history, NOW + 24 * HOUR).ok
    assert DAILY.next_chance(question(), history, NOW) == NOW + 24 * HOUR


def test_the_next_chance_is_when_enough_units_have_left():
    history = History((use(20, 2), use(10, 2), use(5)))
    assert_chance_is_first(DAILY, question(1), history)
    assert_chance_is_first(DAILY, question(3), history)
    assert_chance_is_first(DAILY, question(5), history)
    assert DAILY.next_chance(question(6), history, NOW) is None


def test_units_of_an_open_grant_come_back_when_it_expires():
    history = History((use(1, 5, returns_at=NOW + 2 * HOUR),))
    assert DAILY.next_chance(question(), history, NOW) == NOW + 2 * HOUR
    assert DAILY.check(question(5), history, NOW + 2 * HOUR).ok


def test_a_calendar_allowance_is_back_at_local_midnight():
    berlin = source(kind="daily_allowance", units=5, window="calendar", timezone="Europe/Berlin")
    midnight = datetime(2025, 10, 1, 22, tzinfo=NOW.tzinfo)
    history = History((use(13, 4), use(15, 5)))
    assert berlin.check(question(), history, NOW).used == 4
    assert berlin.next_chance(question(5), history, NOW) == midnight
    assert berlin.check(question(5), history, midnight).used == 0


def test_the_policys_zone_beats_the_accounts_and_utc_stands_in_for_both():
    own = source(kind="daily_allowance", units=5, window="calendar", timezone="Asia/Tokyo")
    none = source(kind="daily_allowance", units=5, window="calendar")
    asked = question(zones=Zones("America/New_York"))
    zones = [policy.reads(asked)[0].window.zones for policy in (own, none, DAILY)]
    assert zones == [Zones("Asia/Tokyo"), Zones("America/New_York"), Zones()]
    assert none.reads(question())[0].window.zones == Zones("UTC")


def test_an_allowance_reads_its_own_units_of_the_account_or_the_member():
    (read,) = DAILY.reads(question(member="ann"))
    assert (read.sources, read.member, read.measure) == (("daily_allowance",), None, "units")
    member = source(kind="daily_allowance", units=5, scope="member", name="mine")
    (own,) = member.reads(question(member="ann"))
    assert (own.sources, own.member) == (("mine",), "ann")
    assert member.reads(question())[0].member == ""


def test_an_allowance_of_any_length():
    weekly = source(kind="allowance", units=5, per="7d")
    monthly = source(kind="allowance", units=5, per="1mo", window="calendar")
    assert weekly.check(question(), History((use(167, 5, "allowance"),)), NOW).used == 5
    assert weekly.check(question(), History((use(168, 5, "allowance"),)), NOW).used == 0
    assert monthly.check(question(), History((use(11, 5, "allowance"),)), NOW).used == 5
    assert monthly.check(question(), History((use(13, 5, "allowance"),)), NOW).used == 0


# --- credits ------------------------------------------------------------------------------------

CREDITS = source(kind="credits")


def test_credits_are_what_living_lots_have_available():
    lots = (
        lot("a", 3, number=1),
        lot("b", 4, number=2, expires_at=NOW + HOUR),
        lot("dead", 9, number=3, expires_at=NOW),
        lot("used", 0, number=4),
    )
    history = History(all_lots=lots)
    check = CREDITS.check(question(7), history, NOW)
    assert (check.used, check.limit, check.asked, check.ok) == (0, 7, 7, True)
    assert not CREDITS.check(question(8), history, NOW).ok
    assert not CREDITS.check(question(4), history, NOW + HOUR).ok


@given(st.permutations(range(7)))
def test_the_burn_order_is_priority_expiry_free_before_paid_age_and_number(order):
    sorted_lots = [
        lot("priority", number=7, priority=-1),
        lot("soon", number=6, expires_at=NOW + HOUR),
        lot("soon-free-later", number=5, expires_at=NOW + 2 * HOUR, price_minor=0),
        lot("soon-paid-later", number=4, expires_at=NOW + 2 * HOUR),
        lot("free", number=3, price_minor=0),
        lot("old", number=2, created_at=NOW - 90 * HOUR),
        lot("young", number=1, created_at=NOW - HOUR),
    ]
    shuffled = [sorted_lots[index] for index in order]
    assert [each.id for each in sorted(shuffled, key=burn_order)] == [
        each.id for each in sorted_lots
    ]


@given(st.lists(st.integers(0, 6), max_size=4), st.integers(1, 12))
def test_credits_are_taken_lot_by_lot_at_their_price_rounded_up(availables, units):
    lots = tuple(
        lot(f"lot{n}", available, units=7, price_minor=1000 + n, number=n)
        for n, available in enumerate(availables)
    )
    history = History(all_lots=lots)
    if not CREDITS.check(question(units), history, NOW).ok:
        return
    parts = CREDITS.allocate(question(units), history, NOW)
    assert sum(part.units for part in parts) == units
    assert [part.lot_id for part in parts] == [each.id for each in lots if each.available][
        : len(parts)
    ]
    for part in parts:
        price = Fraction((1000 + int(str(part.lot_id)[3:])) * part.units, 7)
        assert price <= part.price_minor < price + 1


def test_credits_of_an_open_grant_come_back_to_their_lot_when_it_expires():
    held = use(1, 4, "credits", lot_id="lot", returns_at=NOW + 3 * HOUR)
    history = History((held,), grants=(OpenGrant(NOW + 3 * HOUR),), all_lots=(lot(available=0),))
    assert CREDITS.next_chance(question(4), history, NOW) == NOW + 3 * HOUR
    assert CREDITS.check(question(4), history, NOW + 3 * HOUR).ok
    assert not CREDITS.check(question(5), history, NOW + 3 * HOUR).ok


# --- usage, concurrency -------------------------------------------------------------------------


def test_a_usage_limit_counts_the_sources_that_it_names_or_all():
    history = History((use(1, 2), use(2, 3, "credits")))
    every = limit(kind="usage", units=9, per="5h")
    one = limit(kind="usage", units=9, per="5h", sources=["credits"])
    assert (every.check(question(4), history, NOW).used, every.is_guard) == (5, False)
    assert (one.check(question(4), history, NOW).used, one.is_guard) == (3, True)
    assert every.check(question(4), history, NOW).ok
    assert not every.check(question(5), history, NOW).ok
    assert one.room(question(9), history, NOW) == 6
    assert one.guards(CREDITS)
    assert not one.guards(DAILY)
    assert not every.guards(DAILY)


def test_a_usage_limit_may_improve_whenever_a_unit_leaves():
    weekly = limit(kind="usage", units=3, per="7d")
    history = History((use(100, 2), use(10)))
    assert weekly.next_chance(question(1), history, NOW) == NOW + 68 * HOUR
    assert weekly.next_chance(question(1), History(), NOW) is None


def test_concurrency_counts_live_grants():
    policy = limit(kind="concurrency", limit=2)
    grants = (OpenGrant(NOW), OpenGrant(NOW + MICRO), OpenGrant(NOW + HOUR, "ann"))
    check = policy.check(question(), History(grants=grants), NOW)
    assert (check.used, check.limit, check.asked, check.ok) == (2, 2, 1, False)
    assert policy.next_chance(question(), History(grants=grants), NOW) == NOW + MICRO
    assert policy.check(question(), History(grants=grants), NOW + MICRO).ok
    mine = limit(kind="concurrency", limit=1, scope="member")
    assert mine.check(question(member="bob"), History(grants=grants), NOW).ok
    assert not mine.check(question(member="ann"), History(grants=grants), NOW).ok
    assert mine.next_chance(question(member="ann"), History(grants=grants), NOW) == NOW + HOUR


# --- spend --------------------------------------------------------------------------------------

SPEND = limit(kind="spend", limit=100, per="24h")


def paid(hours_ago: int, minor: int, currency: str = "usd") -> Use:
    return use(hours_ago, 1, "credits", lot_id="x", spend_minor=minor, currency=currency)


def test_spend_is_the_money_of_units_within_the_window_by_currency():
    history = History(
        (paid(1, 30), paid(23, 20), paid(25, 90), paid(1, 99, "eur")), all_lots=(lot(),)
    )
    check = SPEND.check(question(1), history, NOW)
    assert (check.used, check.limit, check.asked, check.ok) == (50, 100, 40, True)
    assert not SPEND.check(question(2), history, NOW).ok
    assert SPEND.room(question(5), history, NOW) == 1


def test_a_spend_limit_per_currency_holds_in_each_of_them():
    policy = limit(kind="spend", limit={"usd": 100, "eur": 50}, per="24h")
    dollars, euros = lot("a", 2, number=1), lot("b", 9, number=2, currency="eur", price_minor=300)
    history = History((paid(1, 10),), all_lots=(dollars, euros))
    assert policy.room(question(9), history, NOW) == 3, "two at 40 cents, one at 30 euro cents"
    assert {read.currency for read in policy.reads(question(1))} == {"usd", "eur"}
    assert SPEND.room(question(9), history, NOW) == 2, "and none in a currency without a limit"


@given(st.integers(0, 120), st.integers(1, 12), st.integers(0, 500), st.integers(1, 20))
def test_the_room_of_a_spend_limit_is_the_most_that_passes(spent, units, price, lot_units):
    each = lot(available=lot_units, units=lot_units, price_minor=price)
    history = History((paid(1, spent),) if spent else (), all_lots=(each,))
    passes = [n for n in range(units + 1) if SPEND.check(question(n), history, NOW).ok]
    assert SPEND.room(question(units), history, NOW) == (max(passes) if passes else 0)


def test_spend_guards_paid_sources_alone():
    assert SPEND.is_guard
    assert SPEND.guards(CREDITS)
    assert not SPEND.guards(DAILY)


def test_spend_may_improve_when_money_leaves_the_window():
    history = History((paid(10, 60), paid(20, 40)), all_lots=(lot(),))
    assert SPEND.next_chance(question(1), history, NOW) == NOW + 4 * HOUR


# --- budgets ------------------------------------------------------------------------------------


def test_a_budget_takes_estimates_until_its_local_midnight():
    budget = Budget.model_validate({"usd_per_day": "0.10", "timezone": "Asia/Tokyo", "name": "b"})
    ends = NOW.replace(hour=15)
    began = ends - 24 * HOUR
    history = History(budgets={("b", began): 60_000})
    fits, not_any_more = question(cost_micro_usd=40_000), question(cost_micro_usd=40_001)
    check = budget.check(fits, history, NOW)
    assert (check.used, check.limit, check.asked, check.ok) == (60_000, 100_000, 40_000, True)
    assert not budget.check(not_any_more, history, NOW).ok
    assert budget.next_chance(not_any_more, history, NOW) == ends
    assert budget.check(not_any_more, history, ends).ok
    assert budget.next_chance(question(cost_micro_usd=100_001), history, NOW) is None
    assert budget.reads(fits) == (BudgetRead("b", budget.read.window),)


# --- readings -----------------------------------------------------------------------------------


def test_a_policy_that_reads_what_it_did_not_declare_is_found_out():
    with pytest.raises(LookupError, match="did not declare"):
        Readings({}).read(OpenRead(), NOW)


@pytest.mark.parametrize(
    "policy",
    [
        DAILY,
        source(kind="allowance", units=5, per="7d", scope="member"),
        limit(kind="usage", units=9, per="5h"),
        limit(kind="concurrency", limit=2),
        limit(kind="rate", limit=5, per="1m"),
        SPEND,
        Budget.model_validate({"usd_per_day": 1, "name": "b"}),
        CREDITS,
    ],
    ids=lambda policy: policy.kind,
)
def test_each_kind_answers_from_what_it_declares_and_nothing_else(policy):
    history = History((use(1, 2), paid(1, 30)), (OpenGrant(NOW + HOUR),), (lot(),))
    asked = question(2, member="ann", cost_micro_usd=5)
    readings = Readings(
        {read: history.read(read, NOW) for read in policy.reads(asked)}, history.lots(NOW)
    )
    assert policy.check(asked, readings, NOW) == policy.check(asked, history, NOW)
    assert all(
        isinstance(read, (UsageRead, OpenRead, RateRead, BudgetRead))
        for read in policy.reads(asked)
    )
