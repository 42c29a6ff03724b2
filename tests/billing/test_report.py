"""The report of the business: units, GPU cost, revenue, margin, and unearned money rolled forward."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.render import render
from billing.report import Deferred, Report, buckets, dimensions
from policies.errors import InvalidRequest
from tests.world import DAY, HOUR, START, World, a_world, plan

MARCH = datetime(2026, 3, 1, tzinfo=UTC)
APRIL = datetime(2026, 4, 1, tzinfo=UTC)
MAY = datetime(2026, 5, 1, tzinfo=UTC)
SECOND = 1_000
"""What a GPU second costs in the world, in micro-dollars."""

PAID = "{paid_use: auto, sources: [{kind: daily_allowance, units: 5}, {kind: credits}]}"


@pytest.fixture
def world():
    with a_world(plan(PAID)) as made:
        yield made


def report(world: World, *by: str, since=MARCH, until=APRIL, timezone="UTC") -> Report:
    found = world.comptroller.report(since, until, by, timezone)
    assert found.check.ok, found.check.problems
    return found


def test_a_month_adds_up(world):
    world.buy("ten")  # $4.00 for ten
    free = world.grant(5)
    world.comptroller.settle(free.id, gpu_seconds=40)
    paid = world.grant(3)
    world.comptroller.settle(paid.id, gpu_seconds=100)
    failed = world.grant(2)
    world.comptroller.release(failed.id, reason="failed", gpu_seconds=7)
    left = world.grant(1)  # never reported: it expires
    world.clock.advance(2 * HOUR)
    found = report(world, "source")
    assert [row.key["source"] for row in found.rows] == ["credits", "daily_allowance"]
    bought, allowance = found.rows
    assert (bought.grants, bought.settled, bought.released, bought.expired) == (3, 1, 1, 1)
    assert (bought.units_granted, bought.units_returned, bought.units_net) == (6, 3, 3)
    assert bought.gpu_estimated_micro_usd == 60 * SECOND
    assert bought.gpu_micro_usd == 107 * SECOND
    assert bought.gpu_unreported_micro_usd == left.gpu_cost_micro_usd == 10 * SECOND
    assert bought.revenue_minor == {"usd": 120}
    assert bought.margin_micro_usd == 1_200_000 - 117 * SECOND
    assert (allowance.units_net, allowance.margin_micro_usd) == (5, -40 * SECOND)
    assert found.totals.grants == 4
    assert found.totals.margin_micro_usd == 1_200_000 - 157 * SECOND
    assert found.deferred == (Deferred("usd", 0, 400, 120, 0, 0, 280),)


def test_unearned_money_rolls_from_one_month_into_the_next():
    # Three units for a dollar, good for a month: a cent is left over, and nothing gets lost.
    with a_world(plan("{paid_use: auto, sources: [{kind: credits}]}"), start=MARCH + DAY) as world:
        world.buy("three")
        world.comptroller.settle(world.grant(1).id)
        ten = world.buy("ten")
        world.comptroller.settle(world.grant(3).id)
        world.clock.set(APRIL + 3 * DAY)  # the three have expired on 2 April, unwritten
        march, april = report(world), report(world, since=APRIL, until=MAY)
        assert march.deferred == (Deferred("usd", 0, 500, 140, 0, 0, 360),)
        assert april.deferred == (Deferred("usd", 360, 0, 0, 0, 0, 360),)
        world.comptroller.refund_lot(ten.id, reference="back")
        april = report(world, since=APRIL, until=MAY)
        assert april.deferred == (Deferred("usd", 360, 0, 0, 0, 360, 0),)


def test_what_expires_unused_is_breakage_at_the_instant_of_its_expiry(world):
    world.buy("three")
    world.comptroller.settle(world.grant(5).id)
    world.comptroller.settle(world.grant(1).id)
    expiry = datetime(2026, 4, 2, 12, tzinfo=UTC)
    world.clock.set(expiry + DAY)
    before, after = (
        report(world, since=APRIL, until=expiry),
        report(world, since=expiry, until=MAY),
    )
    assert before.deferred == (Deferred("usd", 67, 0, 0, 0, 0, 67),)
    assert after.deferred == (Deferred("usd", 67, 0, 0, 67, 0, 0),)


def test_money_of_two_currencies_is_never_added():
    policies = plan("{paid_use: auto, sources: [{kind: credits}]}")
    text = policies.canonical.replace('"price":"4"', '"price":{"eur":"4.50","usd":"4"}')
    with a_world(type(policies).from_canonical(text)) as world:
        for currency in ("usd", "eur"):
            world.comptroller.record_purchase(
                "u", pack="ten", reference=currency, currency=currency
            )
        world.comptroller.settle(world.grant(12).id, gpu_seconds=0)
        found = report(world)
        row = found.totals
        assert sorted(row.revenue_minor.items()) in (
            [("eur", 90), ("usd", 400)],
            [("eur", 450), ("usd", 80)],
        )
        assert row.margin_micro_usd == row.revenue_minor["usd"] * 10_000
        assert [each.currency for each in found.deferred] == ["eur", "usd"]


def test_the_costliest_account_comes_first(world):
    for account, seconds in (("small", 1), ("large", 90), ("middle", 10)):
        world.comptroller.settle(world.grant(1, account=account).id, gpu_seconds=seconds)
    found = report(world, "account")
    assert [row.key["account"] for row in found.rows] == ["large", "middle", "small"]


def test_members_of_two_accounts_are_told_apart(world):
    for account in ("a", "b"):
        world.grant(1, account=account, member="ann")
    rows = report(world, "member").rows
    assert [(row.key["account"], row.key["member"]) for row in rows] == [("a", "ann"), ("b", "ann")]


def test_days_are_those_of_the_time_zone(world):
    world.clock.set(datetime(2026, 3, 28, 23, 30, tzinfo=UTC))
    world.grant(1)
    world.clock.set(datetime(2026, 3, 29, 21, 59, tzinfo=UTC))  # a day of 23 hours in Berlin
    world.grant(1)
    world.clock.advance(timedelta(minutes=1))
    world.grant(1)
    days = {zone: report(world, "day", timezone=zone).rows for zone in ("UTC", "Europe/Berlin")}
    assert [(row.key["day"], row.grants) for row in days["UTC"]] == [
        ("2026-03-28", 1),
        ("2026-03-29", 2),
    ]
    assert [(row.key["day"], row.grants) for row in days["Europe/Berlin"]] == [
        ("2026-03-29", 2),
        ("2026-03-30", 1),
    ]


def test_a_grant_of_two_sources_counts_once_in_all():
    sources = "[{kind: daily_allowance, units: 2, split: true}, {kind: credits}]"
    with a_world(plan(f"{{paid_use: auto, sources: {sources}}}")) as world:
        world.buy("ten")
        world.comptroller.settle(world.grant(5).id)
        found = report(world, "source")
        assert [row.grants for row in found.rows] == [1, 1]
        assert found.totals.grants == 1


# --- a closed month does not change --------------------------------------------------------------


def closed(world: World) -> list[str]:
    """Return the reports of March in every format, by everything."""
    every = (
        ("plan", "operation", "source"),
        ("account", "month"),
        ("member", "day"),
        ("currency",),
    )
    found = [world.comptroller.report(MARCH, APRIL, by) for by in every]
    assert all(each.check.ok for each in found)
    return [render(each, how) for each in found for how in ("table", "csv", "json")]


def test_a_closed_month_is_the_same_to_the_byte_whatever_happens_later(world):
    world.buy("three")
    world.clock.set(datetime(2026, 3, 31, 22, tzinfo=UTC))
    held = [world.grant(1, account=name) for name in ("u", "v", "w")]
    world.comptroller.settle(held[0].id)
    world.comptroller.start(held[2].id)
    world.clock.set(APRIL + HOUR)  # v and w have expired in March, and nobody has written it
    before = closed(world)
    world.comptroller.settle(held[1].id, gpu_seconds=50)  # late
    world.grant(1, account="v")
    assert closed(world) == before
    world.clock.advance(DAY)
    assert world.comptroller.sweep()
    assert closed(world) == before
    world.comptroller.set_plan("u", "own")
    world.buy("ten")
    world.clock.advance(40 * DAY)
    assert closed(world) == before
    world.comptroller.sweep()
    assert closed(world) == before


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ("grant", "grant", "settle", "release", "start", "buy", "three", "refund", "sweep")
        ),
        st.sampled_from("uv"),
        st.integers(1, 6),
        st.sampled_from((0, 60, 1800, 7200, 86_400, 900_000)),
    ),
    max_size=25,
)


@given(STEPS)
def test_whatever_happens_groups_add_up_and_money_rolls_forward(steps):
    with a_world(plan(PAID), start=START) as world:
        play(world, steps)
        since, until = START + DAY, START + 20 * DAY
        totals = report(world, since=since, until=until).totals
        for by in ("source", "account", "day", "currency"):
            rows = report(world, by, since=since, until=until).rows
            for name in ("units_granted", "units_returned", "gpu_micro_usd", "margin_micro_usd"):
                assert sum(getattr(row, name) for row in rows) == getattr(totals, name)
            revenue: Counter[str] = Counter()
            for row in rows:
                revenue.update(row.revenue_minor)
            assert revenue == Counter(totals.revenue_minor)
        first, second = (
            report(world, since=START, until=since),
            report(world, since=since, until=until),
        )
        whole = report(world, since=START, until=until)
        closing = first.deferred[0].closing_minor if first.deferred else 0
        if second.deferred:
            (rolled,) = second.deferred
            assert rolled.opening_minor == closing
            assert rolled == whole.deferred[0].__class__(
                "usd",
                closing,
                rolled.sold_minor,
                rolled.recognised_minor,
                rolled.breakage_minor,
                rolled.refunded_minor,
                closing
                + rolled.sold_minor
                - rolled.recognised_minor
                - rolled.breakage_minor
                - rolled.refunded_minor,
            )
            assert whole.deferred[0].closing_minor == rolled.closing_minor
        before = render(second, "json")
        world.comptroller.sweep()
        assert render(report(world, since=since, until=until), "json") == before


def play(world: World, steps: list[tuple[str, str, int, int]]) -> None:
    grants, lots = [], []
    for place, (what, account, n, seconds) in enumerate(steps):
        match what:
            case "grant":
                decision = world.admit(n, account=account)
                grants.extend([decision] if decision else [])
            case "settle" if grants:
                world.comptroller.settle(grants.pop(n % len(grants)).id, gpu_seconds=n)
            case "release" if grants:
                reason = "failed" if n % 2 else "moderated"
                world.comptroller.release(grants.pop(n % len(grants)).id, reason=reason)
            case "start" if grants and world.comptroller.get(grants[-1].id).live:
                world.comptroller.start(grants[-1].id)
            case "buy" | "three":
                lots.append(world.buy("ten" if what == "buy" else "three", account=account))
            case "refund" if lots:
                world.comptroller.refund_lot(lots.pop().id, reference=f"back-{place}")
            case "sweep":
                world.comptroller.sweep()
            case _:
                pass
        world.clock.advance(timedelta(seconds=seconds))


# --- what is refused, and what the check finds ---------------------------------------------------


@pytest.mark.parametrize(
    ("by", "said"),
    [
        (["colour"], "cannot be grouped by `colour`"),
        ("plan", "a list of names"),
        (["plan", "plan"], "each name once"),
        (["day", "month"], "by day or month"),
    ],
)
def test_a_group_that_there_is_not_is_refused(by, said):
    with pytest.raises(InvalidRequest, match=said):
        dimensions(by)


@pytest.mark.parametrize(
    ("since", "until", "timezone", "said"),
    [
        (datetime(2026, 3, 1), APRIL, "UTC", "time zone"),  # noqa: DTZ001 - naive is the point
        (APRIL, MARCH, "UTC", "before it begins"),
        (MARCH, APRIL, "Mars/Olympus", "unknown time zone"),
        (datetime(1970, 1, 1, tzinfo=UTC), APRIL, "UTC", "shorter period"),
    ],
)
def test_a_period_that_is_none_is_refused(world, since, until, timezone, said):
    with pytest.raises(InvalidRequest, match=said):
        world.comptroller.report(since, until, ["day"], timezone)


def test_months_are_cut_at_local_midnight():
    parts = buckets(("month",), "America/New_York", MARCH, MAY)
    assert [(name, str(start), str(end)) for name, start, end in parts] == [
        ("2026-02", "2026-03-01 00:00:00+00:00", "2026-03-01 05:00:00+00:00"),
        ("2026-03", "2026-03-01 05:00:00+00:00", "2026-04-01 04:00:00+00:00"),
        ("2026-04", "2026-04-01 04:00:00+00:00", "2026-05-01 00:00:00+00:00"),
    ]


def test_an_empty_period_is_an_empty_report(world):
    world.grant(1)
    found = report(world, "day", since=MARCH, until=MARCH)
    assert (found.rows, found.totals.grants, found.deferred) == ((), 0, ())


def test_the_check_finds_a_line_that_disagrees_with_the_ledger(world):
    world.buy("ten")
    world.comptroller.settle(world.grant(5).id)
    world.comptroller.settle(world.grant(3).id)
    drop_triggers(world)
    world.write("UPDATE comptroller_line SET revenue_minor = revenue_minor + 1 WHERE lot_no = 1")
    problems = world.comptroller.report(MARCH, APRIL).check.problems
    assert any("revenue" in problem and "the ledger says 120" in problem for problem in problems)
    assert any("unearned, lots and plans have 280" in problem for problem in problems)
    world.write("UPDATE comptroller_line SET revenue_minor = revenue_minor - 1 WHERE lot_no = 1")


def drop_triggers(world: World) -> None:
    for (name,) in world.rows("SELECT name FROM sqlite_master WHERE type = 'trigger'"):
        world.write(f"DROP TRIGGER {name}")
