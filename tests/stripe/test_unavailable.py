"""Selling when Stripe is away, refuses, or was never set up; and what of secrets shows meanwhile: nothing."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from billing.payments import Purchase
from billing.stripe import gateway as gateway_module
from policies.errors import (
    ComptrollerError,
    InvalidRequest,
    PaymentNotConfigured,
    PaymentRefused,
    PaymentUnavailable,
)
from policies.policy_set import PolicySet
from quota import Comptroller, StripeSettings
from quota.testing import FakeClock
from tests.stripe.shop import POLICIES, URLS, Shop, opened

SESSIONS = "/v1/checkout/sessions"
SELLING: list[Callable[[Comptroller], Any]] = [
    lambda comptroller: comptroller.checkout("ann", pack="ten", **URLS),
    lambda comptroller: comptroller.refund("pu_1"),
    lambda comptroller: comptroller.customer_portal("ann", return_url="https://shop.example/"),
    lambda comptroller: comptroller.handle_stripe_event(b"{}", "t=1,v1=x"),
]


@pytest.fixture
def shop() -> Iterator[Shop]:
    with opened() as shop:
        yield shop


@pytest.fixture
def poor(monkeypatch) -> Iterator[Comptroller]:
    """A backend without a Stripe account."""
    for name in ("STRIPE_API_KEY", "STRIPE_WEBHOOK_SECRETS", "STRIPE_API_BASE"):
        monkeypatch.delenv(name, raising=False)
    with Comptroller.open(PolicySet.parse(POLICIES), "sqlite://", clock=FakeClock()) as comptroller:
        yield comptroller


@pytest.mark.parametrize("call", SELLING, ids=["checkout", "refund", "customer_portal", "webhook"])
def test_without_a_stripe_key_selling_says_in_one_line_what_to_set(poor, call):
    with pytest.raises(PaymentNotConfigured) as refused:
        call(poor)
    assert isinstance(refused.value, InvalidRequest)  # as it was before it had a name of its own
    said = str(refused.value)
    assert "\n" not in said
    for what in ("no Stripe key", "STRIPE_API_KEY", "STRIPE_WEBHOOK_SECRETS", "stripe=StripeSett"):
        assert what in said


def test_without_a_stripe_key_everything_else_works(poor):
    poor.record_purchase("ann", pack="ten", reference="order-1")
    grant = poor.admit(account="ann", operation="clip", key="job-1")
    poor.settle(grant.id, gpu_seconds=100)
    assert poor.balance("ann").credits == 9
    assert poor.purchases("ann") == []
    assert poor.stripe_events() == []
    poor.sweep()
    poor.forget("ann")
    assert poor.verify() == []


def test_without_a_webhook_secret_events_are_refused_and_the_rest_sells(shop):
    settings = shop.comptroller._stripe
    shop.comptroller._stripe = StripeSettings(shop.stripe.api_key, [], shop.stripe.url)
    shop.checkout()
    with pytest.raises(
        PaymentNotConfigured, match="no webhook secret is configured: set STRIPE_API_KEY"
    ):
        shop.comptroller.handle_stripe_event(b"{}", "t=1,v1=x")
    shop.comptroller._stripe = settings


def test_the_environment_says_how_to_reach_stripe(monkeypatch, shop):
    monkeypatch.setenv("STRIPE_API_KEY", f" {shop.stripe.api_key}\n")
    monkeypatch.setenv("STRIPE_WEBHOOK_SECRETS", f"whsec_former, {shop.stripe.webhook_secret},")
    monkeypatch.setenv("STRIPE_API_BASE", shop.stripe.url)
    with Comptroller.open(PolicySet.parse(POLICIES), "sqlite://", clock=shop.clock) as comptroller:
        checkout = comptroller.checkout("bea", pack="ten", **URLS)
        shop.stripe.pay(checkout.session_id)
        for delivery in shop.stripe.deliveries("checkout.session.completed"):
            comptroller.handle_stripe_event(*delivery)
        assert comptroller.balance("bea").credits == 10


# --- Stripe is away ---------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def impatient(monkeypatch) -> None:
    """Wait less for a server that is silent."""
    monkeypatch.setattr(gateway_module, "TIMEOUT_SECONDS", (0.5, 0.5))


@pytest.mark.parametrize("kind", ["rate_limit", "error", "silence", "cut"])
def test_while_stripe_is_away_asking_again_may_help_and_nothing_is_owed(shop, kind):
    shop.stripe.go_wrong(kind, method="POST", times=10)
    with pytest.raises(PaymentUnavailable) as caught:
        shop.checkout()
    assert caught.value.retryable
    assert "\n" not in str(caught.value)
    assert "ask again" in str(caught.value)
    (purchase,) = shop.comptroller.purchases("ann")
    assert (purchase.status, purchase.session_id) == ("pending", None)
    shop.stripe.heal()
    checkout = shop.checkout()
    shop.stripe.pay(checkout.session_id)
    shop.hear()
    assert shop.units() == 10


def test_a_key_that_stripe_does_not_know_is_said_to_be_wrong_and_not_repeated(shop):
    shop.comptroller._stripe = StripeSettings("sk_test_of_somebody_else", [], shop.stripe.url)
    with pytest.raises(PaymentRefused, match="does not accept the API key") as caught:
        shop.checkout()
    assert not caught.value.retryable
    assert "somebody" not in "".join(traceback.format_exception(caught.value))


def test_a_key_that_may_not_do_it_is_refused(shop):
    shop.stripe.go_wrong("forbidden", method="POST", times=3)
    with pytest.raises(PaymentRefused, match="allowed to do this"):
        shop.checkout()


def test_a_price_that_somebody_archives_between_two_checkouts_is_made_anew(shop):
    shop.checkout()
    (first,) = shop.stripe.every("price")
    for _ in range(2):
        active = [each for each in shop.stripe.every("price") if each["active"]]
        shop.stripe.edit_price(active[0]["id"], active=False)
        shop.checkout()
    shop.stripe.pay(shop.checkout().session_id)
    assert len(shop.stripe.every("price")) == 3
    assert {each["unit_amount"] for each in shop.stripe.every("price")} == {first["unit_amount"]}
    shop.hear()
    assert shop.units() == 10


@pytest.mark.parametrize("forgets", [True, False], ids=["another process", "this process"])
def test_a_product_that_somebody_archives_is_made_anew(shop, forgets):
    shop.checkout()
    (product,) = shop.stripe.every("product")
    shop.stripe.edit_product(product["id"], active=False)
    if forgets:
        shop.comptroller._made_gateway = None
    shop.stripe.pay(shop.checkout().session_id)
    shop.hear()
    assert shop.units() == 10
    assert [each["active"] for each in shop.stripe.every("product")] == [False, True]


def test_a_reply_that_is_lost_once_makes_no_second_session(shop):
    shop.stripe.go_wrong("cut", after=True, path=SESSIONS)
    checkout = shop.checkout()
    assert [each["id"] for each in shop.stripe.every("checkout.session")] == [checkout.session_id]
    assert len(shop.stripe.requested("POST", SESSIONS)) == 2


@pytest.mark.parametrize("kind", ["cut", "silence"])
def test_asking_again_for_the_same_purchase_gives_the_same_session(shop, kind):
    shop.stripe.go_wrong(kind, after=True, path=SESSIONS, times=3)
    with pytest.raises(PaymentUnavailable):
        shop.checkout()
    (made,) = shop.stripe.every("checkout.session")
    (offered,) = shop.comptroller.purchases("ann")
    with shop.comptroller._db.reading() as db:
        sale = gateway_sale(db, offered.id)
    again = shop.comptroller._gateway().create_session(
        sale,
        made["customer"],
        (URLS["success_url"], URLS["cancel_url"]),
        promotion_codes=False,
        automatic_tax=False,
        save_card=False,
    )
    assert again["id"] == made["id"]
    # Its buyer has never seen it; should it be paid all the same, its event finds the purchase.
    shop.stripe.pay(made["id"])
    shop.hear()
    assert shop.comptroller.purchase(offered.id).status == "paid"
    assert shop.units() == 10


def gateway_sale(db: Any, purchase_id: str) -> Purchase:
    from billing.stripe.purchases import load_sale

    sale = load_sale(db, purchase_id)
    assert sale is not None
    return sale.purchase


def test_a_refund_whose_reply_is_lost_is_made_once(shop):
    bought = shop.bought()
    shop.stripe.go_wrong("cut", after=True, path="/v1/refunds", times=3)
    with pytest.raises(PaymentUnavailable):
        shop.comptroller.refund(bought.id, 100)
    assert shop.comptroller.refund(bought.id, 100).refunded_minor == 100
    assert len(shop.stripe.every("refund")) == 1
    shop.hear()
    assert shop.comptroller.purchase(bought.id).refunded_minor == 100
    assert shop.comptroller.refund(bought.id, 100).refunded_minor == 200


def test_the_same_call_again_is_another_offer_and_both_may_be_paid(shop):
    first, second = shop.checkout(), shop.checkout()
    assert first.purchase_id != second.purchase_id
    assert first.session_id != second.session_id
    assert len(shop.stripe.every("price")) == 1
    assert len(shop.stripe.every("customer")) == 1
    shop.stripe.pay(second.session_id)
    shop.hear()
    states = {each.id: each.status for each in shop.comptroller.purchases("ann")}
    assert states == {first.purchase_id: "pending", second.purchase_id: "paid"}
    shop.stripe.pay(first.session_id)
    shop.hear()
    assert shop.units() == 20


NO_TEXT: Any = None
REFUSED: list[Callable[[Shop], Any]] = [
    lambda shop: shop.checkout("twelve"),
    lambda shop: shop.checkout("seven", currency="jpy"),
    lambda shop: shop.checkout("ten", currency="dollars"),
    lambda shop: shop.checkout("ten", account=""),
    lambda shop: shop.comptroller.checkout("ann", pack="ten", success_url="", cancel_url="x"),
    lambda shop: shop.comptroller.checkout("ann", pack="ten", success_url=NO_TEXT, cancel_url="x"),
    lambda shop: shop.comptroller.purchase("pu_1"),
    lambda shop: shop.comptroller.refund("pu_1"),
    lambda shop: shop.comptroller.refund(NO_TEXT),
    lambda shop: shop.comptroller.customer_portal("nobody", return_url="https://shop.example/"),
    lambda shop: shop.comptroller.stripe_events(most=NO_TEXT),
    lambda shop: shop.comptroller.purchases("a\nb"),
]


@pytest.mark.parametrize("call", REFUSED, ids=range(len(REFUSED)))
def test_what_cannot_be_sold_is_refused_before_stripe_is_asked(shop, call):
    with pytest.raises(InvalidRequest) as refused:
        call(shop)
    assert "\n" not in str(refused.value)
    assert shop.stripe.requests == []
    assert shop.comptroller.purchases("ann") == []


@pytest.mark.parametrize("amount", [0, -1, 401, 1.5, True, "1.00", 10**30])
def test_no_more_is_refunded_than_was_paid(shop, amount):
    bought = shop.bought()
    with pytest.raises(InvalidRequest) as refused:
        shop.comptroller.refund(bought.id, amount)
    assert "\n" not in str(refused.value)
    assert shop.stripe.every("refund") == []


def test_what_was_not_paid_is_not_refunded(shop):
    checkout = shop.checkout()
    with pytest.raises(InvalidRequest, match="is pending: nothing was paid for it"):
        shop.comptroller.refund(checkout.purchase_id)


# --- secrets ------------------------------------------------------------------------------------


def test_no_secret_shows_in_a_representation_a_log_or_an_error(shop, caplog):
    caplog.set_level(logging.DEBUG)
    gateway = shop.comptroller._gateway()
    shown = [repr(shop.comptroller._stripe), str(shop.comptroller._stripe), repr(gateway)]
    shown += [repr(shop.comptroller), repr(shop.comptroller.health())]
    bought = shop.bought()
    shop.comptroller.refund(bought.id, 100)
    shop.hear()
    shown += [repr(each) for each in shop.comptroller.stripe_events()]
    for kind in ("rate_limit", "error", "forbidden"):
        shop.stripe.go_wrong(kind, method="POST")
        with pytest.raises(ComptrollerError) as caught:
            shop.comptroller.customer_portal("ann", return_url="https://shop.example/")
        shown += ["".join(traceback.format_exception(caught.value))]
    with pytest.raises(ComptrollerError) as caught:
        shop.comptroller.handle_stripe_event(b"{}", "t=1,v1=x")
    shown += ["".join(traceback.format_exception(caught.value)), caplog.text]
    assert "stripe" in caplog.text
    for secret in (shop.stripe.api_key, shop.stripe.webhook_secret):
        assert secret.partition("_")[2][-12:] not in "\n".join(shown)
