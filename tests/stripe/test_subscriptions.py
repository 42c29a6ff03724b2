"""Plans through Stripe: what a subscription gives, as it begins, renews, changes, falls behind and ends."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from billing.stripe.events import heard_of
from billing.stripe.facts import BILL, PAID_BY
from billing.stripe.signature import sign
from policies.errors import InvalidRequest
from tests.stripe.plans import POLICIES, Subscribers
from tests.stripe.shop import URLS, Shop, opened

BEGIN = datetime(2026, 1, 31, 12, tzinfo=UTC)
RENEWAL = datetime(2026, 2, 28, 12, tzinfo=UTC)


@pytest.fixture
def shop() -> Iterator[Shop]:
    with opened(policies=POLICIES) as shop:
        shop.clock.set(BEGIN)
        yield shop


@pytest.fixture
def people(shop: Shop) -> Subscribers:
    return Subscribers(shop)


def test_a_paid_subscription_puts_the_account_on_its_plan(shop, people):
    assert shop.use(3, "before")
    people.subscribed("pro")
    assert people.plan() == "pro"
    balance = shop.comptroller.balance("ann")
    assert [(each.limit, each.used) for each in balance.allowances] == [(100, 3)]
    (bought,) = shop.comptroller.purchases("ann")
    assert (bought.pack, bought.price_minor, bought.status) == ("pro", 3000, "paid")


def test_exactly_one_of_pack_and_plan_is_offered(shop):
    for wrong in ({}, {"pack": "ten", "plan": "pro"}):
        with pytest.raises(InvalidRequest, match="exactly one of pack= and plan="):
            shop.comptroller.checkout("ann", **wrong, **URLS)
    with pytest.raises(InvalidRequest, match="not sold in `usd`"):
        shop.comptroller.checkout("ann", plan="standard", **URLS)
    with pytest.raises(InvalidRequest, match="not sold in `eur`, but in usd"):
        shop.comptroller.checkout("ann", plan="pro", currency="eur", **URLS)


def test_a_subscriber_changes_in_the_portal_and_buys_no_second_subscription(shop, people):
    people.subscribed("pro")
    with pytest.raises(InvalidRequest, match="has a subscription to `pro`"):
        shop.comptroller.checkout("ann", plan="studio", **URLS)


def test_what_is_paid_is_earned_day_by_day_and_to_the_cent(shop, people):
    people.subscribed("pro")
    assert people.deferred() == 3000
    shop.clock.set(datetime(2026, 2, 1, tzinfo=UTC))
    # Half of one of 28 days: 3000 x 0.5 // 28.
    assert people.earned(BEGIN, shop.clock() + timedelta(days=1)) == 53
    shop.clock.set(datetime(2026, 3, 1, tzinfo=UTC))
    assert people.earned(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)) == 53
    assert people.earned(datetime(2026, 2, 1, tzinfo=UTC), shop.clock()) == 2947
    assert people.deferred() == 0


def test_guarantee_dues_first_when_a_sweep_runs_changes_no_figure_of_a_plans_day(shop, people):
    people.subscribed("pro")
    days = [BEGIN.replace(hour=0) + timedelta(days=number) for number in range(29)]
    shop.clock.set(datetime(2026, 2, 10, 9, tzinfo=UTC))
    before = [people.earned(day, day + timedelta(days=1)) for day in days]
    assert shop.comptroller.sweep() == 10
    assert shop.comptroller.sweep() == 0
    assert [people.earned(day, day + timedelta(days=1)) for day in days] == before
    assert sum(before) == 3000 * (9 * 24 + 12) // (28 * 24)


def test_it_renews_and_goes_on_earning(shop, people):
    subscription = people.subscribed("pro", fee=117)
    shop.clock.set(RENEWAL)
    shop.stripe.renew(subscription)
    shop.hear()
    assert people.plan() == "pro"
    assert people.deferred() == 3000 + (3000 - 3000 * (27 * 24 + 12) // (28 * 24))
    shop.clock.set(datetime(2026, 4, 1, tzinfo=UTC))
    assert people.deferred() == 0
    assert people.earned(BEGIN, shop.clock()) == 6000
    shop.comptroller.sweep()
    ledger = shop.ledger()
    assert ledger["revenue:usd"] == -6000
    assert "deferred_plan:usd" not in ledger


def test_an_upgrade_counts_at_once_and_is_prorated(shop, people):
    subscription = people.subscribed("pro")
    dearer = people.price_of("studio")
    shop.clock.set(datetime(2026, 2, 14, 12, tzinfo=UTC))
    shop.stripe.change_plan(subscription, dearer, proration_behavior="always_invoice")
    shop.hear()
    assert people.plan() == "studio"
    shop.clock.set(datetime(2026, 3, 1, tzinfo=UTC))
    whole = (BEGIN, shop.clock())
    assert (people.earned(*whole, "pro"), people.earned(*whole, "studio")) == (1500, 4500)
    assert people.deferred() == 0


def test_a_downgrade_waits_for_the_end_of_the_period_that_was_paid(shop, people):
    subscription = people.subscribed("studio")
    cheaper = people.price_of("pro")
    shop.clock.set(datetime(2026, 2, 14, 12, tzinfo=UTC))
    shop.stripe.change_plan(subscription, cheaper)
    shop.hear()
    assert people.plan() == "studio"
    shop.clock.set(RENEWAL)
    assert people.plan() == "pro"  # whether Stripe has told of the renewal or not
    shop.stripe.renew(subscription)
    shop.hear()
    assert people.plan() == "pro"
    shop.clock.set(datetime(2026, 4, 1, tzinfo=UTC))
    shop.comptroller.sweep()
    # 9000 for all of February, of which 4500 were credited, 1500 and 3000 billed instead.
    assert people.earned(BEGIN, shop.clock(), "studio") == 9000 - 4500
    assert people.earned(BEGIN, shop.clock(), "pro") == 1500 + 3000
    assert people.deferred() == 0


def test_what_stripe_credits_is_used_by_the_next_invoices(shop, people):
    subscription = people.subscribed("studio")
    cheaper = people.price_of("pro")
    shop.clock.set(datetime(2026, 2, 14, 12, tzinfo=UTC))
    shop.stripe.change_plan(subscription, cheaper, proration_behavior="always_invoice")
    shop.hear()
    shop.clock.set(RENEWAL)
    assert people.deferred() == 3000 + 6000 - 6000 + _left(people)
    shop.stripe.renew(subscription)
    shop.hear()
    shop.clock.set(datetime(2026, 4, 1, tzinfo=UTC))
    shop.comptroller.sweep()
    assert people.deferred() == 0
    assert shop.ledger()["stripe_clearing:usd"] == 9000


def _left(people: Subscribers) -> int:
    """What the last half day of the period has still to earn, in US cents."""
    parts = [9000 * 55 // 56, -(4500 * 27 // 28), 1500 * 27 // 28]
    return 6000 - sum(parts)


def test_a_subscription_that_is_cancelled_at_once_gives_the_former_plan_back(shop, people):
    shop.comptroller.set_plan("ann", "studio")
    subscription = people.subscribed("pro")
    assert people.plan() == "pro"
    shop.stripe.cancel(subscription, at_period_end=False)
    shop.hear()
    assert people.plan() == "studio"


def test_a_subscription_that_is_cancelled_with_its_period_stays_until_then(shop, people):
    subscription = people.subscribed("pro")
    shop.clock.advance(days=3)
    shop.stripe.cancel(subscription, at_period_end=True)
    shop.hear()
    shop.clock.set(RENEWAL - timedelta(seconds=1))
    assert people.plan() == "pro"
    shop.clock.set(RENEWAL)
    assert people.plan() == "standard"  # whether Stripe has told that it is over or not
    shop.stripe.renew(subscription)
    shop.hear()
    assert people.plan() == "standard"


def test_a_plan_that_is_past_due_stays_as_long_as_its_grace(shop, people):
    subscription = people.subscribed("pro")
    shop.clock.set(RENEWAL)
    shop.stripe.fail_renewal(subscription)
    shop.hear()
    shop.clock.set(RENEWAL + timedelta(days=7, seconds=-1))
    assert people.plan() == "pro"
    shop.clock.set(RENEWAL + timedelta(days=7))
    assert people.plan() == "standard"
    assert shop.use(3, "with the default plan's allowance")
    assert not shop.use(1, "more than it gives")
    assert people.deferred() == 0


def test_a_plan_that_is_paid_late_comes_back(shop, people):
    subscription = people.subscribed("pro")
    shop.clock.set(RENEWAL)
    invoice = shop.stripe.fail_renewal(subscription)
    shop.hear()
    shop.clock.set(RENEWAL + timedelta(days=9))
    shop.comptroller.sweep()
    assert people.plan() == "standard"
    shop.stripe.retry(invoice)
    shop.hear()
    assert people.plan() == "pro"
    shop.clock.set(datetime(2026, 4, 1, tzinfo=UTC))
    assert people.earned(BEGIN, shop.clock()) == 6000


@pytest.mark.parametrize("unpaid", [False, True])
def test_a_plan_that_is_given_up_ends(shop, people, unpaid):
    subscription = people.subscribed("pro")
    shop.clock.set(RENEWAL)
    shop.stripe.fail_renewal(subscription)
    shop.clock.advance(days=3)
    shop.stripe.give_up(subscription, unpaid=unpaid)
    shop.hear()
    assert people.plan() == "standard"


def test_a_plan_that_the_host_has_set_meanwhile_stays(shop, people):
    subscription = people.subscribed("pro")
    shop.comptroller.set_plan("ann", "studio")
    shop.stripe.cancel(subscription, at_period_end=False)
    shop.hear()
    assert people.plan() == "studio"


def test_credits_that_were_bought_stay_whatever_becomes_of_the_plan(shop, people):
    shop.bought("ten")
    subscription = people.subscribed("pro")
    shop.stripe.cancel(subscription, at_period_end=False)
    shop.hear()
    assert shop.units() == 10


def test_a_refund_takes_what_is_not_earned_first(shop, people):
    people.subscribed("pro")
    shop.clock.set(datetime(2026, 2, 14, 12, tzinfo=UTC))
    earned = people.earned(BEGIN, shop.clock())
    payment = shop.stripe.every("payment_intent")[-1]["id"]
    refund = shop.stripe.refund(payment, 1000)
    shop.hear()
    assert people.deferred() == 3000 - earned - 1000
    shop.clock.set(datetime(2026, 3, 1, tzinfo=UTC))
    assert people.earned(BEGIN, shop.clock()) == 2000
    assert people.deferred() == 0
    shop.stripe.fail_refund(refund["id"])
    shop.hear()
    shop.clock.advance(days=1)
    assert people.earned(BEGIN, shop.clock()) == 3000
    assert people.deferred() == 0


def test_a_refund_of_what_was_earned_is_returned_and_no_revenue_is_undone(shop, people):
    people.subscribed("pro")
    shop.clock.set(datetime(2026, 2, 14, 12, tzinfo=UTC))
    earned = people.earned(BEGIN, shop.clock())
    shop.stripe.refund(shop.stripe.every("payment_intent")[-1]["id"])
    shop.hear()
    assert (people.deferred(), people.earned(BEGIN, shop.clock())) == (0, earned)
    ledger = shop.ledger()
    assert ledger["returned:usd"] == 3000
    assert ledger["refunded:usd"] == -(3000 - earned)
    assert ledger["revenue:usd"] == -earned
    assert "stripe_clearing:usd" not in ledger


def test_our_own_refund_is_of_the_latest_invoice(shop, people):
    subscription = people.subscribed("pro")
    shop.clock.set(RENEWAL)
    shop.stripe.renew(subscription)
    shop.hear()
    (bought,) = shop.comptroller.purchases("ann")
    assert (bought.kind, bought.total_minor, bought.payment) == ("plan", 6000, subscription)
    with pytest.raises(InvalidRequest, match=r"3000 usd \(minor units\) of purchase .* are left"):
        shop.comptroller.refund(bought.id, 3001)
    refunded = shop.comptroller.refund(bought.id, 1200)
    assert refunded.refunded_minor == 1200
    shop.clock.set(datetime(2026, 4, 1, tzinfo=UTC))
    assert people.earned(BEGIN, shop.clock()) == 6000 - 1200
    told = {each.type: each.effect for each in shop.hear()}
    assert told["refund.created"] == "nothing new"


def test_a_lost_dispute_of_what_was_earned_is_a_loss(shop, people):
    people.subscribed("pro")
    shop.clock.set(datetime(2026, 2, 14, 12, tzinfo=UTC))
    earned = people.earned(BEGIN, shop.clock())
    dispute = shop.stripe.dispute(shop.stripe.every("charge")[-1]["id"])
    shop.hear()
    assert not shop.comptroller.balance("ann").credits
    shop.stripe.lose(dispute["id"])
    shop.hear()
    ledger = shop.ledger()
    assert ledger["chargeback_loss:usd"] == earned
    assert "deferred_plan:usd" not in ledger


def test_taxes_and_discounts_are_no_revenue(shop, people):
    people.subscribed("pro", tax=570)
    shop.clock.set(datetime(2026, 3, 1, tzinfo=UTC))
    assert people.earned(BEGIN, shop.clock()) == 3000
    shop.comptroller.sweep()
    assert shop.ledger()["tax_payable:usd"] == -570


def test_a_plan_has_a_margin(shop, people):
    people.subscribed("pro")
    assert shop.use(5, "job")
    shop.clock.set(datetime(2026, 3, 1, tzinfo=UTC))
    report = shop.comptroller.report(BEGIN, shop.clock(), by=["plan"])
    (row,) = report.rows
    cost = row.gpu_micro_usd
    assert (row.key["plan"], cost > 0) == ("pro", True)
    assert row.margin_micro_usd == 30_000_000 - cost


def test_who_never_pays_has_one_grace_and_not_one_a_month(shop, people):
    subscription = people.subscribed("pro")
    shop.clock.set(RENEWAL)
    shop.stripe.fail_renewal(subscription)
    shop.hear()
    shop.clock.set(datetime(2026, 3, 31, 12, tzinfo=UTC))
    assert people.plan() == "standard"
    shop.stripe.fail_renewal(subscription)
    shop.hear()
    assert people.plan() == "standard"


def test_a_renewal_that_is_paid_within_its_grace_changes_nothing(shop, people):
    subscription = people.subscribed("pro")
    shop.clock.set(RENEWAL)
    invoice = shop.stripe.fail_renewal(subscription)
    shop.hear()
    shop.clock.advance(days=3)
    shop.stripe.retry(invoice)
    shop.hear()
    shop.clock.advance(days=10)
    assert people.plan() == "pro"


def test_a_renewal_that_is_paid_ends_the_grace_whether_stripe_tells_of_the_subscription_or_not(
    shop, people
):
    subscription = people.subscribed("pro")
    shop.clock.set(RENEWAL)
    invoice = shop.stripe.fail_renewal(subscription)
    shop.hear()
    shop.clock.advance(days=3)
    shop.stripe.retry(invoice)
    shop.take_in(shop.stripe.deliveries("invoice.paid"))
    shop.clock.advance(days=10)
    assert people.plan() == "pro"


def test_of_an_invoice_that_credit_has_paid_for_the_most_part_no_more_is_tax_than_was_paid(
    shop, people
):
    people.subscribed("pro", tax=570)
    (invoice,) = shop.stripe.every("invoice")
    heard = heard_of({**invoice, "amount_paid": 100}, "invoice.paid", 0)
    assert heard is not None
    assert [(bill["total"], bill["tax"]) for bill in heard.facts[BILL].values()] == [(100, 100)]


def test_a_payment_that_was_only_tried_has_not_paid_an_invoice(shop, people):
    people.subscribed("pro")
    (paid,) = shop.stripe.every("invoice_payment")
    heard = heard_of(paid, "invoice_payment.paid", 0)
    assert heard is not None
    (intent,) = heard.facts[PAID_BY]
    assert intent == shop.stripe.every("payment_intent")[-1]["id"]
    for status in ("open", "canceled"):
        assert heard_of({**paid, "status": status}, "invoice_payment.paid", 0) is None


def test_who_thinks_again_before_the_period_ends_keeps_the_plan(shop, people):
    subscription = people.subscribed("pro")
    shop.stripe.cancel(subscription, at_period_end=True)
    shop.stripe.resume(subscription)
    shop.clock.set(RENEWAL)
    assert shop.stripe.renew(subscription) is not None
    shop.hear()
    assert people.plan() == "pro"


def test_a_plan_is_one_recurring_price_at_stripe_that_names_it(shop, people):
    people.subscribed("pro")
    first = shop.stripe.every("price")
    shop.comptroller.checkout("bob", plan="pro", **URLS)
    assert len(shop.stripe.every("price")) == len(first)
    (price,) = first
    assert (price["unit_amount"], price["recurring"]["interval"]) == (3000, "month")
    assert price["metadata"] == {"comptroller_plan": "pro"}


def test_a_promotion_is_no_revenue(shop, people):
    coupon = shop.stripe.client().v1.coupons.create({"percent_off": 50, "duration": "once"})
    code = {"promotion": {"type": "coupon", "coupon": coupon.id}, "code": "HALF"}
    shop.stripe.client().v1.promotion_codes.create(code)
    checkout = shop.comptroller.checkout("ann", plan="pro", promotion_codes=True, **URLS)
    shop.stripe.pay(checkout.session_id, promotion_code="HALF")
    shop.hear()
    assert people.plan() == "pro"
    shop.clock.set(datetime(2026, 3, 1, tzinfo=UTC))
    assert people.earned(BEGIN, shop.clock()) == 1500
    assert people.deferred() == 0


def test_the_statement_tells_of_the_plan_and_of_each_day(shop, people):
    people.subscribed("pro")
    shop.clock.advance(days=2)
    statement = shop.comptroller.statement("ann", BEGIN, shop.clock() + timedelta(days=1))
    assert statement.check.ok, statement.check.problems
    told = [(line.what, line.plan or line.detail) for line in statement.lines]
    assert ("plan", "pro") in told
    assert [what for what, _ in told].count("recognised") == 2
    assert statement.totals.sold_minor == {"usd": 3000}


def test_a_subscription_of_somebody_else_at_stripe_is_ignored(shop, people):
    client = shop.stripe.client()
    customer = client.v1.customers.create({"email": "else@example.com"})
    shop.stripe.add_card(customer.id)
    price = people.price_of("pro")
    client.v1.subscriptions.create({"customer": customer.id, "items": [{"price": price}]})
    outcomes = {each.type: each.status for each in shop.hear()}
    assert outcomes["customer.subscription.created"] == "ignored"
    assert outcomes["invoice.paid"] == "ignored"


def test_a_subscription_that_is_not_what_we_offered_gives_no_plan(shop, people):
    checkout = shop.comptroller.checkout("ann", plan="pro", **URLS)
    shop.stripe.pay(checkout.session_id)
    changed = []
    for delivery in list(shop.stripe.deliveries()):
        payload = delivery.payload.replace(b'"amount_subtotal":3000', b'"amount_subtotal":1')
        payload = payload.replace(b'"amount_subtotal": 3000', b'"amount_subtotal": 1')
        changed.append(payload != delivery.payload)
        now = int(shop.clock().timestamp())
        shop.comptroller.handle_stripe_event(
            payload, sign(payload, shop.stripe.webhook_secret, now)
        )
    assert any(changed)
    (bought,) = shop.comptroller.purchases("ann")
    assert (bought.status, people.plan()) == ("quarantined", "standard")
    assert "the offer was 3000 usd" in (bought.problem or "")
    # What was paid is on the books all the same: it is to be earned or given back.
    assert people.deferred() == 3000
