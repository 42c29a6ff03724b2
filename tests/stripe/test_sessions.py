"""What a Checkout Session says: paid, or nothing to pay, and nothing in between gives units."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from billing.payments import Purchase
from tests.stripe.shop import Shop, opened
from tests.stripe.test_bad_events import edited, hear, payload_of


@pytest.fixture
def shop() -> Iterator[Shop]:
    with opened() as shop:
        yield shop


def test_a_session_that_asked_for_no_payment_and_expired_has_failed(shop):
    checkout = shop.checkout()
    shop.stripe.expire(checkout.session_id)
    payload = edited(
        payload_of(shop, "checkout.session.expired"),
        data__object__payment_status="no_payment_required",
        data__object__amount_total=0,
    )
    assert hear(shop, payload).status == "done"
    assert shop.comptroller.purchase(checkout.purchase_id).status == "failed"


def test_a_payment_that_is_put_off_to_a_later_day_gives_nothing_yet(shop):
    checkout = shop.checkout()
    shop.stripe.pay(checkout.session_id)
    paid = payload_of(shop, "checkout.session.completed")
    later = edited(paid, id="evt_x", data__object__payment_status="no_payment_required")
    assert hear(shop, later).status == "done"
    assert shop.comptroller.purchase(checkout.purchase_id).status == "pending"
    assert (shop.units(), shop.ledger()) == (0, {})
    hear(shop, paid)
    assert shop.units() == 10


def test_a_session_that_only_keeps_a_card_is_not_about_a_payment(shop):
    checkout = shop.checkout()
    shop.stripe.pay(checkout.session_id)
    paid = payload_of(shop, "checkout.session.completed")
    nothing = {"data__object__amount_subtotal": None, "data__object__amount_total": None}
    setup = edited(paid, id="evt_x", data__object__mode="setup", **nothing)
    assert hear(shop, setup).status == "ignored"
    assert (shop.units(), shop.ledger()) == (0, {})


def test_the_session_knows_its_payment_whoever_has_copied_our_metadata_before(shop):
    checkout = shop.checkout()
    copied = {"comptroller_purchase": checkout.purchase_id, "comptroller_kind": "pack"}
    shop.stripe.client().v1.payment_intents.create(
        {"amount": 400, "currency": "usd", "metadata": copied}
    )
    shop.hear()
    shop.stripe.pay(checkout.session_id)
    shop.hear()
    payment = shop.stripe.get(checkout.session_id)["payment_intent"]
    assert shop.comptroller.purchase(checkout.purchase_id).payment == payment
    shop.stripe.refund(payment, 200)
    shop.hear()
    assert shop.comptroller.purchase(checkout.purchase_id).refunded_minor == 200
    assert shop.units() == 5


def test_a_pack_of_other_content_has_another_price_at_stripe(shop):
    pack = Purchase("pu_1", "ten", 10, 400, "usd", 0, "12mo", "sha256:0")
    others = [
        replace(pack, price_minor=500),
        replace(pack, units=20),
        replace(pack, currency="eur"),
    ]
    price = shop.comptroller._gateway().price
    assert len({price(each) for each in (pack, *others)}) == 4
    assert price(replace(pack, id="pu_2", policy_version="sha256:1")) == price(pack)
