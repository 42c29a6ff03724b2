"""Reconciliation: what webhooks have lost is taken in, what disagrees is told with both sides, payouts net to zero."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from billing.stripe.reconcile import Reconciliation
from policies.errors import PaymentUnavailable
from tests.stripe.shop import Shop, opened
from tests.stripe.test_top_up import opted_in

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


def test_a_movement_for_a_session_from_before_is_found_by_its_purchase(shop):
    checkout = shop.checkout()
    shop.stripe.pay_later(checkout.session_id)
    shop.clock.advance(2 * DAY)
    shop.stripe.clear(checkout.session_id, fee=80)
    shop.clock.advance(34 * DAY)
    found = shop.comptroller.reconcile_stripe(shop.clock() - 35 * DAY)
    assert found.checked["checkout.session"] == 0
    assert found.settled, found.disagreements
    assert shop.units() == 10
    assert shop.comptroller.purchase(checkout.purchase_id).fee_minor == 80


def test_a_payment_with_the_metadata_of_another_ones_purchase_disagrees(shop):
    bought = shop.bought()
    item = {"currency": "usd", "unit_amount": 400, "product_data": {"name": "Copied"}}
    metadata = {"comptroller_purchase": bought.id}
    made = shop.stripe.client().v1.checkout.sessions.create(
        {
            "mode": "payment",
            "success_url": "https://shop.example/thanks",
            "metadata": metadata,
            "payment_intent_data": {"metadata": metadata},
            "line_items": [{"price_data": item, "quantity": 1}],
        }
    )
    shop.stripe.pay(made.id)
    shop.hear()
    found = shop.comptroller.reconcile_stripe()
    assert kinds(found) == ["no_purchase", "no_purchase"]
    assert {each.ours for each in found.disagreements} == {"that purchase is of another payment"}
    assert shop.units() == 10


def test_a_payout_by_hand_disagrees_since_stripe_does_not_say_what_it_holds(shop):
    shop.bought()
    payout = paid_out(shop)
    shop.stripe.world.change(shop.stripe.world.objects[payout["id"]], automatic=False)
    found = shop.comptroller.reconcile_stripe()
    (left,) = found.disagreements
    assert (left.kind, left.id) == ("payout", payout["id"])
    assert left.ours == "Stripe does not say what a payout by hand is made of"


def test_a_payout_on_its_way_is_waited_for(shop):
    shop.bought()
    payout = paid_out(shop)
    on_its_way = shop.stripe.world.objects[payout["id"]]
    shop.stripe.world.change(on_its_way, status="in_transit", reconciliation_status="in_progress")
    found = shop.comptroller.reconcile_stripe()
    assert (found.settled, found.payouts) == (True, [])
    assert "bank:usd" not in shop.ledger()
    shop.stripe.world.change(on_its_way, status="paid", reconciliation_status="completed")
    assert shop.comptroller.reconcile_stripe().payouts[0].left_minor == 0
    assert shop.ledger()["bank:usd"] == payout["amount"]


def test_a_top_up_whose_answer_was_lost_is_found_by_its_payment(shop):
    opted_in(shop)
    shop.stripe.go_wrong("cut", after=True, times=3, method="POST", path="/v1/payment_intents")
    with pytest.raises(PaymentUnavailable):
        shop.comptroller.top_up("ann")
    shop.stripe.heal()
    assert shop.units() == 1
    shop.clock.advance(40 * DAY)
    found = shop.comptroller.reconcile_stripe(shop.clock() - 41 * DAY)
    assert found.settled, found.disagreements
    assert "payment_intent" in {each.kind for each in found.applied}
    assert shop.units() == 11


def test_a_top_up_that_was_declined_leaves_nothing_that_disagrees(shop):
    opted_in(shop)
    (card,) = shop.stripe.every("payment_method")
    shop.stripe.set_behaviour(card["id"], "generic_decline")
    shop.comptroller.top_up("ann")
    problem = shop.comptroller.purchases("ann")[-1].problem
    assert problem is not None
    found = shop.comptroller.reconcile_stripe()
    assert found.settled, found.disagreements
    assert shop.comptroller.purchases("ann")[-1].problem == problem
