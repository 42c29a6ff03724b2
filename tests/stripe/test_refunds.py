"""A refund of ours is made once for each name that it is given, and refunds what is left of any payment."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from policies.errors import IdempotencyConflict, InvalidRequest, PaymentUnavailable
from tests.stripe.plans import POLICIES, Subscribers
from tests.stripe.shop import Shop, opened

DAYS = timedelta(days=2)
"""Longer than Stripe remembers by which key it was asked."""


@pytest.fixture
def shop() -> Iterator[Shop]:
    with opened() as shop:
        yield shop


def test_the_same_name_refunds_once_also_when_stripe_has_forgotten_its_key(shop):
    bought = shop.bought()
    first = shop.comptroller.refund(bought.id, 100, key="ticket-81")
    shop.clock.advance(DAYS)
    again = shop.comptroller.refund(bought.id, 100, key="ticket-81")
    assert (first.refunded_minor, again.refunded_minor) == (100, 100)
    assert len(shop.stripe.every("refund")) == 1
    assert shop.comptroller.refund(bought.id, 100, key="ticket-82").refunded_minor == 200
    with pytest.raises(IdempotencyConflict, match="was made of 100 usd"):
        shop.comptroller.refund(bought.id, 101, key="ticket-82")


def test_a_refund_of_all_that_is_left_can_be_repeated_under_its_name(shop):
    bought = shop.bought()
    assert shop.comptroller.refund(bought.id, key="ticket-81").refunded_minor == 400
    assert shop.comptroller.refund(bought.id, key="ticket-81").refunded_minor == 400
    assert len(shop.stripe.every("refund")) == 1
    with pytest.raises(InvalidRequest, match="0 usd"):
        shop.comptroller.refund(bought.id, key="ticket-82")


def test_what_a_lost_dispute_has_taken_is_not_left_to_refund(shop):
    bought = shop.bought()
    (charge,) = shop.stripe.every("charge")
    shop.stripe.dispute(charge["id"], 150)
    shop.stripe.lose(shop.stripe.every("dispute")[-1]["id"])
    shop.hear()
    with pytest.raises(InvalidRequest, match="250 usd"):
        shop.comptroller.refund(bought.id, 251)


def test_a_refund_that_nobody_has_heard_of_is_found_at_stripe_by_its_name(shop):
    bought = shop.bought()
    shop.stripe.go_wrong("cut", after=True, method="POST", path="/v1/refunds", times=3)
    with pytest.raises(PaymentUnavailable):
        shop.comptroller.refund(bought.id, 100, key="ticket-81")
    shop.stripe.heal()
    shop.clock.advance(DAYS)
    assert shop.comptroller.refund(bought.id, 100, key="ticket-81").refunded_minor == 100
    assert len(shop.stripe.every("refund")) == 1
    assert shop.units() == 8


@pytest.mark.parametrize("key", ["", "k" * 201, 7])
def test_what_is_no_name_for_a_refund_is_refused(shop, key):
    bought = shop.bought()
    with pytest.raises(InvalidRequest, match="key"):
        shop.comptroller.refund(bought.id, 100, key=key)
    assert shop.stripe.every("refund") == []


def test_two_invoices_of_a_plan_are_refunded_one_after_the_other():
    with opened(policies=POLICIES) as shop:
        people = Subscribers(shop)
        subscription = people.subscribed("pro")
        shop.clock.advance(timedelta(days=31))
        shop.stripe.renew(subscription)
        shop.hear()
        (bought,) = shop.comptroller.purchases("ann")
        assert shop.comptroller.refund(bought.id).refunded_minor == 3000
        assert shop.comptroller.refund(bought.id).refunded_minor == 6000
        assert len(shop.stripe.every("refund")) == 2
