"""Discounts and taxes: the lines give the sums, to the cent."""

from __future__ import annotations

import pytest
import stripe

from tests.stripe_server import baskets
from tests.stripe_server.test_packs import session_of
from tests.stripe_server.test_subscriptions import subscribed


def coupon(client, **more):
    return client.v1.coupons.create({"duration": "once", **more})


def sums(session):
    details = session["total_details"]
    return (
        session["amount_subtotal"],
        details["amount_discount"],
        details["amount_tax"],
        session["amount_total"],
    )


def test_a_promotion_code_is_typed_at_checkout(server, client, pack):
    off = coupon(client, percent_off=25)
    code = client.v1.promotion_codes.create(
        {"promotion": {"type": "coupon", "coupon": off.id}, "code": "SPRING", "max_redemptions": 1}
    )
    session = session_of(client, pack, allow_promotion_codes=True)
    paid = server.pay(session, promotion_code="spring")
    assert sums(paid) == (2000, 500, 0, 1500)
    assert paid["discounts"] == [{"coupon": off.id, "promotion_code": code.id}]
    used = client.v1.promotion_codes.retrieve(code.id)
    assert (used.times_redeemed, used.active) == (1, False)
    with pytest.raises(ValueError, match="no promotion code"):
        server.pay(session_of(client, pack, allow_promotion_codes=True), promotion_code="SPRING")


def test_a_discount_may_come_with_the_session(server, client, pack):
    off = coupon(client, amount_off=300, currency="usd")
    session = session_of(client, pack, discounts=[{"coupon": off.id}])
    assert sums(session) == (2000, 300, 0, 1700)
    server.pay(session)
    assert client.v1.coupons.retrieve(off.id).times_redeemed == 1
    with pytest.raises(stripe.InvalidRequestError, match="only specify one"):
        session_of(client, pack, discounts=[{"coupon": off.id}], allow_promotion_codes=True)


def test_a_session_for_nothing_needs_no_payment(server, client, pack):
    off = coupon(client, percent_off=100)
    paid = server.pay(session_of(client, pack, discounts=[{"coupon": off.id}]))
    assert (paid["payment_status"], paid["payment_intent"]) == ("no_payment_required", None)


def test_tax_comes_with_the_address(server, client, pack):
    session = session_of(client, pack, automatic_tax={"enabled": True})
    assert session.automatic_tax.status == "requires_location_inputs"
    paid = server.pay(session, tax=390)
    assert sums(paid) == (2000, 0, 390, 2390)
    assert server.get(paid["payment_intent"])["amount"] == 2390
    [line] = client.v1.checkout.sessions.line_items.list(session.id).data
    assert (line.amount_subtotal, line.amount_tax, line.amount_total) == (2000, 390, 2390)


def test_parts_give_the_whole_again():
    assert baskets.spread(100, [1, 1, 1]) == [33, 33, 34]
    assert baskets.spread(0, [5, 5]) == [0, 0]
    assert baskets.spread(10, [0, 0]) == [0, 0]


def test_a_discount_of_a_subscription_lasts_as_long_as_its_coupon(server, client, clock, basic):
    once, forever = (
        coupon(client, percent_off=50),
        coupon(client, percent_off=50, duration="forever"),
    )
    first = subscribed(server, client, basic, discounts=[{"coupon": once.id}])
    second = subscribed(server, client, basic, discounts=[{"coupon": forever.id}])
    paid = [server.get(each["latest_invoice"])["amount_paid"] for each in (first, second)]
    assert paid == [1500, 1500]
    clock.advance(days=31)
    assert [server.renew(each)["amount_paid"] for each in (first, second)] == [3000, 1500]


def test_a_coupon_may_be_for_one_product(server, client, pack, basic):
    off = coupon(client, percent_off=50, applies_to={"products": [basic.product]})
    assert client.v1.coupons.retrieve(off.id, {"expand": ["applies_to"]}).applies_to.products == [
        basic.product
    ]
    assert sums(session_of(client, pack, discounts=[{"coupon": off.id}])) == (2000, 0, 0, 2000)
    lines = [{"price": basic.id, "quantity": 1}, {"price": pack.id, "quantity": 1}]
    made = subscribed(server, client, basic, line_items=lines, discounts=[{"coupon": off.id}])
    assert server.get(made["latest_invoice"])["amount_paid"] == 3500


@pytest.mark.parametrize(
    "restriction",
    [
        {"restrictions": {"minimum_amount": 2001, "minimum_amount_currency": "usd"}},
        {"customer": "another"},
        {"restrictions": {"first_time_transaction": True}},
        {"expires_at": 1_000_000_000},
        {"active": False},
    ],
)
def test_a_promotion_code_may_not_be_for_everybody(server, client, pack, restriction):
    customer = client.v1.customers.create({"email": "ada@example.com"})
    server.pay(session_of(client, pack, customer=customer.id))
    if "customer" in restriction:
        restriction = {"customer": client.v1.customers.create({}).id}
    promotion = {"type": "coupon", "coupon": coupon(client, percent_off=10).id}
    code = client.v1.promotion_codes.create({"promotion": promotion, "code": "X", **restriction})
    discounts = [{"promotion_code": code.id}]
    with pytest.raises(stripe.InvalidRequestError, match="promotion code cannot be redeemed"):
        session_of(client, pack, customer=customer.id, discounts=discounts)
    session = session_of(client, pack, customer=customer.id, allow_promotion_codes=True)
    with pytest.raises(ValueError, match="promotion code"):
        server.pay(session, promotion_code="x")


def test_a_coupon_is_of_one_currency(client, pack):
    off = coupon(client, amount_off=100, currency="eur")
    with pytest.raises(stripe.InvalidRequestError, match="is in eur, not in usd"):
        session_of(client, pack, discounts=[{"coupon": off.id}])
