"""Who a buyer is at Stripe: one customer per account, and another one where the dashboard has deleted the first."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from policies.errors import PaymentRefused
from tests.stripe.plans import POLICIES, Subscribers
from tests.stripe.shop import URLS, Shop, opened
from tests.stripe.test_top_up import opted_in


@pytest.fixture(params=["sqlite", "postgresql"])
def shop(request, tmp_path) -> Iterator[Shop]:
    file = request.param == "sqlite"
    url = f"sqlite:///{tmp_path}/books.db" if file else request.getfixturevalue("database_url")
    with opened(url) as shop:
        yield shop


def delete(shop: Shop) -> str:
    """Delete the only customer, in the dashboard."""
    (customer,) = shop.stripe.every("customer")
    shop.stripe.client().v1.customers.delete(customer["id"])
    return str(customer["id"])


def customer_of(shop: Shop, session: str) -> Any:
    return shop.stripe.get(session)["customer"]


def test_two_first_checkouts_at_one_time_are_of_one_customer(shop):
    gate = shop.stripe.hold(method="POST", path="/v1/customers")
    with ThreadPoolExecutor(1) as another:
        first = another.submit(shop.checkout)
        gate.wait_until_reached()
        second = shop.checkout()
        gate.release()
        sessions = {first.result(30).session_id, second.session_id}
    assert len(sessions) == 2
    assert len({customer_of(shop, session) for session in sessions}) == 1


def test_after_a_customer_was_deleted_the_next_checkout_makes_another(shop):
    shop.bought()
    gone = delete(shop)
    shop.hear()
    checkout = shop.checkout()
    assert customer_of(shop, checkout.session_id) not in (None, gone)
    shop.stripe.pay(checkout.session_id)
    shop.hear()
    assert shop.units() == 20
    again = shop.checkout()
    assert customer_of(shop, again.session_id) == customer_of(shop, checkout.session_id)
    assert shop.comptroller.customer_portal("ann", return_url="https://shop.example/")


def test_two_checkouts_at_one_time_after_a_customer_was_deleted_are_of_one_customer(shop):
    shop.bought()
    delete(shop)
    gate = shop.stripe.hold(method="POST", path="/v1/customers")
    with ThreadPoolExecutor(1) as another:
        first = another.submit(shop.checkout)
        gate.wait_until_reached()
        second = shop.checkout()
        gate.release()
        sessions = {first.result(30).session_id, second.session_id}
    assert len({customer_of(shop, session) for session in sessions}) == 1


def test_what_is_still_heard_of_a_deleted_customer_does_not_bring_it_back(shop):
    bought = shop.bought()
    delete(shop)
    shop.checkout()
    shop.stripe.refund(bought.payment, 100)
    assert {each.type: each.status for each in shop.hear()}["customer.deleted"] == "ignored"
    assert shop.comptroller.customer_portal("ann", return_url="https://shop.example/")


def test_the_portal_of_a_deleted_customer_says_what_makes_another(shop):
    shop.bought()
    delete(shop)
    with pytest.raises(PaymentRefused, match=r"deleted at Stripe.* next checkout") as caught:
        shop.comptroller.customer_portal("ann", return_url="https://shop.example/")
    assert "\n" not in str(caught.value)
    assert not caught.value.retryable


def test_a_deleted_customer_is_topped_up_no_more_and_keeps_nobody_from_it(shop):
    opted_in(shop)
    delete(shop)
    shop.stripe.pay(shop.checkout(account="ben", save_card=True).session_id)
    shop.hear()
    assert shop.use(9, "most of ben's", account="ben")
    shop.comptroller.set_top_up("ben", pack="ten", below_units=2, cap_minor_per_month=1000)
    shop.comptroller.sweep()
    off = shop.comptroller.top_up_of("ann")
    assert off is not None
    assert off.off == "customer_deleted"
    assert (shop.units(), shop.units("ben")) == (1, 11)


def test_deleting_a_customer_ends_the_subscription_and_the_plan():
    with opened(policies=POLICIES) as shop:
        people = Subscribers(shop)
        people.subscribed("pro")
        delete(shop)
        shop.hear()
        assert people.plan() == "standard"
        checkout = shop.comptroller.checkout("ann", plan="pro", **URLS)
        shop.stripe.pay(checkout.session_id)
        shop.hear()
        assert people.plan() == "pro"
