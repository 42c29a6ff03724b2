"""What reconciliation cannot bring together it tells, with both sides, until somebody has seen to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from fractions import Fraction
from typing import Any

import pytest

from billing.stripe.signature import sign
from policies.errors import PaymentUnavailable
from policies.policy_set import PolicySet
from quota import Comptroller, StripeSettings
from quota.testing import FakeClock
from tests.stripe.plans import POLICIES as PLANS
from tests.stripe.shop import POLICIES, URLS, Shop, opened
from tests.stripe.test_reconcile import kinds, paid_out
from tests.stripe_server import StripeServer

DAY = timedelta(days=1)
PAID = {"status": "complete", "payment_status": "paid", "payment_intent": "pi_forged"}


@pytest.fixture
def shop() -> Iterator[Shop]:
    with opened() as shop:
        yield shop


def forged(shop: Shop, kind: str, about: dict[str, Any], **changed: Any) -> None:
    """Have the backend hear of an event that Stripe has never made: somebody has the endpoint's secret."""
    shop.heard += 1
    event = {
        "id": f"evt_forged{shop.heard}",
        "object": "event",
        "type": kind,
        "created": int(shop.clock().timestamp()),
        "livemode": False,
        "api_version": None,
        "data": {"object": {**about, **changed}},
    }
    payload = json.dumps(event).encode()
    header = sign(payload, shop.stripe.webhook_secret, int(shop.clock().timestamp()))
    assert shop.comptroller.handle_stripe_event(payload, header).status == "done"


def test_a_lot_that_nobody_has_paid_disagrees(shop):
    checkout = shop.checkout()
    session = shop.stripe.get(checkout.session_id)
    forged(shop, "checkout.session.completed", session, **PAID)
    assert shop.units() == 10
    shop.clock.advance(hours=1)
    found = shop.comptroller.reconcile_stripe()
    assert kinds(found) == ["no_payment", "session"]
    left = {each.kind: each for each in found.disagreements}
    lot = shop.comptroller.purchase(checkout.purchase_id).lot_id
    assert left["no_payment"].purchase == checkout.purchase_id
    assert left["no_payment"].theirs == "checkout.session: open"
    assert left["no_payment"].ours == f"{lot}: 400 usd (minor units)"
    assert (left["session"].theirs, left["session"].ours) == ("open", "paid")


def test_a_lot_whose_session_stripe_does_not_know_disagrees(shop):
    checkout = shop.checkout()
    session = shop.stripe.get(checkout.session_id)
    forged(shop, "checkout.session.completed", session, **PAID)
    shop.clock.advance(hours=1)
    with StripeServer(shop.clock) as other:
        settings = StripeSettings(other.api_key, [], other.url)
        shop.comptroller._stripe, shop.comptroller._made_gateway = settings, None
        found = shop.comptroller.reconcile_stripe()
    (left,) = found.disagreements
    assert (left.kind, left.id, left.theirs) == (
        "no_payment",
        checkout.session_id,
        "no such payment",
    )


def test_what_stripe_says_otherwise_of_a_refund_is_taken_over(shop):
    bought = shop.bought()
    refund = shop.stripe.refund(bought.payment, 100)
    forged(shop, "refund.created", refund, amount=250)
    assert shop.units() == 4
    shop.clock.advance(hours=1)
    found = shop.comptroller.reconcile_stripe()
    assert found.settled, found.disagreements
    assert shop.comptroller.purchase(bought.id).refunded_minor == 100
    assert shop.units() == 8


def sold_at(shop: Shop, price_minor: int, account: str = "ann") -> str:
    """Pay for an offer of 4.00 at another price. Returns the purchase."""
    shop.stripe.go_wrong("error", method="POST", path="/v1/checkout/sessions")
    with pytest.raises(PaymentUnavailable):
        shop.checkout(account=account)
    (offer,) = shop.comptroller.purchases(account)
    item = {"currency": "usd", "unit_amount": price_minor, "product_data": {"name": "Ten"}}
    made = shop.stripe.client().v1.checkout.sessions.create(
        {
            "mode": "payment",
            "success_url": URLS["success_url"],
            "metadata": {"comptroller_purchase": offer.id},
            "line_items": [{"price_data": item, "quantity": 1}],
        }
    )
    shop.stripe.pay(made.id)
    return offer.id


def test_what_was_paid_at_another_price_is_quarantined_and_disagrees(shop):
    purchase = sold_at(shop, 300)
    payout = paid_out(shop)
    found = shop.comptroller.reconcile_stripe()
    left = {each.kind: each for each in found.disagreements}
    assert sorted(left) == ["payout", "quarantined"]
    assert left["quarantined"].purchase == purchase
    assert left["quarantined"].theirs == (
        "Stripe says 300 usd (minor units) before tax and discounts"
    )
    assert left["quarantined"].ours == "offered: 400 usd (minor units)"
    assert left["payout"].theirs == f"{payout['amount']} usd (minor units)"
    (check,) = found.payouts
    assert check.left_minor == payout["amount"], "nothing of it is on an account of ours"
    assert shop.units() == 0


def test_what_was_quarantined_is_named_until_it_has_gone_back(shop):
    sold_at(shop, 300)
    payment = shop.stripe.every("payment_intent")[-1]["id"]
    failing = shop.stripe.refund(payment)
    assert shop.comptroller.reconcile_stripe().settled
    shop.stripe.fail_refund(failing["id"])
    assert kinds(shop.comptroller.reconcile_stripe()) == ["quarantined"]
    shop.stripe.refund(payment, 200)
    assert kinds(shop.comptroller.reconcile_stripe()) == ["quarantined"]
    shop.stripe.refund(payment)
    bought = shop.bought(account="ben")
    payout = paid_out(shop)
    found = shop.comptroller.reconcile_stripe()
    assert found.settled, found.disagreements
    fee = shop.comptroller.purchase(bought.id).fee_minor
    (check,) = found.payouts
    assert (check.booked_minor, check.not_ours_minor) == (400 - fee, payout["amount"] - 400 + fee)
    assert shop.ledger("ben").get("stripe_clearing:usd", 0) == 0


def test_a_quarantined_plan_is_named_until_all_its_payments_have_gone_back():
    with opened(policies=PLANS) as shop:
        shop.stripe.go_wrong("error", method="POST", path="/v1/checkout/sessions")
        with pytest.raises(PaymentUnavailable):
            shop.comptroller.checkout("ann", plan="pro", **URLS)
        (offer,) = shop.comptroller.purchases("ann")
        metadata = {"comptroller_purchase": offer.id}
        item = {
            "currency": "usd",
            "unit_amount": 2000,
            "recurring": {"interval": "month"},
            "product_data": {"name": "Pro, cheap"},
        }
        made = shop.stripe.client().v1.checkout.sessions.create(
            {
                "mode": "subscription",
                "success_url": URLS["success_url"],
                "metadata": metadata,
                "subscription_data": {"metadata": metadata},
                "line_items": [{"price_data": item, "quantity": 1}],
            }
        )
        shop.stripe.pay(made.id)
        shop.hear()
        (plan,) = shop.comptroller.purchases("ann")
        assert (plan.status, plan.total_minor) == ("quarantined", 2000)
        assert "quarantined" in kinds(shop.comptroller.reconcile_stripe())
        shop.stripe.refund(shop.stripe.every("payment_intent")[-1]["id"])
        assert "quarantined" not in kinds(shop.comptroller.reconcile_stripe())


def test_an_edited_price_of_a_pack_stays_out_of_its_checkouts(shop):
    shop.bought()
    price = shop.stripe.every("price")[0]
    shop.stripe.edit_price(price["id"], 900)
    shop.stripe.pay(shop.checkout(account="ben").session_id)
    found = shop.comptroller.reconcile_stripe()
    assert found.settled, found.disagreements
    assert shop.units("ben") == 10
    assert shop.comptroller.purchases("ben")[0].total_minor == 400


def test_an_event_that_cannot_be_worked_off_disagrees_until_it_is(shop):
    checkout = shop.checkout()
    session = shop.stripe.get(checkout.session_id)
    with pytest.raises(AssertionError):
        forged(shop, "checkout.session.completed", session, amount_total="many")
    shop.clock.advance(hours=1)
    found = shop.comptroller.reconcile_stripe()
    (left,) = found.disagreements
    assert (left.kind, left.id, left.theirs) == (
        "event",
        "evt_forged1",
        "checkout.session.completed",
    )
    assert "cannot be read" in left.ours


def test_movements_in_another_currency_than_the_payments_disagree():
    clock = FakeClock()
    with StripeServer(
        clock, currency="eur", settlement={"usd": ("eur", Fraction(9, 10))}
    ) as stripe:
        settings = StripeSettings(stripe.api_key, [stripe.webhook_secret], stripe.url)
        with Comptroller.open(
            PolicySet.parse(POLICIES), "sqlite://", clock=clock, stripe=settings
        ) as comptroller:
            shop = Shop(comptroller, stripe, clock)
            bought = shop.bought(fee=50)
            payout = paid_out(shop)
            found = comptroller.reconcile_stripe()
            left = {each.kind: each for each in found.disagreements}
            assert sorted(left) == ["currency", "payout"]
            assert left["currency"].purchase == bought.id
            assert left["currency"].theirs == "360 eur, fee 45 (minor units)"
            assert left["currency"].ours == "paid in usd"
            assert left["payout"].theirs == f"{payout['amount']} eur (minor units)"
            assert comptroller.verify() == []


def test_findings_beyond_the_most_that_are_listed_are_counted(shop, monkeypatch):
    monkeypatch.setattr("billing.stripe.reconcile.FINDINGS_MAX", 2)
    for account in ("ann", "ben", "eve"):
        sold_at(shop, 300, account)
    found = shop.comptroller.reconcile_stripe()
    assert (len(found.disagreements), found.disagreement_count) == (2, 3)
    assert len(found.applied) == 2 < found.applied_count
