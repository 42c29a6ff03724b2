"""What is heard of an account after it was forgotten goes on the books, and names nobody."""

from __future__ import annotations

from tests.stripe.shop import opened


def test_what_is_heard_of_a_forgotten_account_is_booked_and_names_nobody():
    with opened() as shop:
        bought = shop.bought()
        shop.comptroller.forget("ann")
        shop.stripe.refund(bought.payment, 150)
        outcomes = shop.hear()
        assert "refunded: 150 usd (minor units)" in [each.effect for each in outcomes]
        assert shop.comptroller.purchase(bought.id).refunded_minor == 150
        shop.stripe.dispute(shop.stripe.every("charge")[0]["id"], 250)
        shop.hear()
        of_it = [each for each in shop.comptroller.stripe_events() if each.payment]
        assert len(of_it) >= 4
        assert [each.payload for each in of_it] == [None] * len(of_it)
        with shop.comptroller._db.reading() as db:
            cursor = db.driver.cursor()
            cursor.execute("SELECT count(*) FROM comptroller_stripe_customer")
            assert cursor.fetchall() == [(0,)]
