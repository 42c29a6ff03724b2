"""Reconciliation of plans: subscriptions and invoices whose webhooks were lost, their fees and payouts."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from tests.stripe.plans import POLICIES, Subscribers
from tests.stripe.shop import URLS, Shop, opened

MONTH = timedelta(days=31)


def course(shop: Shop) -> None:
    """Three subscribers: one renews and is refunded in part, one disputes, one ends. No webhook is heard here."""
    for account in ("ann", "ben", "eve"):
        checkout = shop.comptroller.checkout(account, plan="pro", **URLS)
        shop.stripe.pay(checkout.session_id, fee=117)
    first, disputed, ended = (each["id"] for each in shop.stripe.every("subscription"))
    shop.stripe.lose(shop.stripe.dispute(shop.stripe.every("charge")[1]["id"])["id"])
    shop.stripe.cancel(ended, at_period_end=False)
    shop.clock.advance(MONTH)
    shop.stripe.renew(first, fee=117)
    shop.stripe.refund(shop.stripe.every("payment_intent")[-1]["id"], 1000)
    assert disputed


def ending(shop: Shop) -> str:
    """How it has ended for everybody."""
    said = {
        name: (shop.comptroller.balance(name).plan, shop.ledger(name))
        for name in ("ann", "ben", "eve")
    }
    return json.dumps(said)


LOST: dict[str, Any] = {
    "none": lambda _: False,
    "every second": lambda event: sum(event["id"].encode()) % 2,
    "invoices": lambda event: event["type"].startswith("invoice"),
    "all": lambda _: True,
}


@pytest.mark.parametrize("lost", list(LOST))
def test_what_webhooks_have_lost_of_plans_ends_as_if_none_was(lost):
    endings = set()
    for drop in (LOST["none"], LOST[lost]):
        with opened(policies=POLICIES) as shop:
            course(shop)
            shop.take_in(shop.stripe.deliveries(drop=drop))
            shop.clock.advance(timedelta(days=3))
            payout = shop.stripe.payout()
            found = shop.comptroller.reconcile_stripe(shop.clock() - timedelta(days=40))
            assert found.settled, found.disagreements
            (check,) = found.payouts
            assert (check.booked_minor, check.left_minor) == (payout["amount"], 0)
            again = shop.comptroller.reconcile_stripe(shop.clock() - timedelta(days=40))
            assert (again.applied, again.disagreements) == ([], [])
            ledgers = [shop.ledger(name) for name in ("ann", "ben", "eve")]
            assert sum(each.get("stripe_clearing:usd", 0) for each in ledgers) == 0
            moves = shop.stripe.every("balance_transaction")
            assert sum(each.get("fees:usd", 0) for each in ledgers) == sum(
                each["fee"] for each in moves
            )
            shop.clock.advance(2 * MONTH)  # all of it is earned
            shop.comptroller.sweep()
            endings.add(ending(shop))
    assert len(endings) == 1, endings


def test_a_subscription_is_found_when_stripe_lists_its_events_no_more():
    with opened(policies=POLICIES) as shop:
        checkout = shop.comptroller.checkout("ann", plan="pro", **URLS)
        shop.stripe.pay(checkout.session_id, fee=117)
        shop.clock.advance(timedelta(days=30, hours=12))
        found = shop.comptroller.reconcile_stripe(shop.clock() - timedelta(days=31))
        assert found.checked["event"] == 0
        assert found.settled, found.disagreements
        assert {"subscription", "invoice"} <= {each.kind for each in found.applied}
        assert Subscribers(shop).plan() == "pro"
        assert shop.ledger()["fees:usd"] == 117
