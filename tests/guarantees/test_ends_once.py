"""A grant is settled, released or expired exactly once, and every later end says which it was."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quota import GrantEnded
from tests.databases import REFUSED
from tests.world import HOUR, MICROSECOND, World, a_world, plan

ENDS = {
    "settle": lambda world, grant: world.comptroller.settle(grant.id, gpu_seconds=5),
    "release": lambda world, grant: world.comptroller.release(grant.id, reason="cancelled"),
    "moderate": lambda world, grant: world.comptroller.release(grant.id, reason="moderated"),
}
STATUS = {"settle": "settled", "release": "released", "moderate": "released"}
CHARGED = {"settle": 3, "release": 0, "moderate": 3}


def ends(world: World) -> list[tuple[str]]:
    return world.rows("SELECT status FROM comptroller_ending")


@pytest.mark.parametrize("second", ENDS)
@pytest.mark.parametrize("first", ENDS)
def test_guarantee_ends_once_the_first_end_is_the_end(world, first, second):
    grant = world.grant(3)
    made = ENDS[first](world, grant)
    told = ENDS[second](world, grant)
    assert (made.status, made.by_this_call, made.units_charged) == (
        STATUS[first],
        True,
        CHARGED[first],
    )
    assert (told.status, told.by_this_call, told.units_charged) == (
        STATUS[first],
        False,
        CHARGED[first],
    )
    assert (told.at, told.gpu_cost_micro_usd) == (made.at, made.gpu_cost_micro_usd)
    assert ends(world) == [(STATUS[first],)]
    assert world.used() == CHARGED[first]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("swept", [True, False], ids=["swept", "not swept"])
def test_guarantee_ends_once_what_expired_stays_expired(world, end, swept):
    grant = world.grant(3)
    world.clock.set(grant.expires_at)
    if swept:
        world.comptroller.sweep()
    told = ENDS[end](world, grant)
    assert (told.status, told.by_this_call, told.late) == ("expired", False, True)
    assert ends(world) == [("expired",)]
    assert world.used() == 0


def test_guarantee_ends_once_up_to_the_last_microsecond_of_its_hold_a_grant_can_be_settled(world):
    grant = world.grant(3)
    world.clock.set(grant.expires_at - MICROSECOND)
    assert world.comptroller.settle(grant.id).by_this_call


def test_guarantee_ends_once_late_work_never_reopens_the_hold(world):
    grant = world.grant(3)
    world.clock.set(grant.expires_at)
    world.comptroller.settle(grant.id, gpu_seconds=5)
    assert world.comptroller.get(grant.id).status == "expired"
    for call in (
        lambda: world.comptroller.start(grant.id),
        lambda: world.comptroller.extend(grant.id, HOUR),
    ):
        with pytest.raises(GrantEnded) as caught:
            call()
        assert caught.value.status == "expired"


def test_guarantee_ends_once_work_on_an_ended_grant_does_not_start(world):
    grant = world.grant(3)
    world.comptroller.release(grant.id, reason="cancelled")
    with pytest.raises(GrantEnded) as caught:
        world.comptroller.start(grant.id)
    assert caught.value.status == "released"


def test_guarantee_ends_once_starting_renews_the_hold_and_heartbeats_extend_it(world):
    grant = world.grant(3)
    world.clock.set(grant.expires_at - MICROSECOND)
    started = world.comptroller.start(grant.id)
    assert started.expires_at == world.clock() + timedelta(minutes=30)
    extended = world.comptroller.extend(grant.id, timedelta(minutes=40))
    again = world.comptroller.extend(grant.id, timedelta(minutes=10))
    assert extended.expires_at == again.expires_at == world.clock() + timedelta(minutes=40)
    world.clock.set(again.expires_at)
    assert world.comptroller.get(grant.id).status == "expired"


def test_guarantee_ends_once_the_database_refuses_a_second_end(world):
    grant = world.grant(3)
    world.comptroller.settle(grant.id)
    with pytest.raises(REFUSED, match=r"(?i)unique constraint"):
        world.write(
            "INSERT INTO comptroller_ending SELECT book_id, grant_no, seq, 'released', reason, at,"
            " 0, 0, 0 FROM comptroller_ending"
        )


CALLS = st.lists(
    st.tuples(
        st.sampled_from([*ENDS, "start", "extend", "sweep"]),
        st.sampled_from([timedelta(0), timedelta(minutes=20), timedelta(minutes=31)]),
    ),
    min_size=1,
    max_size=12,
)


@given(CALLS)
def test_guarantee_ends_once_in_whatever_order_all_try(calls):
    with a_world(plan("{sources: [{kind: daily_allowance, units: 30}]}")) as world:
        grant = world.grant(3)
        made = 0
        for call, wait in calls:
            world.clock.advance(wait)
            if call in ENDS:
                made += ENDS[call](world, grant).by_this_call
            elif call == "sweep":
                world.comptroller.sweep()
            else:
                try:
                    if call == "start":
                        world.comptroller.start(grant.id)
                    else:
                        world.comptroller.extend(grant.id, timedelta(minutes=25))
                except GrantEnded:
                    assert world.comptroller.get(grant.id).status != "held"
        assert made <= 1
        assert len(ends(world)) <= 1
        assert (world.comptroller.get(grant.id).status == "held") == (
            not ends(world) and world.clock() < world.comptroller.get(grant.id).expires_at
        )
