"""Windows in time, through the engine: clocks that change, months that end, leap days, and clocks that run back."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from policies.policy_set import PolicySet
from quota import Comptroller, InvalidRequest
from tests.world import DAY, HOUR, MICROSECOND, START, World, a_world, plan


def allowance(text: str):
    return plan(f"{{sources: [{{{text}}}]}}")


def local(zone: str, year: int, month: int, day: int, hour: int = 0) -> datetime:
    return datetime(year, month, day, hour, tzinfo=ZoneInfo(zone)).astimezone(UTC)


def used_up(world: World, n: int = 3) -> None:
    world.comptroller.settle(world.grant(n).id)


def renews(world: World, at: datetime, n: int = 3) -> None:
    """The window is used up until the very microsecond, and new from then on."""
    assert world.deny(1).retry_at == at
    world.clock.set(at - MICROSECOND)
    assert world.deny(1).retry_at == at
    world.clock.set(at)
    used_up(world, n)
    world.deny(1)


@pytest.mark.parametrize(
    ("zone", "day", "length"),
    [
        ("Europe/Berlin", (2026, 3, 28), 24),
        ("Europe/Berlin", (2026, 3, 29), 23),
        ("Europe/Berlin", (2026, 10, 25), 25),
        ("America/New_York", (2026, 3, 8), 23),
        ("America/New_York", (2026, 11, 1), 25),
        ("America/Santiago", (2026, 9, 6), 23),  # midnight itself does not exist
        ("America/Havana", (2026, 11, 1), 25),  # midnight comes twice
        ("Australia/Lord_Howe", (2026, 4, 5), 24.5),  # half an hour
        ("Pacific/Kiritimati", (2026, 5, 5), 24),
        ("Africa/Casablanca", (2026, 2, 15), 25),
    ],
)
def test_a_calendar_day_is_the_local_day_however_long_it_is(zone, day, length):
    rules = f"kind: daily_allowance, units: 3, window: calendar, timezone: {zone}"
    next_day = local(zone, *(date(*day) + timedelta(days=1)).timetuple()[:3])
    with a_world(allowance(rules), start=next_day - length * HOUR) as world:
        used_up(world)
        renews(world, next_day)


@pytest.mark.parametrize(
    ("rules", "start", "end"),
    [
        ("per: 7d, window: calendar", "2026-03-08T23:59Z", "2026-03-09T00:00Z"),
        ("per: 7d, window: calendar", "2026-03-09T00:00Z", "2026-03-16T00:00Z"),
        ("per: 1mo, window: calendar", "2026-01-31T23:00Z", "2026-02-01T00:00Z"),
        ("per: 1mo, window: calendar", "2028-02-01T00:00Z", "2028-03-01T00:00Z"),
        ("per: 1y, window: calendar", "2028-02-29T00:00Z", "2029-01-01T00:00Z"),
        ("per: 1mo", "2026-01-31T12:00Z", "2026-02-28T12:00Z"),
        ("per: 1mo", "2028-01-30T12:00Z", "2028-02-29T12:00Z"),
        ("per: 1mo", "2026-02-28T12:00Z", "2026-03-28T12:00Z"),
        ("per: 1y", "2028-02-29T12:00Z", "2029-02-28T12:00Z"),
        ("per: 12mo", "2027-02-28T12:00Z", "2028-02-28T12:00Z"),
        ("per: 5h", "2026-12-31T22:00Z", "2027-01-01T03:00Z"),
        ("per: 7d", "2028-02-25T01:00Z", "2028-03-03T01:00Z"),
    ],
)
def test_weeks_months_and_years_end_where_the_calendar_says(rules, start, end):
    policies = allowance(f"kind: allowance, units: 3, {rules}")
    with a_world(policies, start=datetime.fromisoformat(start)) as world:
        used_up(world)
        renews(world, datetime.fromisoformat(end))


def test_units_of_the_31st_and_of_the_28th_leave_a_rolling_month_apart():
    with a_world(
        allowance("kind: allowance, per: 1mo, units: 3"),
        start=datetime(2026, 1, 28, 12, tzinfo=UTC),
    ) as world:
        used_up(world, 1)
        world.clock.set(datetime(2026, 1, 31, 11, tzinfo=UTC))
        used_up(world, 1)
        world.clock.set(datetime(2026, 1, 31, 13, tzinfo=UTC))
        used_up(world, 1)
        for at in ((2026, 2, 28, 11), (2026, 2, 28, 12), (2026, 2, 28, 13)):
            instant = datetime(*at, tzinfo=UTC)
            assert world.deny(1).retry_at == instant
            world.clock.set(instant)
            used_up(world, 1)


def test_a_rolling_day_is_24_hours_also_when_clocks_change():
    with a_world(
        allowance("kind: daily_allowance, units: 3"),
        start=local("Europe/Berlin", 2026, 3, 28, 12),
    ) as world:
        world.comptroller.set_account("u", timezone="Europe/Berlin")
        used_up(world)
        renews(world, local("Europe/Berlin", 2026, 3, 29, 13))


def test_a_windows_edge_is_exact_to_the_microsecond():
    with a_world(allowance("kind: daily_allowance, units: 2")) as world:
        used_up(world, 1)
        world.clock.advance(MICROSECOND)
        used_up(world, 1)
        world.clock.set(START + DAY)
        world.grant(1)
        world.deny(1)
        world.clock.advance(MICROSECOND)
        world.grant(1)
        world.deny(1)


def test_an_accounts_time_never_runs_backwards():
    with a_world(allowance("kind: daily_allowance, units: 3")) as world:
        first = world.grant(2)
        world.clock.set(START - 2 * DAY)
        second = world.grant(1)
        assert second.at == first.at == START
        assert world.deny(1).retry_at == START + HOUR
        assert world.comptroller.balance("u").at == START
        assert world.comptroller.settle(first.id).at == START
        other = world.grant(1, account="v")  # another account has a time of its own
        assert other.at == START - 2 * DAY


def test_a_clock_that_runs_backwards_expires_nothing_early_and_nothing_twice():
    with a_world() as world:
        grant = world.grant(3)
        world.clock.set(grant.expires_at)
        world.comptroller.sweep()
        world.clock.set(START)
        assert world.comptroller.get(grant.id).status == "expired"
        assert world.used() == 0
        assert world.grant(1).at == grant.expires_at
        world.clock.set(grant.expires_at)
        assert world.comptroller.sweep() == 0


def test_not_after_holds_at_its_very_instant_and_not_after_it():
    with a_world() as world:
        world.grant(1, not_after=START)
        world.clock.advance(MICROSECOND)
        with pytest.raises(Exception, match="not_after"):
            world.grant(1, not_after=START)
        assert world.used() == 1


def test_not_after_is_measured_by_the_accounts_time():
    """The account's last record is after the deadline, though the machine's clock is not yet."""
    with a_world() as world:
        world.grant(1)
        world.clock.set(START - HOUR)
        with pytest.raises(Exception, match="not_after"):
            world.grant(1, not_after=START - MICROSECOND)
        assert world.used() == 1


def test_a_clock_that_is_naive_is_refused_at_its_first_reading():
    naive = Comptroller.open(
        PolicySet.unlimited(),
        "sqlite://",
        clock=lambda: datetime(2026, 1, 1),  # noqa: DTZ001
    )
    with naive, pytest.raises(InvalidRequest):
        naive.admit(account="u", operation="anything", key="k")


def test_a_clock_in_another_zone_is_the_same_clock():
    tokyo = START.astimezone(ZoneInfo("Asia/Tokyo"))
    with Comptroller.open(PolicySet.unlimited(), "sqlite://", clock=lambda: tokyo) as comptroller:
        grant = comptroller.admit(account="u", operation="anything", key="k")
        assert grant.at == START
        assert grant.at.tzinfo is UTC
