"""Windows: rolling, and calendar ones in zones whose clocks jump, without gap or overlap."""

from __future__ import annotations

from bisect import bisect_right
from datetime import UTC, date, datetime, timedelta
from functools import cache
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from policies import Length, Window, Zones
from policies.window import ZONE_CHANGE_LEAST

MICRO = timedelta(microseconds=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
ZONES = [
    "UTC",
    "Europe/Berlin",
    "Europe/London",
    "America/New_York",
    "America/Sao_Paulo",  # clocks jumped at midnight, so that some days began at 01:00
    "America/Havana",  # midnight comes twice in autumn
    "America/St_Johns",  # clocks fell back from 00:01 to 23:01 of the day before
    "Africa/Cairo",
    "Asia/Kolkata",
    "Asia/Tehran",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",  # jumps by half an hour
    "Pacific/Apia",  # had no 30 December 2011
    "Pacific/Kiritimati",
    "Pacific/Chatham",
]
STEPS = {"day": "24h", "week": "7d", "month": "1mo", "year": "1y"}
FIRST, LAST = datetime(1985, 1, 1), datetime(2035, 12, 31)  # noqa: DTZ001 - as hypothesis takes them
INSTANTS = st.datetimes(FIRST, LAST, timezones=st.just(UTC))


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def calendar(step: str, zone: str | Zones = "UTC") -> Window:
    zones = Zones(zone) if isinstance(zone, str) else zone
    return Window("calendar", Length.parse(STEPS[step]), zones)


# --- calendar windows ---------------------------------------------------------------------------


@cache
def first_instant_of(day: date, zone: str) -> datetime:
    """Search for the first minute at which the zone's clocks show this date or a later one."""
    tz = ZoneInfo(zone)
    midnight = datetime(day.year, day.month, day.day)  # noqa: DTZ001 - on the wall
    at = midnight.replace(tzinfo=UTC) - 16 * HOUR
    while (at + HOUR).astimezone(tz).replace(tzinfo=None) < midnight - 3 * HOUR:
        at += HOUR
    while at.astimezone(tz).date() < day:
        at += timedelta(minutes=1)
    return at


def begins(step: str, day: date) -> bool:
    return {
        "day": True,
        "week": day.weekday() == 0,
        "month": day.day == 1,
        "year": day.month == 1 and day.day == 1,
    }[step]


def searched_bounds(step: str, zone: str, now: datetime) -> tuple[datetime, datetime]:
    around = now.astimezone(ZoneInfo(zone)).date()
    reach = {"day": 3, "week": 10, "month": 40, "year": 400}[step]
    days = [around + timedelta(days=offset) for offset in range(-reach, reach + 1)]
    edges = [first_instant_of(day, zone) for day in days if begins(step, day)]
    index = bisect_right(edges, now)
    return edges[index - 1], edges[index]


@given(st.sampled_from(["day", "week", "month"]), st.sampled_from(ZONES), INSTANTS)
@example("day", "America/Sao_Paulo", utc("2018-11-04T03:00"))
@example("day", "America/Sao_Paulo", utc("2018-11-04T02:59:59.999999"))
@example("day", "America/St_Johns", utc("2005-10-30T02:45"))
@example("day", "America/Havana", utc("2023-11-05T04:30"))
@example("day", "Pacific/Apia", utc("2011-12-30T10:00"))
@example("day", "Africa/Cairo", utc("2024-04-25T22:00"))
def test_a_calendar_window_is_the_one_that_the_clock_on_the_wall_shows(step, zone, now):
    assert calendar(step, zone).bounds(now) == searched_bounds(step, zone, now)


def test_a_year_is_the_one_that_the_clock_on_the_wall_shows():
    for zone in ("Asia/Kolkata", "Pacific/Kiritimati"):
        now = utc("2024-12-31T18:45")
        assert calendar("year", zone).bounds(now) == searched_bounds("year", zone, now)


@given(st.sampled_from(list(STEPS)), st.sampled_from(ZONES), INSTANTS)
def test_calendar_windows_tile_time_without_gap_or_overlap(step, zone, now):
    window = calendar(step, zone)
    start, end = window.bounds(now)
    assert start <= now < end
    assert window.bounds(start) == (start, end)
    assert window.bounds(end - MICRO) == (start, end)
    assert window.bounds(end)[0] == end
    assert window.bounds(start - MICRO)[1] == start


@pytest.mark.parametrize(
    ("zone", "now", "start", "end"),
    [
        # Berlin: the days of 23 and of 25 hours.
        ("Europe/Berlin", "2024-03-31T10:00", "2024-03-30T23:00", "2024-03-31T22:00"),
        ("Europe/Berlin", "2024-10-27T10:00", "2024-10-26T22:00", "2024-10-27T23:00"),
        ("America/New_York", "2024-03-10T12:00", "2024-03-10T05:00", "2024-03-11T04:00"),
        ("America/New_York", "2024-11-03T12:00", "2024-11-03T04:00", "2024-11-04T05:00"),
        # Sao Paulo: the day began at 01:00, when 00:00 was skipped.
        ("America/Sao_Paulo", "2018-11-04T12:00", "2018-11-04T03:00", "2018-11-05T02:00"),
        ("America/Sao_Paulo", "2018-02-17T12:00", "2018-02-17T02:00", "2018-02-18T03:00"),
        # Havana: 00:30 comes twice, the day begins at the first.
        ("America/Havana", "2023-11-05T12:00", "2023-11-05T04:00", "2023-11-06T05:00"),
        # Cairo springs forward at midnight.
        ("Africa/Cairo", "2024-04-26T12:00", "2024-04-25T22:00", "2024-04-26T21:00"),
        # Apia had no 30 December 2011: the 29th is followed by the 31st.
        ("Pacific/Apia", "2011-12-30T09:59", "2011-12-29T10:00", "2011-12-30T10:00"),
        ("Pacific/Apia", "2011-12-30T10:00", "2011-12-30T10:00", "2011-12-31T10:00"),
        ("UTC", "2024-02-29T23:59:59.999999", "2024-02-29T00:00", "2024-03-01T00:00"),
    ],
)
def test_days_around_jumps_of_the_clock(zone, now, start, end):
    assert calendar("day", zone).bounds(utc(now)) == (utc(start), utc(end))


@pytest.mark.parametrize(
    ("step", "now", "start", "end"),
    [
        ("week", "2024-12-31T12:00", "2024-12-30", "2025-01-06"),
        ("week", "2024-12-30T00:00", "2024-12-30", "2025-01-06"),
        ("week", "2024-12-29T23:59", "2024-12-23", "2024-12-30"),
        ("month", "2024-02-29T12:00", "2024-02-01", "2024-03-01"),
        ("month", "2023-02-28T23:59", "2023-02-01", "2023-03-01"),
        ("month", "2024-12-31T23:59", "2024-12-01", "2025-01-01"),
        ("year", "2024-02-29T12:00", "2024-01-01", "2025-01-01"),
    ],
)
def test_weeks_begin_on_monday_and_months_and_years_on_their_first(step, now, start, end):
    assert calendar(step).bounds(utc(now)) == (utc(start), utc(end))


@given(st.sampled_from(list(STEPS)), st.sampled_from(ZONES), INSTANTS, st.integers(0, 40 * 86_400))
def test_a_unit_counts_in_a_calendar_window_from_its_start_until_its_end(step, zone, now, back):
    window = calendar(step, zone)
    taken = now - timedelta(seconds=back)
    start, end = window.bounds(now)
    assert window.counts(taken, now) == (window.bounds(taken) == (start, end))
    assert window.since(now) == window.sure(now) == start
    if window.counts(taken, now):
        assert window.leaves(taken, now) == end
        assert not window.counts(taken, end)
        assert window.counts(taken, end - MICRO)


# --- rolling windows ----------------------------------------------------------------------------

LENGTHS = st.sampled_from(["30s", "5h", "24h", "7d", "1mo", "2mo", "12mo", "1y"])


@given(LENGTHS, INSTANTS, st.integers(0, 800 * 86_400), st.integers(-3, 3))
@example("1mo", utc("2024-02-29T12:00"), 29 * 86_400, 0)
@example("1mo", utc("2023-03-28T12:00"), 28 * 86_400, 0)
@example("1y", utc("2024-02-29T12:00"), 365 * 86_400, 0)
def test_a_unit_counts_in_a_rolling_window_until_its_length_has_passed(length, now, back, micros):
    window = Window("rolling", Length.parse(length))
    taken = now - timedelta(seconds=back) + micros * MICRO
    end = Length.parse(length).after(taken)
    assert window.counts(taken, now) == (now < end)
    assert window.leaves(taken, now) == end
    assert not window.counts(taken, end)
    assert window.counts(taken, end - MICRO)
    if window.counts(taken, now):
        assert taken >= window.since(now)
    if taken >= window.sure(now):
        assert window.counts(taken, now)


@given(LENGTHS, INSTANTS, INSTANTS)
def test_later_units_leave_a_rolling_window_later(length, one, other):
    window = Window("rolling", Length.parse(length))
    first, second = sorted((one, other))
    assert window.leaves(first, first) <= window.leaves(second, second)


def test_an_exact_rolling_window_begins_just_after_what_has_left_it():
    window = Window("rolling", Length.parse("24h"))
    now = utc("2024-10-27T12:00")
    assert window.since(now) == utc("2024-10-26T12:00") + MICRO
    assert not window.counts(utc("2024-10-26T12:00"), now), "not 25 h, though the day has as many"


def test_a_rolling_month_is_clipped_to_the_last_day():
    window = Window("rolling", Length.parse("1mo"))
    taken = utc("2024-01-31T10:00")
    assert window.counts(taken, utc("2024-02-29T09:59:59.999999"))
    assert not window.counts(taken, utc("2024-02-29T10:00"))


def test_windows_near_the_ends_of_all_calendars_do_not_fail():
    early, window = datetime(1, 1, 2, tzinfo=UTC), Window("rolling", Length.parse("1y"))
    assert window.since(early) <= early
    assert Window("rolling", Length.parse("7d")).since(early) <= early


# --- changes of zone ----------------------------------------------------------------------------


@st.composite
def zone_changes(draw: st.DrawFn) -> tuple[datetime, Zones]:
    start = draw(st.sampled_from([utc("2024-03-01"), utc("2011-12-20"), utc("2018-10-28")]))
    count = draw(st.integers(1, 12))
    gaps = draw(st.lists(st.integers(1, 72 * 60), min_size=count, max_size=count))
    at, changes = start, []
    for gap in gaps:
        at += timedelta(minutes=gap)
        changes.append((at, draw(st.sampled_from(ZONES))))
    return start, Zones(draw(st.sampled_from(ZONES)), tuple(changes))


def boundaries(window: Window, start: datetime, count: int) -> list[datetime]:
    found = [window.bounds(start)[1]]
    while len(found) < count:
        found.append(window.bounds(found[-1])[1])
    return found


@given(zone_changes(), st.sampled_from(["day", "week"]))
def test_windows_tile_time_through_changes_of_zone(case, step):
    start, zones = case
    window = calendar(step, zones)
    for end in boundaries(window, start, 25):
        assert window.bounds(end)[0] == end
        assert window.bounds(end - MICRO)[1] == end


@given(zone_changes())
def test_guarantee_no_zone_hopping_boundaries_are_at_least_twenty_hours_apart(case):
    start, zones = case
    ends = boundaries(calendar("day", zones), start, 40)
    for one, next_one in pairwise(ends):
        assert next_one - one >= ZONE_CHANGE_LEAST == timedelta(hours=20)


def test_guarantee_no_zone_hopping_a_change_every_three_hours_mints_no_days():
    start, days = utc("2024-03-01"), 10
    changes = tuple((start + hour * HOUR, ZONES[hour % 13]) for hour in range(1, 24 * days, 3))
    window = calendar("day", Zones("UTC", changes))
    begun = {window.bounds(start + hour * HOUR)[0] for hour in range(24 * days)}
    assert len(begun) <= days * 24 // 20 + 1


@given(zone_changes())
def test_a_change_of_zone_never_moves_the_window_that_it_is_asked_in(case):
    _, zones = case
    for count, (asked_at, _) in enumerate(zones.changes):
        before = Zones(zones.first, zones.changes[:count])
        after = Zones(zones.first, zones.changes[: count + 1])
        assert calendar("day", before).bounds(asked_at) == calendar("day", after).bounds(asked_at)
        earlier = asked_at - MICRO
        assert calendar("day", zones).bounds(earlier) == calendar("day", before).bounds(earlier)


@given(zone_changes())
def test_in_the_end_windows_are_those_of_the_zone_that_was_asked_for_last(case):
    _, zones = case
    later = zones.changes[-1][0] + timedelta(days=5)
    assert calendar("day", zones).bounds(later) == calendar("day", zones.latest).bounds(later)


def test_asking_back_while_a_change_is_pending_leaves_all_as_it_was():
    asked = utc("2024-05-01T08:00")
    zones = Zones("UTC", ((asked, "Asia/Tokyo"), (asked + HOUR, "UTC")))
    now = asked + 2 * HOUR
    for hours in range(100):
        at = now + hours * HOUR
        assert calendar("day", zones).bounds(at) == calendar("day", "UTC").bounds(at)


def test_the_first_window_in_a_new_zone_runs_to_a_midnight_of_its_own():
    asked = utc("2024-05-01T08:00")
    window = calendar("day", Zones("UTC", ((asked, "Asia/Tokyo"),)))
    # Tokyo's midnight is 15:00 UTC: the first one at least 20 h after 2 May 00:00 UTC is on 3 May.
    assert window.bounds(asked) == (utc("2024-05-01"), utc("2024-05-02"))
    assert window.bounds(utc("2024-05-02")) == (utc("2024-05-02"), utc("2024-05-03T15:00"))
    assert window.bounds(utc("2024-05-03T15:00"))[1] == utc("2024-05-04T15:00")


def test_a_change_of_zone_that_no_window_can_feel_any_more_is_let_go():
    start = datetime(2020, 1, 1, tzinfo=UTC)
    zones = Zones("UTC").changed(start, "Europe/Berlin").changed(start + DAY, "Asia/Tokyo")
    later = zones.changed(start + 801 * DAY, "America/New_York")
    assert later.first == "Asia/Tokyo"
    assert [zone for _, zone in later.changes] == ["America/New_York"]
    for kind in ("24h", "7d", "1mo", "1y"):
        window, whole = (
            Window("calendar", Length.parse(kind), seen)
            for seen in (
                later,
                Zones("UTC", (*zones.changes, (start + 801 * DAY, "America/New_York"))),
            )
        )
        for days in (801, 802, 1200, 2000):
            at = start + days * DAY + timedelta(hours=3)
            assert window.bounds(at) == whole.bounds(at)
