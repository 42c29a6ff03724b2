"""One account, one key, one request: one grant. A denial binds nothing."""

from __future__ import annotations

from datetime import timedelta

import pytest

from policies.policy_set import PolicySet
from quota import Grant, IdempotencyConflict
from tests.world import HOUR, POLICIES, a_world, plan


def test_guarantee_once_the_same_key_brings_the_first_grant(world):
    first = world.grant(3, key="job")
    again = world.grant(3, key="job")
    assert (again.id, again.replayed, first.replayed) == (first.id, True, False)
    assert world.used() == 3


def test_guarantee_once_a_default_that_is_spelt_out_is_the_same_request(world):
    first = world.comptroller.admit(account="u", operation="clip", key="job")
    assert world.grant(1, key="job", attributes={"prompt": "a cat"}).id == first.id


def test_guarantee_once_plan_and_consent_are_no_part_of_the_request(world):
    first = world.grant(3, key="job")
    assert world.grant(3, key="job", plan="pro", consent=True).id == first.id


@pytest.mark.parametrize(
    "other",
    [{"n": 4}, {"n": 3, "member": "ann"}, {"n": 3, "attributes": {"prompt": "a dog"}}],
    ids=["units", "member", "free text"],
)
def test_guarantee_once_another_request_under_the_key_is_a_conflict(world, other):
    world.grant(3, key="job")
    with pytest.raises(IdempotencyConflict):
        world.admit(key="job", **other)
    assert world.used() == 3


def test_guarantee_once_each_account_has_keys_of_its_own(world):
    assert world.grant(3, key="job").id != world.grant(4, key="job", account="v").id


def test_guarantee_once_a_replay_is_not_denied_by_a_limit_that_is_used_up(world):
    first = world.grant(30, key="job")
    world.deny()
    assert world.grant(30, key="job").id == first.id


def test_guarantee_once_a_replay_is_not_denied_by_a_frozen_account_or_a_deadline(world):
    first = world.grant(30, key="job")
    world.comptroller.freeze("u", reason="chargeback")
    past = world.clock() - HOUR
    assert world.grant(30, key="job", not_after=past).id == first.id


def test_guarantee_once_a_replay_says_how_the_grant_stands_now(world):
    first = world.grant(key="job")
    world.comptroller.settle(first.id)
    again = world.grant(key="job")
    assert (again.status, again.live) == ("settled", False)


def test_guarantee_once_a_grant_that_expired_is_replayed_as_expired_and_takes_nothing(world):
    first = world.grant(key="job")
    world.clock.set(first.expires_at)
    again = world.grant(key="job")
    assert (again.id, again.status, again.live) == (first.id, "expired", False)
    assert world.used() == 0


def test_guarantee_once_a_denial_binds_nothing(world):
    world.comptroller.set_plan("u", "paid")
    denial = world.deny(3, key="job")
    (offer,) = [offer for offer in denial.offers if offer.kind == "buy" and offer.pack == "ten"]
    world.buy(offer.pack)
    assert not world.grant(3, key="job").replayed
    assert world.grant(3, key="job").replayed


def test_guarantee_once_keys_live_as_long_as_the_books(world):
    first = world.grant(key="job")
    world.clock.advance(timedelta(days=3650))
    assert world.grant(key="job").id == first.id


def test_guarantee_once_a_default_that_changed_since_makes_no_other_request(tmp_path):
    database = f"sqlite:///{tmp_path}/books.db"
    with a_world(POLICIES, database=database) as world:
        first = world.comptroller.admit(account="u", operation="clip", key="job")
    changed = PolicySet.parse(POLICIES.replace("default: 1, min", "default: 2, min"))
    with a_world(changed, database=database) as world:
        again = world.comptroller.admit(account="u", operation="clip", key="job")
        assert isinstance(again, Grant)
        assert (again.id, again.replayed) == (first.id, True)
        with pytest.raises(IdempotencyConflict):
            world.admit(2, key="job")


def test_guarantee_once_a_purchase_is_booked_once_per_reference(world):
    first = world.buy("ten", "order-1")
    again = world.buy("ten", "order-1")
    assert (again.id, again.replayed) == (first.id, True)
    assert world.credits() == 10
    for pack, account in (("three", "u"), ("ten", "v")):
        with pytest.raises(IdempotencyConflict):
            world.buy(pack, "order-1", account)
    assert world.credits() == 10


def test_guarantee_once_promotions_are_booked_once_per_origin_and_reference(world):
    for origin in ("launch", "launch", "sorry"):
        world.comptroller.add_credits("u", units=5, origin=origin, reference="2026")
    assert world.credits() == 10
    with pytest.raises(IdempotencyConflict):
        world.comptroller.add_credits("u", units=6, origin="launch", reference="2026")


@pytest.mark.parametrize("origin", ["grant", "end", "attempt:1", "late", "lot_expiry", "a:b"])
def test_guarantee_once_no_origin_takes_the_place_of_another_record(world, origin):
    """What a host calls its promotions must not look like the books' own keys."""
    world.comptroller.set_plan("u", "standard")
    grant = world.grant()
    for reference in ("1", "2", "b:1"):
        world.comptroller.add_credits("u", units=1, origin=origin, reference=reference)
    world.comptroller.add_credits("u", units=1, origin="a", reference="b:1")
    assert world.comptroller.settle(grant.id).by_this_call
    world.grant()


def test_guarantee_once_a_refund_is_booked_once_per_reference_and_lot(world):
    lot, other = world.buy(), world.buy()
    first = world.comptroller.refund_lot(lot.id, reference="refund")
    again = world.comptroller.refund_lot(lot.id, reference="refund")
    assert (first.units, first.amount_minor, first.by_this_call) == (10, 400, True)
    assert (again.units, again.amount_minor, again.by_this_call) == (10, 400, False)
    with pytest.raises(IdempotencyConflict):
        world.comptroller.refund_lot(other.id, reference="refund")
    assert world.credits() == 10


def test_guarantee_once_a_crashed_attempt_is_booked_once():
    with a_world(plan("{sources: [{kind: daily_allowance, units: 30}]}")) as world:
        grant = world.grant()
        for _ in range(2):
            assert world.comptroller.add_gpu_cost(grant.id, gpu_seconds=7, attempt="1") == 7000
        with pytest.raises(IdempotencyConflict):
            world.comptroller.add_gpu_cost(grant.id, gpu_seconds=8, attempt="1")
        assert world.sums("gpu_micro_usd") == (7000,)
