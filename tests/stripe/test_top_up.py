"""Automatic top-ups: a pack bought with the saved card whenever credits run low."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from policies.errors import InvalidRequest, PaymentRefused, PaymentUnavailable
from quota.sales import PurchaseView
from tests.stripe.shop import Shop, opened


@pytest.fixture
def shop() -> Iterator[Shop]:
    with opened() as shop:
        yield shop


def opted_in(shop: Shop, **options: Any) -> None:
    """Buy a pack with a card that is kept, use most of it, and opt in to more."""
    checkout = shop.checkout(save_card=True)
    shop.stripe.pay(checkout.session_id, **options)
    shop.hear()
    assert shop.use(9, "most of it")
    shop.comptroller.set_top_up("ann", pack="ten", below_units=2, cap_minor_per_month=1000)


def test_a_pack_is_bought_when_few_credits_are_left(shop):
    opted_in(shop)
    assert shop.units() == 1
    bought = shop.comptroller.top_up("ann")
    assert (bought.status, bought.total_minor, shop.units()) == ("paid", 400, 11)
    assert [each.effect for each in shop.hear() if each.status == "done"] == ["nothing new"] * 2
    assert shop.comptroller.top_up("ann") is None, "enough is left"
    assert shop.ledger()["stripe_clearing:usd"] == 800


def test_a_sweep_tops_up(shop):
    opted_in(shop)
    shop.comptroller.sweep()
    assert shop.units() == 11


def test_no_purchase_switches_it_on(shop):
    checkout = shop.checkout(save_card=True)
    shop.stripe.pay(checkout.session_id)
    shop.hear()
    assert shop.use(10, "all of it")
    assert shop.comptroller.top_up_of("ann") is None
    shop.comptroller.sweep()
    assert (shop.units(), len(shop.comptroller.purchases("ann"))) == (0, 1)


def test_the_months_cap_holds_and_begins_anew_with_the_month(shop):
    opted_in(shop)
    for number in range(3):
        shop.comptroller.top_up("ann")
        assert shop.units() == 0 or shop.use(shop.units(), f"all {number}")
    assert len(shop.comptroller.purchases("ann")) == 1 + 2, "two packs of 4.00 within 10.00"
    shop.clock.set(shop.clock().replace(month=2))
    assert shop.comptroller.top_up("ann").status == "paid"


def test_what_is_bought_at_the_first_instant_of_a_month_counts_towards_its_cap(shop):
    opted_in(shop)
    shop.comptroller.set_top_up("ann", pack="ten", below_units=2, cap_minor_per_month=400)
    shop.clock.set(shop.clock().replace(month=2, day=1, hour=0, minute=0, second=0, microsecond=0))
    assert shop.comptroller.top_up("ann").status == "paid"
    assert shop.use(11, "all")
    assert shop.comptroller.top_up("ann") is None


def test_what_was_declined_does_not_count_towards_the_months_cap(shop):
    opted_in(shop)
    (card,) = shop.stripe.every("payment_method")
    shop.stripe.set_behaviour(card["id"], "generic_decline")
    assert shop.comptroller.top_up("ann").status == "failed"
    shop.stripe.set_behaviour(card["id"], "ok")
    shop.comptroller.set_top_up("ann", pack="ten", below_units=2, cap_minor_per_month=400)
    assert shop.comptroller.top_up("ann").status == "paid"


@pytest.mark.parametrize("code", ["card_declined", "authentication_required"])
def test_a_decline_switches_it_off_and_says_so(shop, code):
    opted_in(shop)
    behaviour = "generic_decline" if code == "card_declined" else code
    (card,) = shop.stripe.every("payment_method")
    shop.stripe.set_behaviour(card["id"], behaviour)
    declined = shop.comptroller.top_up("ann")
    assert (declined.status, declined.problem, shop.units()) == ("failed", code, 1)
    assert shop.comptroller.top_up_of("ann").off == code
    shop.stripe.set_behaviour(card["id"], "ok")
    shop.hear()
    assert shop.comptroller.purchase(declined.id).problem == code, (
        "its events begin it no second time"
    )
    shop.comptroller.sweep()
    assert shop.units() == 1, "it stays off until the account opts in again"
    shop.comptroller.set_top_up("ann", pack="ten", below_units=2, cap_minor_per_month=1000)
    assert shop.comptroller.top_up("ann").status == "paid"


def test_a_buyer_without_a_card_switches_it_off(shop):
    shop.comptroller.add_credits("ann", units=1, reference="gift")
    shop.comptroller.set_top_up("ann", pack="ten", below_units=2, cap_minor_per_month=400)
    shop.comptroller.sweep()
    assert shop.comptroller.top_up_of("ann").off == "no_payment_method"


def test_an_answer_that_is_lost_pays_once(shop):
    opted_in(shop)
    shop.stripe.go_wrong("cut", after=True, times=5, method="POST", path="/v1/payment_intents")
    with pytest.raises(PaymentUnavailable):
        shop.comptroller.top_up("ann")
    shop.stripe.heal()
    assert shop.comptroller.top_up("ann").status == "paid"
    assert (len(shop.stripe.every("charge")), shop.units()) == (2, 11)


def test_its_event_alone_brings_the_units_where_the_answer_is_lost_for_good(shop):
    opted_in(shop)
    shop.stripe.go_wrong("cut", after=True, times=5, method="POST", path="/v1/payment_intents")
    with pytest.raises(PaymentUnavailable):
        shop.comptroller.top_up("ann")
    shop.hear()
    assert shop.units() == 11
    assert shop.comptroller.top_up("ann") is None


def test_what_was_never_heard_of_is_given_up_before_its_key_is_forgotten(shop):
    opted_in(shop)
    shop.stripe.go_wrong("error", times=5, method="POST", path="/v1/payment_intents")
    with pytest.raises(PaymentUnavailable):
        shop.comptroller.top_up("ann")
    shop.stripe.heal()
    shop.clock.advance(hours=24)
    assert shop.comptroller.top_up("ann").status == "paid"
    (lost,) = [each for each in shop.comptroller.purchases("ann") if each.problem]
    assert "not known" in str(lost.problem)


def test_it_stops_when_the_account_says_so(shop):
    opted_in(shop)
    assert shop.comptroller.set_top_up("ann", pack=None).off is not None
    shop.comptroller.sweep()
    assert shop.units() == 1


def test_a_frozen_account_and_one_with_a_dispute_are_not_topped_up(shop):
    opted_in(shop)
    shop.comptroller.freeze("ann", reason="fraud")
    assert shop.comptroller.top_up("ann") is None
    shop.comptroller.unfreeze("ann")
    shop.stripe.dispute(shop.stripe.every("charge")[0]["id"])
    shop.hear()
    assert shop.comptroller.top_up("ann") is None


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"pack": "none"}, "pack"),
        ({"pack": "ten", "cap_minor_per_month": 399}, "at least the pack's price, 400 usd"),
        ({"pack": "ten", "cap_minor_per_month": 400, "below_units": 0}, "below_units"),
        ({"pack": "ten", "cap_minor_per_month": 400, "currency": "eur"}, "eur"),
    ],
)
def test_a_setting_that_could_never_buy_anything_is_refused(shop, wrong, said):
    with pytest.raises(InvalidRequest, match=said):
        shop.comptroller.set_top_up("ann", **wrong)


def test_a_key_that_stripe_does_not_accept_switches_nobody_off(shop):
    opted_in(shop)
    shop.stripe.go_wrong("forbidden", times=5, method="POST", path="/v1/payment_intents")
    with pytest.raises(PaymentRefused, match="does not accept the API key"):
        shop.comptroller.top_up("ann")
    shop.comptroller.sweep()
    assert shop.comptroller.top_up_of("ann").off is None
    shop.stripe.heal()
    shop.comptroller.sweep()
    assert (shop.units(), len(shop.stripe.every("payment_intent"))) == (11, 2)


def on_its_way(shop: Shop) -> PurchaseView:
    """Have a top-up take its time, as a debit does."""
    opted_in(shop)
    (card,) = shop.stripe.every("payment_method")
    shop.stripe.set_behaviour(card["id"], "slow")
    bought = shop.comptroller.top_up("ann")
    assert bought is not None
    assert bought.status == "pending"
    shop.hear()
    shop.clock.advance(days=4)
    shop.comptroller.sweep()
    assert len(shop.comptroller.purchases("ann")) == 2, "one at a time"
    return bought


def test_a_payment_that_takes_its_time_brings_the_units_when_it_arrives(shop):
    bought = on_its_way(shop)
    shop.stripe.clear_payment(bought.payment)
    shop.hear()
    assert (shop.comptroller.purchase(bought.id).status, shop.units()) == ("paid", 11)


def test_a_payment_that_does_not_arrive_after_all_switches_it_off_and_says_so(shop):
    bought = on_its_way(shop)
    shop.stripe.bounce(bought.payment)
    assert "not paid: card_declined" in [each.effect for each in shop.hear()]
    failed = shop.comptroller.purchase(bought.id)
    assert (failed.status, failed.problem) == ("failed", "card_declined")
    assert shop.comptroller.top_up_of("ann").off == "card_declined"
    found = shop.comptroller.reconcile_stripe()
    assert found.settled, found.disagreements


def test_a_payment_that_somebody_cancels_in_the_dashboard_switches_it_off(shop):
    bought = on_its_way(shop)
    shop.stripe.bounce(bought.payment)
    shop.heard = len(shop.stripe.events)  # no event of it comes
    shop.stripe.client().v1.payment_intents.cancel(bought.payment)
    shop.hear()
    assert shop.comptroller.purchase(bought.id).status == "failed"
    assert shop.comptroller.top_up_of("ann").off == "canceled"


def test_a_late_event_of_a_decline_does_not_switch_off_what_was_switched_on_again(shop):
    bought = on_its_way(shop)
    shop.stripe.bounce(bought.payment)
    (declined,) = shop.stripe.deliveries("payment_intent.payment_failed")
    shop.hear()
    shop.comptroller.set_top_up("ann", pack="ten", below_units=2, cap_minor_per_month=1000)
    again = shop.comptroller.reconcile_stripe()
    assert again.settled, again.disagreements
    assert shop.take_in([declined])[0].effect == "seen before"
    assert shop.comptroller.top_up_of("ann").off is None


def test_a_payment_that_was_declined_and_is_paid_after_all_gives_its_units(shop):
    bought = on_its_way(shop)
    shop.stripe.bounce(bought.payment)
    events = list(shop.stripe.deliveries(since=shop.heard))
    shop.stripe.client().v1.payment_intents.confirm(
        bought.payment, {"payment_method": "pm_card_visa"}
    )
    paid = list(shop.stripe.deliveries(since=shop.heard))[len(events) :]
    shop.take_in([*paid, *events])
    found = shop.comptroller.purchase(bought.id)
    assert (found.status, found.problem, shop.units()) == ("paid", None, 11)
    assert shop.comptroller.top_up_of("ann").off is None, "it was paid before the decline was heard"


def test_a_payment_that_nobody_heard_of_for_a_day_is_looked_for_before_another_is_made(shop):
    opted_in(shop)
    shop.stripe.go_wrong("cut", after=True, times=5, method="POST", path="/v1/payment_intents")
    with pytest.raises(PaymentUnavailable):
        shop.comptroller.top_up("ann")
    shop.stripe.heal()
    shop.clock.advance(hours=24)
    assert shop.comptroller.top_up("ann").status == "paid"
    assert (len(shop.stripe.every("charge")), shop.units()) == (2, 11)
    assert [each.problem for each in shop.comptroller.purchases("ann")] == [None, None]
