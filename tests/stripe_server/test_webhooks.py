"""Webhooks: signed as Stripe signs, delivered as badly as the network does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import stripe

from quota.testing import FakeClock
from tests.stripe_server import StripeServer

EVER = 10**10  # the clock of the test is not the machine's


def checked(delivery, secret):
    return stripe.Webhook.construct_event(delivery.payload, delivery.header, secret, tolerance=EVER)


def test_a_delivery_is_signed_with_the_secret_of_the_endpoint(server, client, clock):
    made = client.v1.customers.create({"email": "ada@example.com"})
    [delivery] = server.deliveries()
    event = checked(delivery, server.webhook_secret)
    assert (event.type, event.data.object.id) == ("customer.created", made.id)
    assert event.api_version == "2026-08-26.dahlia"
    assert event.livemode is False
    assert delivery.header.startswith(f"t={int(clock().timestamp())},v1=")
    with pytest.raises(stripe.SignatureVerificationError):
        checked(delivery, "whsec_wrong")
    with pytest.raises(stripe.SignatureVerificationError):
        checked(delivery._replace(payload=delivery.payload + b" "), server.webhook_secret)


def test_a_signature_grows_old(server, client):
    client.v1.customers.create({})
    [(payload, header)] = server.deliveries()
    with pytest.raises(stripe.SignatureVerificationError, match="tolerance"):
        stripe.WebhookSignature.verify_header(payload, header, server.webhook_secret, 300)


def test_for_a_day_after_a_rotation_both_secrets_sign(server, client, clock):
    former = server.webhook_secret
    client.v1.customers.create({})
    latest = server.roll_secret()
    [delivery] = server.deliveries()
    assert checked(delivery, former).type == checked(delivery, latest).type
    clock.advance(hours=24)
    [delivery] = server.deliveries()
    assert checked(delivery, latest)
    with pytest.raises(stripe.SignatureVerificationError):
        checked(delivery, former)


def test_deliveries_come_twice_in_another_order_late_or_never(server, client, clock):
    for name in "abcdefgh":
        client.v1.products.create({"name": name})

    def names(**how):
        return [each.event["data"]["object"]["name"] for each in server.deliveries(**how)]

    assert names() == list("abcdefgh")
    assert names(copies=2) == [name for name in "abcdefgh" for _ in range(2)]
    assert sorted(names(shuffle=1)) == list("abcdefgh") != names(shuffle=1)
    assert names(shuffle=1) == names(shuffle=1)
    assert names(drop=lambda event: event["data"]["object"]["name"] < "g") == ["g", "h"]
    assert names(since=6) == ["g", "h"]
    clock.advance(minutes=10)
    client.v1.products.create({"name": "young"})
    assert names(older_than_seconds=600) == list("abcdefgh")
    assert server.deliveries("price.*") == []


def test_a_snapshot_is_of_its_moment(server, client):
    made = client.v1.customers.create({"name": "before"})
    client.v1.customers.update(made.id, {"name": "after"})
    created, updated = (each.event["data"] for each in server.deliveries("customer.*"))
    assert created["object"]["name"] == "before"
    assert updated["object"]["name"] == "after"
    assert updated["previous_attributes"] == {"name": "before"}


def test_a_thin_delivery_names_what_it_is_about(server, client):
    made = client.v1.customers.create({"name": "Ada"})
    [(payload, header)] = server.deliveries(thin=True)
    notification = client.parse_event_notification(
        payload, header, server.webhook_secret, tolerance=EVER
    )
    assert notification.type == "v1.customer.created"
    assert notification.related_object.id == made.id
    assert notification.fetch_related_object().name == "Ada"
    assert notification.fetch_event().id == notification.id
    snapshot = client.v1.events.retrieve(notification.id)
    assert snapshot.data.object.id == made.id


def test_events_are_listed_for_thirty_days(server, client, clock):
    client.v1.customers.create({"name": "Ada"}, {"idempotency_key": "k-1"})
    [event] = client.v1.events.list({"types": ["customer.created", "customer.updated"]}).data
    assert event.request.idempotency_key == "k-1"
    assert len(client.v1.events.list({"type": "customer.*"}).data) == 1
    assert client.v1.events.list({"created": {"gt": event.created}}).data == []
    clock.advance(days=30)
    assert client.v1.events.list().data == []
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.events.retrieve(event.id)


class Receiver(HTTPServer):
    """An endpoint that answers what the test says, and keeps what it was sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Receive)
        self.answers: list[int] = []
        self.received: list[tuple[bytes, str]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}/webhooks"


class _Receive(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        payload = self.rfile.read(int(self.headers["content-length"]))
        self.server.received.append((payload, self.headers["stripe-signature"]))
        self.send_response(self.server.answers.pop(0) if self.server.answers else 200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Stay quiet."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        thread = threading.Thread(target=receiver.serve_forever, args=(0.02,))
        thread.start()
        yield receiver
        receiver.shutdown()
        thread.join()


def test_an_endpoint_is_tried_again_until_it_accepts(
    server: StripeServer, client, clock: FakeClock, receiver: Receiver
):
    endpoint = server.deliver_to(receiver.url, "customer.*")
    made = client.v1.customers.create({"name": "Ada"})
    client.v1.products.create({"name": "nobody asked"})
    receiver.answers = [500, 302]
    assert [each.status for each in server.deliver()] == [500]
    assert server.deliver() == []
    assert client.v1.events.list({"delivery_success": False}).data[0].data.object.id == made.id
    clock.advance(seconds=300)
    assert [each.status for each in server.deliver()] == [302]
    clock.advance(seconds=1800)
    assert [each.status for each in server.deliver()] == [200]
    assert endpoint.waiting == []
    assert len({payload for payload, _ in receiver.received}) == 1
    times = [header.split(",")[0] for _, header in receiver.received]
    assert len(set(times)) == 3
    for payload, header in receiver.received:
        event = stripe.Webhook.construct_event(
            payload, header, server.webhook_secret, tolerance=EVER
        )
        assert event.data.object.id == made.id


def test_an_endpoint_that_is_down_is_given_up_after_three_days(server, client, clock, receiver):
    endpoint = server.deliver_to("http://127.0.0.1:9/nobody")
    client.v1.customers.create({})
    for _ in range(20):
        server.deliver()
        clock.advance(hours=12)
    assert [each.status for each in endpoint.attempts] == [None] * 10
    assert endpoint.waiting == []


def test_an_endpoint_is_registered_over_the_api(server, client, receiver):
    client.v1.customers.create({"name": "before"})
    hook = client.v1.webhook_endpoints.create(
        {"url": receiver.url, "enabled_events": ["customer.created", "payout.paid"]}
    )
    assert "secret" not in client.v1.webhook_endpoints.retrieve(hook.id)
    client.v1.customers.create({"name": "after"})
    assert [each.status for each in server.deliver()] == [200]
    [(payload, header)] = receiver.received
    event = stripe.Webhook.construct_event(payload, header, hook.secret, tolerance=EVER)
    assert event.data.object.name == "after"
    client.v1.webhook_endpoints.update(hook.id, {"disabled": True})
    client.v1.customers.create({"name": "nobody listens"})
    assert server.deliver() == []
    client.v1.webhook_endpoints.delete(hook.id)
    assert client.v1.webhook_endpoints.list().data == []
