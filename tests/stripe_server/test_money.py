"""Money that comes, goes back, is disputed and is paid out: the balance tells it all."""

from __future__ import annotations

from fractions import Fraction

import pytest
import stripe

from tests.stripe_server import StripeServer
from tests.stripe_server.test_packs import session_of


@pytest.fixture
def paid(server, client, pack):
    """The id of a PaymentIntent of 20.00 dollars, paid, with a fee of 0.88."""
    return server.pay(session_of(client, pack), fee=88)["payment_intent"]


@pytest.fixture
def charge(server, paid):
    return server.get(paid)["latest_charge"]


def movements(client, **filters):
    rows = client.v1.balance_transactions.list({"limit": 100, **filters}).data
    return [(row.type, row.amount, row.fee, row.net) for row in reversed(rows)]


def test_refunds_add_up(server, client, paid, charge):
    client.v1.refunds.create({"payment_intent": paid, "amount": 500})
    assert client.v1.charges.retrieve(charge).amount_refunded == 500
    refund = client.v1.refunds.create({"payment_intent": paid, "metadata": {"why": "asked"}})
    assert (refund.amount, refund.status, refund.charge) == (1500, "succeeded", charge)
    whole = client.v1.charges.retrieve(charge, {"expand": ["refunds"]})
    assert (whole.amount_refunded, whole.refunded) == (2000, True)
    assert [each.amount for each in whole.refunds.data] == [1500, 500]
    assert len(client.v1.refunds.list({"payment_intent": paid}).data) == 2
    assert movements(client) == [
        ("charge", 2000, 88, 1912),
        ("refund", -500, 0, -500),
        ("refund", -1500, 0, -1500),
    ]
    with pytest.raises(stripe.InvalidRequestError) as refused:
        client.v1.refunds.create({"payment_intent": paid})
    assert refused.value.code == "charge_already_refunded"


def test_a_refund_says_how_much_of_the_charge_was_refunded_before(server, paid):
    since = len(server.events)
    server.refund(paid, 500)
    server.refund(paid, 700)
    told = [each for each in server.events[since:] if each["type"] == "charge.refunded"]
    assert [each["data"]["object"]["amount_refunded"] for each in told] == [500, 1200]
    assert [each["data"]["previous_attributes"]["amount_refunded"] for each in told] == [0, 500]


def test_no_more_is_refunded_than_was_paid(client, paid):
    with pytest.raises(stripe.InvalidRequestError, match="greater than"):
        client.v1.refunds.create({"payment_intent": paid, "amount": 2001})


def test_a_refund_that_fails_gives_the_money_back(server, client, paid, charge):
    refund = server.refund(paid, 500)
    since = len(server.events)
    failed = server.fail_refund(refund)
    assert (failed["status"], failed["failure_reason"]) == ("failed", "lost_or_stolen_card")
    assert server.event_types(since) == ["refund.updated", "charge.refund.updated", "refund.failed"]
    back = client.v1.balance_transactions.retrieve(failed["failure_balance_transaction"])
    assert (back.type, back.net, back.source) == ("refund_failure", 500, refund["id"])
    assert client.v1.charges.retrieve(charge).amount_refunded == 0
    assert client.v1.refunds.create({"payment_intent": paid}).amount == 2000


def test_a_lost_dispute_costs_the_payment_and_a_fee(server, client, charge, paid):
    since = len(server.events)
    dispute = server.dispute(charge)
    assert server.event_types(since) == ["charge.dispute.created", "charge.dispute.funds_withdrawn"]
    assert client.v1.charges.retrieve(charge).disputed is True
    with pytest.raises(stripe.InvalidRequestError) as refused:
        client.v1.refunds.create({"payment_intent": paid})
    assert refused.value.code == "charge_disputed"
    assert server.lose(dispute)["status"] == "lost"
    assert server.event_types()[-1] == "charge.dispute.closed"
    assert movements(client, source=dispute["id"]) == [("adjustment", -2000, 1500, -3500)]


def test_a_dispute_that_is_won_returns_the_payment(server, client, charge):
    dispute = server.dispute(charge, 1200)
    answered = client.v1.disputes.update(
        dispute["id"], {"evidence": {"uncategorized_text": "They used it."}, "submit": True}
    )
    assert answered.status == "under_review"
    won = server.win(dispute)
    assert [each["net"] for each in won["balance_transactions"]] == [-2700, 1200]
    assert server.event_types()[-2:] == [
        "charge.dispute.closed",
        "charge.dispute.funds_reinstated",
    ]
    assert client.v1.disputes.list({"charge": charge}).data[0].status == "won"


def test_an_inquiry_moves_no_money_until_it_is_a_dispute(server, client, charge):
    inquiry = server.dispute(charge, inquiry=True)
    assert movements(client, type="adjustment") == []
    server.escalate(inquiry)
    assert movements(client, type="adjustment") == [("adjustment", -2000, 1500, -3500)]
    other = server.dispute(charge, inquiry=True)
    assert server.win(other)["status"] == "warning_closed"


def test_a_payout_holds_what_was_available(server, client, clock, paid):
    server.refund(paid, 500)
    with pytest.raises(ValueError, match="step the clock"):
        server.payout()
    clock.advance(days=2)
    payout = server.payout()
    assert payout["amount"] == 1412
    assert server.event_types()[-3:] == [
        "payout.created",
        "payout.paid",
        "payout.reconciliation_completed",
    ]
    assert movements(client, payout=payout["id"]) == [
        ("charge", 2000, 88, 1912),
        ("refund", -500, 0, -500),
        ("payout", -1412, 0, -1412),
    ]
    balance = client.v1.balance.retrieve()
    assert [each.amount for each in balance.available] == [0]


def test_a_payout_may_come_back(server, client, clock, paid):
    clock.advance(days=2)
    failed = server.fail_payout(server.payout())
    assert (failed["status"], server.event_types()[-1]) == ("failed", "payout.failed")
    assert movements(client, source=failed["id"]) == [
        ("payout", -1912, 0, -1912),
        ("payout_failure", 1912, 0, 1912),
    ]


def test_movements_are_listed_with_what_moved_them(server, client, paid, charge):
    server.refund(paid, 500)
    rows = client.v1.balance_transactions.list({"expand": ["data.source"]}).data
    assert [(row.source.object, row.source.payment_intent) for row in rows] == [
        ("refund", paid),
        ("charge", paid),
    ]
    charges = client.v1.charges.list({"expand": ["data.balance_transaction", "data.refunds"]})
    [found] = charges.data
    assert (found.balance_transaction.net, found.refunds.data[0].amount) == (1912, 500)


@pytest.mark.parametrize(
    ("currency", "amount", "fee"), [("jpy", 500, 14), ("kwd", 5000, 445), ("eur", 500, 44)]
)
def test_currencies_without_hundredths(server, client, currency, amount, fee):
    line = {"currency": currency, "unit_amount": amount, "product_data": {"name": "Pack"}}
    session = client.v1.checkout.sessions.create(
        {
            "mode": "payment",
            "success_url": "https://shop.example/",
            "line_items": [{"price_data": line, "quantity": 1}],
        }
    )
    assert (session.amount_total, session.currency) == (amount, currency)
    server.pay(session)
    assert movements(client, currency=currency) == [("charge", amount, fee, amount - fee)]


def test_dinars_are_charged_in_tens_of_fils(client):
    with pytest.raises(stripe.InvalidRequestError, match="multiple of 10"):
        client.v1.payment_intents.create({"amount": 5005, "currency": "kwd"})


def test_a_currency_may_be_settled_in_another(clock):
    with StripeServer(clock, settlement={"eur": ("usd", Fraction(11, 10))}) as server:
        client = server.client()
        product = client.v1.products.create({"name": "Pack"})
        price = client.v1.prices.create(
            {"product": product.id, "currency": "eur", "unit_amount": 1000}
        )
        server.pay(session_of(client, price), fee=100)
        [row] = client.v1.balance_transactions.list().data
        assert (row.currency, row.amount, row.fee, row.exchange_rate) == ("usd", 1100, 110, 1.1)


def test_what_is_about_real_money_says_so(clock):
    with StripeServer(clock, livemode=True) as server:
        client = server.client()
        product = client.v1.products.create({"name": "Pack"})
        price = client.v1.prices.create(
            {"product": product.id, "currency": "usd", "unit_amount": 1000}
        )
        session = session_of(client, price)
        assert server.api_key.startswith("sk_live_")
        assert session.id.startswith("cs_live_")
        server.pay(session)
        assert {each["livemode"] for each in server.events} == {True}


def test_the_account_says_who_it_is(server, client):
    account = client.v1.accounts.retrieve_current()
    assert (account.id, account.default_currency) == (server.account_id, "usd")
