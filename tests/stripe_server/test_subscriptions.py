"""Subscriptions: by Checkout, month after month, up and down, and to their end."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
import stripe

from tests.stripe_server.conftest import plan


def subscribed(server, client, price, **more):
    """The subscription of a customer who paid a session for it, as a dict."""
    session = client.v1.checkout.sessions.create(
        {
            "mode": "subscription",
            "success_url": "https://shop.example/thanks",
            "line_items": [{"price": price.id, "quantity": 1}],
            "subscription_data": {"metadata": {"account": "ada"}},
            **more,
        }
    )
    return server.get(server.pay(session)["subscription"])


def lines_of(invoice):
    return [
        (line["amount"], line["description"].split(" (")[0]) for line in invoice["lines"]["data"]
    ]


def instant(year, month, day, hour=0):
    return int(datetime(year, month, day, hour, tzinfo=UTC).timestamp())


@pytest.fixture
def clock(clock):
    clock.set(datetime(2026, 1, 31, 12, tzinfo=UTC))
    return clock


def test_a_session_makes_a_subscription_with_a_paid_invoice(server, client, basic):
    made = subscribed(server, client, basic)
    found = client.v1.subscriptions.retrieve(
        made["id"], {"expand": ["latest_invoice.payments", "customer"]}
    )
    assert (found.status, found.metadata["account"]) == ("active", "ada")
    item = found["items"].data[0]
    assert (item.current_period_start, item.current_period_end) == (
        instant(2026, 1, 31, 12),
        instant(2026, 2, 28, 12),
    )
    invoice = found.latest_invoice
    assert (invoice.status, invoice.amount_paid, invoice.billing_reason) == (
        "paid",
        3000,
        "subscription_create",
    )
    details = invoice.parent.subscription_details
    assert (details.subscription, details.metadata["account"]) == (made["id"], "ada")
    [payment] = invoice.payments.data
    listed = client.v1.invoice_payments.list(
        {"payment": {"type": "payment_intent", "payment_intent": payment.payment.payment_intent}}
    )
    assert [each.invoice for each in listed.data] == [invoice.id]
    assert found.customer.email == "customer@example.com"


def test_the_events_of_a_subscription_that_begins(server, client, basic):
    since = len(server.events)
    subscribed(server, client, basic)
    assert server.event_types(since) == [
        "customer.created",
        "payment_method.attached",
        "payment_intent.created",
        "charge.succeeded",
        "payment_intent.succeeded",
        "charge.updated",
        "customer.subscription.created",
        "invoice.created",
        "invoice.finalized",
        "invoice_payment.paid",
        "invoice.updated",
        "invoice.paid",
        "invoice.payment_succeeded",
        "checkout.session.completed",
    ]


def test_a_card_that_declines_at_checkout_leaves_no_subscription(server, client, basic):
    session = client.v1.checkout.sessions.create(
        {
            "mode": "subscription",
            "success_url": "https://shop.example/thanks",
            "line_items": [{"price": basic.id, "quantity": 1}],
        }
    )
    server.decline(session)
    assert server.event_types()[-1] == "payment_intent.payment_failed"
    assert (server.every("subscription"), server.every("invoice")) == ([], [])
    assert client.v1.checkout.sessions.retrieve(session.id).status == "open"
    paid = server.pay(session)
    assert (paid["payment_status"], len(server.every("payment_intent"))) == ("paid", 1)
    assert server.get(paid["invoice"])["amount_paid"] == 3000


def test_it_renews_at_the_end_of_its_period(server, client, clock, basic):
    made = subscribed(server, client, basic)
    with pytest.raises(ValueError, match="step the clock"):
        server.renew(made)
    clock.set(datetime(2026, 2, 28, 12, tzinfo=UTC))
    invoice = server.renew(made)
    assert (invoice["billing_reason"], invoice["amount_paid"]) == ("subscription_cycle", 3000)
    # The invoice's own period is the one before; its line has the one that is billed.
    assert (invoice["period_start"], invoice["period_end"]) == (
        instant(2026, 1, 31, 12),
        instant(2026, 2, 28, 12),
    )
    assert invoice["lines"]["data"][0]["period"] == {
        "start": instant(2026, 2, 28, 12),
        "end": instant(2026, 3, 31, 12),
    }
    told = [each for each in server.events if each["type"] == "customer.subscription.updated"][-1]
    before = told["data"]["previous_attributes"]["items"]["data"][0]
    assert before["current_period_end"] == instant(2026, 2, 28, 12)


def test_an_upgrade_is_prorated_to_the_second(server, client, clock, basic, premium):
    made = subscribed(server, client, basic)
    clock.set(datetime(2026, 2, 14, 12, tzinfo=UTC))  # half of the 28 days
    item = made["items"]["data"][0]["id"]
    changed = client.v1.subscriptions.update(
        made["id"],
        {
            "items": [{"id": item, "price": premium.id}],
            "proration_behavior": "always_invoice",
            "expand": ["latest_invoice"],
        },
    )
    invoice = changed.latest_invoice
    assert lines_of(invoice) == [
        (-1500, "Unused time on Basic"),
        (4500, "Remaining time on Premium"),
    ]
    assert (invoice.amount_paid, invoice.billing_reason) == (3000, "subscription_update")
    parents = [line.parent.subscription_item_details for line in invoice.lines.data]
    assert all(parent.proration for parent in parents)
    assert parents[0].proration_details.credited_items.invoice == made["latest_invoice"]


def test_prorations_wait_for_the_renewal_unless_they_are_billed_at_once(
    server, client, clock, basic, premium
):
    made = subscribed(server, client, premium)
    clock.set(datetime(2026, 2, 14, 12, tzinfo=UTC))
    server.change_plan(made, basic.id)
    assert client.v1.subscriptions.retrieve(made["id"]).latest_invoice == made["latest_invoice"]
    clock.set(datetime(2026, 2, 28, 12, tzinfo=UTC))
    invoice = server.renew(made)
    assert [amount for amount, _ in lines_of(invoice)] == [-4500, 1500, 3000]
    assert (invoice["total"], invoice["amount_paid"]) == (0, 0)


def test_a_downgrade_billed_at_once_leaves_credit(server, client, clock, basic, premium):
    made = subscribed(server, client, premium)
    clock.set(datetime(2026, 2, 14, 12, tzinfo=UTC))
    server.change_plan(made, basic.id, proration_behavior="always_invoice")
    assert client.v1.customers.retrieve(made["customer"]).balance == -3000
    clock.set(datetime(2026, 2, 28, 12, tzinfo=UTC))
    invoice = server.renew(made)
    assert (invoice["total"], invoice["starting_balance"], invoice["amount_paid"]) == (
        3000,
        -3000,
        0,
    )
    assert client.v1.customers.retrieve(made["customer"]).balance == 0


def test_another_interval_begins_a_new_period_at_once(server, client, clock, basic):
    yearly = plan(client, "Yearly", 30000, "year")
    made = subscribed(server, client, basic)
    clock.set(datetime(2026, 2, 14, 12, tzinfo=UTC))
    changed = server.change_plan(made, yearly.id)
    assert changed["items"]["data"][0]["current_period_end"] == instant(2027, 2, 14, 12)
    invoice = server.get(changed["latest_invoice"])
    assert [amount for amount, _ in lines_of(invoice)] == [-1500, 30000]
    assert invoice["amount_paid"] == 28500


def test_a_renewal_that_is_declined_is_past_due_until_it_is_paid(server, client, clock, basic):
    made = subscribed(server, client, basic)
    clock.set(datetime(2026, 2, 28, 12, tzinfo=UTC))
    since = len(server.events)
    invoice = server.fail_renewal(made, "insufficient_funds")
    assert server.event_types(since)[-5:] == [
        "charge.failed",
        "payment_intent.payment_failed",
        "invoice.updated",
        "invoice.payment_failed",
        "customer.subscription.updated",
    ]
    assert (invoice["status"], invoice["attempt_count"]) == ("open", 1)
    assert client.v1.subscriptions.retrieve(made["id"]).status == "past_due"
    paid = client.v1.invoices.pay(invoice["id"])
    assert (paid.status, paid.attempt_count) == ("paid", 2)
    assert client.v1.subscriptions.retrieve(made["id"]).status == "active"


def test_after_the_last_retry_it_ends(server, client, clock, basic):
    made = subscribed(server, client, basic)
    clock.set(datetime(2026, 2, 28, 12, tzinfo=UTC))
    server.fail_renewal(made)
    ended = server.give_up(made)
    assert (ended["status"], ended["cancellation_details"]["reason"]) == (
        "canceled",
        "payment_failed",
    )
    assert server.event_types()[-1] == "customer.subscription.deleted"


def test_it_ends_with_its_period_or_at_once(server, client, clock, basic):
    made = subscribed(server, client, basic)
    client.v1.subscriptions.update(made["id"], {"cancel_at_period_end": True})
    kept = client.v1.subscriptions.retrieve(made["id"])
    assert (kept.status, kept.cancel_at) == ("active", instant(2026, 2, 28, 12))
    client.v1.subscriptions.update(made["id"], {"cancel_at_period_end": False})
    server.cancel(made, at_period_end=True)
    clock.set(datetime(2026, 3, 1, tzinfo=UTC))
    assert server.renew(made) is None
    ended = client.v1.subscriptions.retrieve(made["id"])
    assert (ended.status, ended.ended_at) == ("canceled", instant(2026, 2, 28, 12))
    other = subscribed(server, client, basic)
    assert client.v1.subscriptions.cancel(other["id"]).status == "canceled"
    with pytest.raises(stripe.InvalidRequestError, match="No such subscription"):
        client.v1.subscriptions.cancel(other["id"])
    assert client.v1.subscriptions.list().data == []
    assert len(client.v1.subscriptions.list({"status": "all"}).data) == 2


def test_a_trial_is_free_and_then_is_not(server, client, clock, basic):
    made = subscribed(server, client, basic, subscription_data={"trial_period_days": 14})
    assert made["status"] == "trialing"
    assert server.get(made["latest_invoice"])["amount_due"] == 0
    clock.advance(days=14)
    assert server.renew(made)["amount_paid"] == 3000
    assert client.v1.subscriptions.retrieve(made["id"]).status == "active"


def test_a_subscription_is_made_by_request_for_a_customer_with_a_card(server, client, basic):
    customer = client.v1.customers.create({"email": "ada@example.com"})
    request = {"customer": customer.id, "items": [{"price": basic.id, "quantity": 2}]}
    with pytest.raises(stripe.InvalidRequestError, match="default payment method"):
        client.v1.subscriptions.create(request)
    server.add_card(customer)
    made = client.v1.subscriptions.create(request)
    assert made.status == "active"
    assert client.v1.invoices.retrieve(made.latest_invoice).amount_paid == 6000
    declining = client.v1.customers.create({"email": "bob@example.com"})
    server.add_card(declining, "generic_decline")
    assert client.v1.subscriptions.create({**request, "customer": declining.id}).status == (
        "incomplete"
    )


def test_a_customer_manages_it_in_the_billing_portal(server, client, basic):
    made = subscribed(server, client, basic)
    portal = client.v1.billing_portal.sessions.create(
        {"customer": made["customer"], "return_url": "https://shop.example/account"}
    )
    assert portal.url.startswith("https://billing.stripe.com/")


def test_a_pack_may_be_sold_with_a_subscription(server, client, clock, basic, pack):
    lines = [{"price": basic.id, "quantity": 1}, {"price": pack.id, "quantity": 2}]
    made = subscribed(server, client, basic, line_items=lines)
    invoice = client.v1.invoices.retrieve(made["latest_invoice"])
    parents = {line.parent.type: line.amount for line in invoice.lines.data}
    assert parents == {"invoice_item_details": 4000, "subscription_item_details": 3000}
    assert invoice.lines.data[0].metadata["account"] == "ada"
    clock.advance(days=28)
    assert server.renew(made)["amount_paid"] == 3000


def test_a_renewal_that_needs_its_customer_says_so(server, client, clock, basic):
    made = subscribed(server, client, basic)
    clock.advance(days=28)
    since = len(server.events)
    server.fail_renewal(made, "authentication_required")
    assert "invoice.payment_action_required" in server.event_types(since)


def test_what_is_unused_may_be_credited_when_it_ends(server, client, clock, basic):
    made = subscribed(server, client, basic)
    clock.set(datetime(2026, 2, 14, 12, tzinfo=UTC))
    client.v1.subscriptions.cancel(made["id"], {"prorate": True, "invoice_now": True})
    assert client.v1.customers.retrieve(made["customer"]).balance == -1500


def test_it_may_end_at_any_time_that_is_named(server, client, clock, basic):
    made = subscribed(server, client, basic)
    ends = instant(2026, 2, 10)
    client.v1.subscriptions.update(made["id"], {"cancel_at": ends})
    clock.set(datetime(2026, 2, 10, tzinfo=UTC))
    assert server.renew(made) is None
    assert client.v1.subscriptions.retrieve(made["id"]).ended_at == ends
