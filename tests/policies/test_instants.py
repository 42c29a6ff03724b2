"""Instants and lengths of time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies import InvalidRequest, Length
from policies.instants import add_months, as_utc, from_micros, micros, zone_named

FIRST, LAST = datetime(1900, 1, 1), datetime(2200, 1, 1)  # noqa: DTZ001 - as hypothesis takes them


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("30s", "30s"), ("60s", "1m"), ("5m", "5m"), ("90m", "90m"), ("24h", "1d"), ("1d", "1d"),
        ("7d", "7d"), ("168h", "7d"), ("36h", "36h"), ("1mo", "1mo"), ("12mo", "1y"), ("1y", "1y"),
        ("18mo", "18mo"), ("100y", "100y"), (" 5m ", "5m"),
    ],
)  # fmt: skip
def test_a_length_is_read_and_equal_lengths_have_one_spelling(text, spelled):
    length = Length.parse(text)
    assert str(length) == spelled
    assert Length.parse(spelled) == length


@pytest.mark.parametrize(
    "text",
    [
        "", "5", "m", "5 m", "5min", "1.5h", "-5m", "0s", "00d", "5M", "1w", "5m\n5m",
        "\u0663s", "1000000000s", "101y", "1201mo", "36601d", "1mo2d",
    ],
)  # fmt: skip
def test_what_is_no_length_of_time_is_refused(text):
    with pytest.raises(ValueError, match=r"length of time|longer than a hundred") as caught:
        Length.parse(text)
    assert str(caught.value).isprintable()


@given(st.integers(1, 800_000), st.sampled_from(["s", "m", "h"]))
def test_every_spelling_reads_back(count, unit):
    length = Length.parse(f"{count}{unit}")
    assert Length.parse(str(length)) == length


@pytest.mark.parametrize(
    ("start", "text", "end"),
    [
        ("2024-01-31T10:00", "1mo", "2024-02-29T10:00"),
        ("2023-01-31T10:00", "1mo", "2023-02-28T10:00"),
        ("2024-02-29T10:00", "1y", "2025-02-28T10:00"),
        ("2024-02-29T10:00", "4y", "2028-02-29T10:00"),
        ("2024-03-31T10:00", "1mo", "2024-04-30T10:00"),
        ("2024-12-31T23:59", "2mo", "2025-02-28T23:59"),
        ("2024-02-28T10:00", "24h", "2024-02-29T10:00"),
        ("2024-10-01T10:00", "30s", "2024-10-01T10:00:30"),
    ],
)
def test_a_length_after_an_instant_is_clipped_to_the_month(start, text, end):
    begin = datetime.fromisoformat(start).replace(tzinfo=UTC)
    assert Length.parse(text).after(begin) == datetime.fromisoformat(end).replace(tzinfo=UTC)


def test_an_end_beyond_all_calendars_is_the_last_instant_there_is():
    last = datetime.max.replace(tzinfo=UTC)
    assert Length.parse("100y").after(datetime(9990, 1, 1, tzinfo=UTC)) == last
    assert Length.parse("1000d").after(datetime(9999, 1, 1, tzinfo=UTC)) == last
    assert add_months(datetime(1, 3, 1, tzinfo=UTC), -12) == datetime.min.replace(tzinfo=UTC)


@given(st.datetimes(FIRST, LAST), st.integers(-600, 600))
def test_moving_by_months_lands_in_that_month_on_that_day_or_its_last(instant, months):
    moved = add_months(instant.replace(tzinfo=UTC), months)
    assert (moved.year * 12 + moved.month) - (instant.year * 12 + instant.month) == months
    assert moved.day == instant.day or (
        moved.day < instant.day and (moved + timedelta(days=1)).day == 1
    )
    assert moved.time() == instant.time()


@given(st.integers(-(10**16), 10**17))
def test_microseconds_and_instants_convert_exactly(count):
    assert micros(from_micros(count)) == count


def test_instants_are_taken_in_any_zone_and_kept_in_utc():
    berlin = datetime(2024, 7, 1, 12, tzinfo=ZoneInfo("Europe/Berlin"))
    assert as_utc(berlin, "now") == datetime(2024, 7, 1, 10, tzinfo=UTC)
    assert as_utc(berlin, "now").tzinfo is UTC
    assert as_utc(datetime(2024, 7, 1, tzinfo=timezone(timedelta(hours=5))), "now").hour == 19


@pytest.mark.parametrize("value", [datetime(2024, 7, 1), "2024-07-01", 5, None])  # noqa: DTZ001
def test_a_naive_instant_is_refused(value):
    with pytest.raises(InvalidRequest, match="now must"):
        as_utc(value, "now")


@pytest.mark.parametrize(
    "name", ["Mars/Olympus", "", "../UTC", "/etc/localtime", "Europe", "a\x00b", "x" * 300]
)
def test_a_zone_that_is_none_is_refused_in_one_line(name):
    with pytest.raises(InvalidRequest, match="unknown time zone") as caught:
        zone_named(name)
    assert "\n" not in str(caught.value)
