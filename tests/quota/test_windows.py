"""Windows re-derived in one pass hold what a sum over all lines says."""

from __future__ import annotations

from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from billing.draft import Line
from policies.instants import Length
from policies.state import Measure, UsageRead
from policies.window import Window, Zones
from quota.windows import PRUNED_FROM, Usage
from tests.world import START

WINDOWS = [
    Window("rolling", Length.parse("5h")),
    Window("rolling", Length.parse("1mo")),
    Window("calendar", Length.parse("24h"), Zones("Asia/Tokyo")),
    Window("calendar", Length.parse("7d")),
]
MEASURES: tuple[tuple[Measure, str | None], ...] = (("units", None), ("spend", "usd"))
READS = [
    UsageRead(sources, window, member, measure, currency)
    for window in WINDOWS
    for sources in ((), ("a",), ("a", "b"))
    for member in (None, "", "m")
    for measure, currency in MEASURES
]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["take", "take", "return", "read"]),
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from(["", "m"]),
        st.sampled_from([None, "usd", "eur"]),
        st.integers(0, 5),
        st.sampled_from([0, 1, 3600, 18_000, 86_400, 1_000_000]),
        st.integers(0, len(READS) - 1),
    ),
    max_size=40,
)


def summed(lines: list[tuple[Line, str]], read: UsageRead, now: datetime) -> int:
    return sum(
        line.units if read.measure == "units" else line.spend_minor
        for line, member in lines
        if line.counts_at is not None
        and (not read.sources or line.source in read.sources)
        and (read.member is None or read.member == member)
        and read.window.counts(line.counts_at, now)
        and (read.measure == "units" or line.currency == read.currency)
    )


@given(STEPS)
def test_what_a_window_holds_is_what_the_lines_add_up_to(steps):
    lines: list[tuple[Line, str]] = []
    usage, now = Usage(), START
    for what, source, whose, currency, units, seconds, place in steps:
        now += timedelta(seconds=seconds)
        member = whose
        if what == "take" and units:
            line = Line(source, None, units, 0, now, units * 7, currency)
        elif what == "return" and lines:
            taken, member = lines[units % len(lines)]
            line = Line(
                taken.source, None, -1, 0, taken.counts_at, -min(7, taken.units), taken.currency
            )
        else:
            assert usage.read(READS[place], now) == summed(lines, READS[place], now)
            continue
        lines.append((line, member))
        usage.add(line, member)
    for read in READS:
        assert usage.read(read, now) == summed(lines, read, now)


def test_a_long_history_is_left_behind():
    usage, read = Usage(), UsageRead(("a",), WINDOWS[0])
    for place in range(2 * PRUNED_FROM):
        now = START + timedelta(hours=place)
        usage.add(Line("a", units=1, counts_at=now), "")
        assert usage.read(read, now) == min(5, place + 1)
