"""Reconciliation: what webhooks have lost is taken in, what disagrees is told with both sides, payouts net to zero."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from billing.stripe.reconcile import Reconciliation
from tests.stripe.shop import Shop, opened

DAY = timedelta(days=1)


@pytest.fixture
def shop() -> Iterator[Shop]:
    with opened() as shop:
        yield shop


def payment_of(shop: Shop, purchase_id: str) -> Any:
    found = shop.comptroller.purchase(purchase_id).payment
    return found or shop.stripe.every("payment_intent")[-1]["id"]


def kinds(found: Reconciliation) -> list[str]:
    return sorted(each.kind for each in found.disagreements)


def paid_out(shop: Shop) -> dict[str, Any]:
    """Let the money become available, and be paid out."""
    shop.clock.advance(timedelta(days=3))
    return shop.stripe.payout()


def course(shop: Shop) -> None:
    """What may happen in a shop, of which no webhook is heard here."""
    for account in ("ann", "ben", "eve", "kim"):
        checkout = shop.checkout(account=account)
        shop.stripe.pay(checkout.session_id)
        payment = shop.stripe.every("payment_intent")[-1]["id"]
        charge = shop.stripe.every("charge")[-1]["id"]
        if account == "ben":
            shop.stripe.refund(payment, 150)
            failing = shop.stripe.refund(payment, 100)
            shop.stripe.fail_refund(failing["id"])
        elif account == "eve":
            shop.stripe.lose(shop.stripe.dispute(charge)["id"])
        elif account == "kim":
            shop.stripe.win(shop.stripe.dispute(charge)["id"])
    shop.stripe.expire(shop.checkout(account="joe").session_id)


def ending(shop: Shop) -> str:
    """How it has ended for everybody, without the names of things."""
    balances = {name: shop.comptroller.balance(name) for name in ("ann", "ben", "eve", "kim")}
    said = {
        name: (
            found.credits,
            [(lot.units, lot.available, lot.expires_at) for lot in found.lots],
            shop.ledger(name),
            [each.status for each in shop.comptroller.purchases(name)],
        )
        for name, found in balances.items()
    }
    joe = [each.status for each in shop.comptroller.purchases("joe")]
    return json.dumps([said, joe], default=str)


@pytest.mark.parametrize("lost", ["none", "every second", "all but payments", "all"])
def test_what_webhooks_have_lost_ends_as_if_none_was(lost):
    endings = set()
    for drop in (lambda _: False, LOST[lost]):
        with opened() as shop:
            course(shop)
            shop.take_in(shop.stripe.deliveries(drop=drop))
            found = shop.comptroller.reconcile_stripe()
            assert found.settled, found.disagreements
            endings.add(ending(shop))
            again = shop.comptroller.reconcile_stripe()
            assert (again.applied, again.disagreements) == ([], [])
    assert len(endings) == 1, endings


LOST: dict[str, Any] = {
    "none": lambda _: False,
    "every second": lambda event: sum(event["id"].encode()) % 2,
    "all but payments": lambda event: event["type"] != "checkout.session.completed",
    "all": lambda _: True,
}


def test_a_lost_event_is_put_into_the_inbox_as_if_it_had_come(shop):
    checkout = shop.checkout()
    shop.stripe.pay(checkout.session_id)
    found = shop.comptroller.reconcile_stripe()
    assert shop.units() == 10
    (applied,) = [each for each in found.applied if "paid: 10 units" in each.effect]
    assert applied.kind == "event"
    (letter,) = [each for each in shop.comptroller.stripe_events() if each.id == applied.id]
    assert (letter.status, letter.type) == ("done", "checkout.session.completed")
    assert [each.status for each in shop.hear()][-1] in ("done", "ignored")
    assert shop.units() == 10


def test_what_is_older_than_stripes_events_is_found_by_its_session(shop):
    checkout = shop.checkout()
    shop.stripe.pay(checkout.session_id)
    shop.stripe.refund(payment_of(shop, checkout.purchase_id), 200)
    shop.clock.advance(40 * DAY)
    assert shop.comptroller.reconcile_stripe().applied == []
    found = shop.comptroller.reconcile_stripe(shop.clock() - 50 * DAY)
    assert {each.kind for each in found.applied} >= {"checkout.session", "refund"}
    assert "event" not in found.checked or not found.checked["event"]
    assert found.settled, found.disagreements
    assert shop.units() == 5
    assert shop.comptroller.purchase(checkout.purchase_id).refunded_minor == 200


def test_fees_are_booked_and_payouts_net_clearing_to_zero(shop):
    course(shop)
    shop.hear()
    payout = paid_out(shop)
    found = shop.comptroller.reconcile_stripe()
    assert found.settled, found.disagreements
    (check,) = found.payouts
    assert (check.amount_minor, check.left_minor) == (payout["amount"], 0)
    assert check.booked_minor == payout["amount"]
    ledgers = [shop.ledger(name) for name in ("ann", "ben", "eve", "kim")]
    assert sum(each.get("stripe_clearing:usd", 0) for each in ledgers) == 0
    assert sum(each["bank:usd"] for each in ledgers) == payout["amount"]
    moves = shop.stripe.every("balance_transaction")
    assert sum(each["fees:usd"] for each in ledgers) == sum(each["fee"] for each in moves)


def test_other_products_of_the_account_are_told_apart(shop):
    shop.bought()
    client = shop.stripe.client()
    other = client.v1.checkout.sessions.create(
        {
            "mode": "payment",
            "success_url": "https://shop.example/shirts",
            "line_items": [
                {
                    "price_data": {
                        "currency": "usd",
                        "unit_amount": 2500,
                        "product_data": {"name": "Shirt"},
                    },
                    "quantity": 1,
                }
            ],
        }
    )
    shop.stripe.pay(other.id, fee=100)
    payout = paid_out(shop)
    found = shop.comptroller.reconcile_stripe()
    assert found.settled, found.disagreements
    assert [(each.what, each.count, each.net_minor) for each in found.not_ours] == [
        ("checkout.session", 1, 2500),
        ("charge", 1, 2400),
    ]
    (check,) = found.payouts
    assert (check.not_ours_minor, check.booked_minor) == (2400, payout["amount"] - 2400)


def test_a_session_for_a_purchase_that_is_not_ours_disagrees(shop):
    bought = shop.bought()
    customer = shop.stripe.get(bought.session_id)["customer"]
    made = shop.stripe.client().v1.checkout.sessions.create(
        {
            "mode": "payment",
            "success_url": "https://shop.example/thanks",
            "customer": customer,
            "metadata": {"comptroller_purchase": "pu_nobody"},
            "line_items": [
                {
                    "price_data": {
                        "currency": "usd",
                        "unit_amount": 700,
                        "product_data": {"name": "By hand"},
                    },
                    "quantity": 1,
                }
            ],
        }
    )
    shop.stripe.pay(made.id)
    shop.hear()
    found = shop.comptroller.reconcile_stripe()
    assert kinds(found) == ["no_purchase", "no_purchase"]
    first = found.disagreements[0]
    assert (first.id, first.purchase) == (made.id, "pu_nobody")
    assert first.theirs == "paid: 700 usd (minor units)"
    assert first.ours == "no such purchase: `pu_nobody`"
    assert not found.settled


def test_a_payout_that_fails_disagrees_until_another_brings_it(shop):
    shop.bought()
    failing = paid_out(shop)
    assert shop.comptroller.reconcile_stripe().settled
    shop.stripe.fail_payout(failing["id"])
    found = shop.comptroller.reconcile_stripe()
    (left,) = found.disagreements
    assert (left.kind, left.id) == ("failed_payout", failing["id"])
    assert left.theirs == f"failed: {failing['amount']} usd (minor units) are back"
    shop.bought(account="ben")
    paid_out(shop)
    found = shop.comptroller.reconcile_stripe()
    assert found.settled, found.disagreements
    assert [each.left_minor for each in found.payouts] == [0]
    assert shop.ledger("ben").get("stripe_clearing:usd", 0) == 0
    assert shop.ledger("ann").get("stripe_clearing:usd", 0) == 0
