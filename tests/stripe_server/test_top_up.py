"""Cards on file: kept at Checkout or by a SetupIntent, charged while nobody is there."""

from __future__ import annotations

import pytest
import stripe

from tests.stripe_server.conftest import error_of
from tests.stripe_server.test_packs import session_of


@pytest.fixture
def customer(client):
    return client.v1.customers.create({"email": "ada@example.com"})


def charged(client, customer, card, **more):
    return client.v1.payment_intents.create(
        {
            "amount": 2000,
            "currency": "usd",
            "customer": customer.id,
            "payment_method": card["id"],
            "off_session": True,
            "confirm": True,
            "metadata": {"account": "ada"},
            **more,
        }
    )


def test_a_card_that_pays(server, client, customer):
    intent = charged(client, customer, server.add_card(customer), expand=["latest_charge"])
    assert (intent.status, intent.amount_received) == ("succeeded", 2000)
    assert intent.latest_charge.metadata["account"] == "ada"


@pytest.mark.parametrize(
    ("behaviour", "code"),
    [
        ("generic_decline", "card_declined"),
        ("insufficient_funds", "card_declined"),
        ("expired_card", "expired_card"),
        ("authentication_required", "authentication_required"),
    ],
)
def test_a_card_that_declines_is_an_error_with_the_intent(
    server, client, customer, behaviour, code
):
    card = server.add_card(customer, behaviour)
    since = len(server.events)
    with pytest.raises(stripe.CardError) as refused:
        charged(client, customer, card)
    error = error_of(refused)
    assert (refused.value.http_status, refused.value.code) == (402, code)
    assert (error["type"], error["decline_code"]) == ("card_error", behaviour)
    intent = error["payment_intent"]
    assert (intent["status"], intent["last_payment_error"]["code"]) == (
        "requires_payment_method",
        code,
    )
    assert server.event_types(since) == [
        "payment_intent.created",
        "charge.failed",
        "payment_intent.payment_failed",
    ]
    other = server.add_card(customer)
    paid = client.v1.payment_intents.confirm(intent["id"], {"payment_method": other["id"]})
    assert (paid.status, paid.last_payment_error) == ("succeeded", None)


def test_a_declined_payment_is_remembered_by_its_key(server, client, customer):
    card = server.add_card(customer, "insufficient_funds")
    request = {
        "amount": 2000,
        "currency": "usd",
        "customer": customer.id,
        "payment_method": card["id"],
        "off_session": True,
        "confirm": True,
    }
    for _ in range(2):
        with pytest.raises(stripe.CardError):
            client.v1.payment_intents.create(request, {"idempotency_key": "top-up-1"})
        server.set_behaviour(card, "ok")
    assert len(server.every("payment_intent")) == 1


def test_a_customer_who_is_there_can_authenticate(server, client, customer):
    card = server.add_card(customer, "authentication_required")
    intent = charged(client, customer, card, off_session=False)
    assert (intent.status, intent.next_action.type) == ("requires_action", "use_stripe_sdk")
    server.authenticate(intent.id)
    assert client.v1.payment_intents.retrieve(intent.id).status == "succeeded"


def test_checkout_keeps_a_card_for_later(server, client, customer, pack):
    session = session_of(
        client,
        pack,
        customer=customer.id,
        payment_intent_data={"setup_future_usage": "off_session"},
    )
    server.pay(session, card="authentication_required")
    [card] = client.v1.customers.payment_methods.list(customer.id, {"type": "card"}).data
    client.v1.customers.update(
        customer.id, {"invoice_settings": {"default_payment_method": card.id}}
    )
    found = client.v1.customers.retrieve(
        customer.id, {"expand": ["invoice_settings.default_payment_method"]}
    )
    assert found.invoice_settings.default_payment_method.card.last4 == "4242"
    with pytest.raises(stripe.CardError):
        charged(client, customer, card)


def test_a_guest_who_keeps_a_card_becomes_a_customer(server, client, pack):
    guest = server.pay(session_of(client, pack))
    assert guest["customer"] is None
    keeper = server.pay(
        session_of(client, pack, payment_intent_data={"setup_future_usage": "off_session"})
    )
    assert client.v1.customers.retrieve(keeper["customer"]).email == "customer@example.com"


def test_a_setup_keeps_a_card_without_a_payment(server, client, customer):
    made = client.v1.setup_intents.create(
        {"customer": customer.id, "payment_method": "pm_card_visa", "confirm": True}
    )
    assert made.status == "succeeded"
    session = client.v1.checkout.sessions.create(
        {
            "mode": "setup",
            "currency": "usd",
            "customer": customer.id,
            "success_url": "https://shop.example/",
        }
    )
    done = server.pay(session)
    assert (done["payment_status"], done["payment_intent"]) == ("no_payment_required", None)
    assert client.v1.setup_intents.retrieve(done["setup_intent"]).status == "succeeded"
    assert len(client.v1.customers.payment_methods.list(customer.id).data) == 2
    with pytest.raises(stripe.CardError):
        client.v1.setup_intents.create(
            {"customer": customer.id, "payment_method": "pm_card_chargeDeclined", "confirm": True}
        )


def test_a_card_of_another_customer_is_refused(server, client, customer):
    other = client.v1.customers.create({})
    card = server.add_card(other)
    with pytest.raises(stripe.InvalidRequestError, match="does not belong"):
        charged(client, customer, card)
    client.v1.payment_methods.detach(card["id"])
    assert client.v1.customers.retrieve(other.id).invoice_settings.default_payment_method is None


def test_a_card_that_declines_at_checkout_leaves_the_session_open(server, client, pack):
    line = {"price": pack.id, "quantity": 1, "adjustable_quantity": {"enabled": True}}
    session = session_of(client, pack, line_items=[line])
    declined = server.decline(session, "insufficient_funds")
    assert (declined["status"], server.event_types()[-1]) == (
        "open",
        "payment_intent.payment_failed",
    )
    paid = server.pay(session, quantity=2)
    assert paid["payment_intent"] == declined["payment_intent"]
    assert server.get(paid["payment_intent"])["amount_received"] == 4000
