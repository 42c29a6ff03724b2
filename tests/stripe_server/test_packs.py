"""Packs by Checkout, driven by the real client: the session, the money, and what is said of it."""

from __future__ import annotations

import asyncio

import pytest
import stripe

from tests.stripe_server import StripeServer


def session_of(client, price, **more):
    return client.v1.checkout.sessions.create(
        {
            "mode": "payment",
            "success_url": "https://shop.example/thanks",
            "line_items": [{"price": price.id, "quantity": 1}],
            **more,
        }
    )


def test_a_paid_session_has_a_payment_a_charge_and_a_net_amount(server, client, pack):
    session = session_of(
        client,
        pack,
        client_reference_id="ada",
        metadata={"account": "ada"},
        payment_intent_data={"metadata": {"order": "7"}},
    )
    assert (session.status, session.payment_status) == ("open", "unpaid")
    assert session.payment_intent is None
    server.pay(session, fee=88)
    path = ["payment_intent.latest_charge.balance_transaction", "line_items"]
    paid = client.v1.checkout.sessions.retrieve(session.id, {"expand": path})
    assert (paid.status, paid.payment_status) == ("complete", "paid")
    assert (paid.client_reference_id, paid.metadata["account"]) == ("ada", "ada")
    intent = paid.payment_intent
    assert (intent.status, intent.amount_received, intent.metadata["order"]) == (
        "succeeded",
        2000,
        "7",
    )
    moved = intent.latest_charge.balance_transaction
    assert (moved.amount, moved.fee, moved.net, moved.type) == (2000, 88, 1912, "charge")
    assert moved.source == intent.latest_charge.id
    assert [line.price.id for line in paid.line_items.data] == [pack.id]


def test_what_happens_is_said_in_events_with_the_state_of_their_moment(server, client, pack):
    session = session_of(client, pack)
    since = len(server.events)
    server.pay(session)
    assert server.event_types(since) == [
        "payment_intent.created",
        "charge.succeeded",
        "payment_intent.succeeded",
        "charge.updated",
        "checkout.session.completed",
    ]
    succeeded, updated = server.events[since + 1], server.events[since + 3]
    assert succeeded["data"]["object"]["balance_transaction"] is None
    assert updated["data"]["previous_attributes"] == {"balance_transaction": None}


def test_a_bank_debit_completes_unpaid_and_clears_later(server, client, pack):
    session = session_of(client, pack)
    server.pay_later(session)
    waiting = client.v1.checkout.sessions.retrieve(session.id)
    assert (waiting.status, waiting.payment_status) == ("complete", "unpaid")
    server.clear(session)
    assert client.v1.checkout.sessions.retrieve(session.id).payment_status == "paid"
    assert server.event_types()[-1] == "checkout.session.async_payment_succeeded"


def test_a_bank_debit_may_not_come(server, client, pack):
    session = session_of(client, pack)
    server.pay_later(session)
    server.fail(session)
    assert server.event_types()[-3:] == [
        "charge.failed",
        "payment_intent.payment_failed",
        "checkout.session.async_payment_failed",
    ]
    assert client.v1.checkout.sessions.retrieve(session.id).payment_status == "unpaid"


def test_a_session_expires_by_request_or_by_the_clock(server, client, clock, pack):
    session = session_of(client, pack)
    assert client.v1.checkout.sessions.expire(session.id).status == "expired"
    with pytest.raises(stripe.InvalidRequestError, match="can be expired"):
        client.v1.checkout.sessions.expire(session.id)
    other = session_of(client, pack)
    clock.advance(hours=24)
    assert [each["id"] for each in server.expire_due()] == [other.id]
    assert server.event_types()[-2:] == ["checkout.session.expired"] * 2


def test_a_customer_may_buy_more_where_they_may_say_how_many(server, client, pack):
    line = {
        "price": pack.id,
        "quantity": 1,
        "adjustable_quantity": {"enabled": True, "minimum": 1, "maximum": 5},
    }
    session = session_of(client, pack, line_items=[line])
    with pytest.raises(ValueError, match="nobody can buy 6"):
        server.pay(session, quantity=6)
    server.pay(session, quantity=3)
    paid = client.v1.checkout.sessions.retrieve(session.id, {"expand": ["line_items"]})
    assert (paid.amount_total, paid.line_items.data[0].quantity) == (6000, 3)


def test_sessions_are_found_by_their_payment_or_customer(server, client, pack):
    customer = client.v1.customers.create({"email": "ada@example.com"})
    session = session_of(client, pack, customer=customer.id)
    other = session_of(client, pack, customer_email="bob@example.com")
    paid = server.pay(session)
    sessions = client.v1.checkout.sessions
    for filters in (
        {"payment_intent": paid["payment_intent"]},
        {"customer": customer.id},
        {"status": "complete"},
        {"customer_details": {"email": "ada@example.com"}},
    ):
        assert [each.id for each in sessions.list(filters).data] == [session.id]
    assert [each.id for each in sessions.list({"status": "open"}).data] == [other.id]


def test_what_a_customer_began_to_pay_is_cancelled_with_the_session(server, client, pack):
    session = session_of(client, pack)
    intent = server.decline(session)["payment_intent"]
    server.expire(session)
    assert client.v1.payment_intents.retrieve(intent).status == "canceled"
    assert server.event_types()[-2:] == ["payment_intent.canceled", "checkout.session.expired"]


async def paid_on_asyncio(server: StripeServer, pack) -> str:
    client = server.client(http_client=stripe.HTTPXClient(allow_sync_methods=False))
    session = await client.v1.checkout.sessions.create_async(
        {
            "mode": "payment",
            "success_url": "https://shop.example/thanks",
            "line_items": [{"price": pack.id, "quantity": 3}],
        }
    )
    server.pay(session)
    paid = await client.v1.checkout.sessions.retrieve_async(session.id)
    await client._requestor._client.close_async()
    return f"{paid.amount_total} {paid.payment_status}"


# Stripe's client hands httpx its form as `data`, which httpx would rather have as `content`.
@pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")
def test_the_client_on_asyncio_sees_the_same(server, pack):
    assert asyncio.run(paid_on_asyncio(server, pack)) == "6000 paid"
