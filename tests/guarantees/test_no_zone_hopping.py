"""A new time zone takes effect when the window ends, and its first boundary is 20 hours off at least."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.world import DAY, HOUR, MICROSECOND, START, a_world, plan

DAILY = "{sources: [{kind: daily_allowance, units: 30, window: calendar}]}"
ZONES = (
    "UTC",
    "Pacific/Kiritimati",
    "Pacific/Pago_Pago",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Tokyo",
)


def test_guarantee_no_zone_hopping_an_account_begins_in_the_zone_that_it_is_given():
    with a_world(plan(DAILY)) as world:
        world.comptroller.set_account("u", timezone="Asia/Tokyo")
        world.grant(30)
        world.clock.set(datetime(2026, 3, 2, 15, tzinfo=UTC))  # midnight in Tokyo
        world.grant(30)


def test_guarantee_no_zone_hopping_a_new_zone_waits_for_the_end_of_the_window():
    with a_world(plan(DAILY)) as world:
        world.comptroller.settle(world.grant(30).id)
        world.comptroller.set_account("u", timezone="Asia/Tokyo")
        world.clock.set(datetime(2026, 3, 2, 15, tzinfo=UTC))
        world.deny(1)
        world.clock.set(datetime(2026, 3, 3, tzinfo=UTC) - MICROSECOND)
        world.deny(1)
        world.clock.set(datetime(2026, 3, 3, tzinfo=UTC))
        world.comptroller.settle(world.grant(30).id)
        world.clock.set(datetime(2026, 3, 3, 15, tzinfo=UTC))  # only 15 hours later
        assert world.deny(1).retry_at == datetime(2026, 3, 4, 15, tzinfo=UTC)
        world.clock.set(datetime(2026, 3, 4, 15, tzinfo=UTC))
        world.grant(30)


def test_guarantee_no_zone_hopping_a_new_zone_every_hour_mints_no_days():
    with a_world(plan(DAILY)) as world:
        taken = 0
        for hour in range(48):
            world.comptroller.set_account("u", timezone=ZONES[hour % len(ZONES)])
            decision = world.admit(30)
            if decision:
                world.comptroller.settle(decision.id)
                taken += 1
            world.clock.advance(HOUR)
        assert taken <= 3


HOP = st.tuples(st.sampled_from(ZONES), st.integers(0, 30))


@settings(max_examples=15)
@given(st.lists(HOP, max_size=8))
def test_guarantee_no_zone_hopping_windows_begin_20_hours_apart_whatever_is_asked_for(hops):
    with a_world(plan(DAILY)) as world:
        renewed = []
        world.comptroller.settle(world.grant(30).id)
        for zone, hours in hops:
            world.comptroller.set_account("u", timezone=zone)
            for _ in range(hours):
                world.clock.advance(HOUR)
                decision = world.admit(30)
                if decision:
                    world.comptroller.settle(decision.id)
                    renewed.append(world.clock())
        # Asked every hour: a window's first grant comes within the hour after it began.
        gaps = [later - earlier for earlier, later in pairwise(renewed)]
        assert all(gap >= timedelta(hours=19) for gap in gaps)
        assert len(renewed) <= (world.clock() - START) / timedelta(hours=20) + 1


def test_guarantee_no_zone_hopping_a_policys_own_zone_beats_the_accounts():
    own = plan(DAILY.replace("calendar}", "calendar, timezone: Asia/Tokyo}"))
    with a_world(own) as world:
        world.comptroller.settle(world.grant(30).id)
        world.comptroller.set_account("u", timezone="Pacific/Kiritimati")
        assert world.deny(1).retry_at == datetime(2026, 3, 2, 15, tzinfo=UTC)
        world.clock.advance(DAY)
        world.grant(30)
