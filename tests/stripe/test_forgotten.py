"""What is heard of an account after it was forgotten goes on the books, and names nobody."""

from __future__ import annotations

import pytest

from tests.stripe.shop import opened
from tests.stripe.test_top_up import opted_in


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


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_what_is_ignored_of_a_forgotten_account_loses_its_bytes_after_thirty_days(kind, request):
    database = "sqlite://" if kind == "sqlite" else request.getfixturevalue("database_url")
    with opened(database) as shop:
        shop.bought()
        (customer,) = shop.stripe.every("customer")
        shop.comptroller.forget("ann")
        client = shop.stripe.client()
        client.v1.customers.update(customer["id"], {"name": "Ann Example"})
        client.v1.customers.delete(customer["id"])
        assert {each.status for each in shop.hear()} == {"ignored"}

        def naming() -> list[str]:
            """Which events name the buyer."""
            events = shop.comptroller.stripe_events()
            return sorted(each.type for each in events if b"Ann Example" in (each.payload or b""))

        assert naming() == ["customer.deleted", "customer.updated"]
        shop.clock.advance(days=30)
        shop.comptroller.sweep()
        assert naming() == ["customer.deleted", "customer.updated"]
        shop.clock.advance(seconds=1)
        shop.comptroller.sweep()
        assert naming() == []
        ignored = shop.comptroller.stripe_events("ignored")
        assert len(ignored) > 2
        assert [each.payload for each in ignored] == [None] * len(ignored)
        worked_off = shop.comptroller.stripe_events("done")
        assert [each.payload for each in worked_off] == [None] * len(worked_off), (
            "as forget left them"
        )


def test_a_forgotten_account_is_topped_up_no_more():
    with opened() as shop:
        opted_in(shop)
        shop.comptroller.forget("ann")
        before = shop.stripe.requests
        shop.comptroller.sweep()
        assert shop.stripe.requests == before
        with shop.comptroller._db.reading() as db:
            cursor = db.driver.cursor()
            cursor.execute("SELECT off FROM comptroller_top_up")
            assert cursor.fetchall() == [("the account was forgotten",)]
            cursor.execute("SELECT count(*) FROM comptroller_purchase")
            assert cursor.fetchall() == [(1,)]
