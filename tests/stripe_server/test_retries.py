"""Idempotency keys, and what goes wrong on the way."""

from __future__ import annotations

import threading

import pytest
import stripe

from tests.stripe_server.conftest import error_of

KEY = {"idempotency_key": "one"}


def test_the_same_request_is_answered_once(server, client):
    first = client.v1.customers.create({"name": "Ada"}, KEY)
    again = client.v1.customers.create({"name": "Ada"}, KEY)
    assert first.id == again.id
    assert len(server.every("customer")) == 1
    assert "idempotent-replayed" not in first.last_response.headers
    assert again.last_response.headers["idempotent-replayed"] == "true"
    original = first.last_response.headers["request-id"]
    assert again.last_response.headers["original-request"] == original


def test_a_key_is_for_one_request(client):
    client.v1.customers.create({"name": "Ada"}, KEY)
    with pytest.raises(stripe.IdempotencyError, match="same parameters") as refused:
        client.v1.customers.create({"name": "Bob"}, KEY)
    assert refused.value.http_status == 400
    with pytest.raises(stripe.IdempotencyError, match="same endpoint"):
        client.v1.products.create({"name": "Ada"}, KEY)


def test_a_key_is_kept_for_a_day(server, client, clock):
    first = client.v1.customers.create({"name": "Ada"}, KEY)
    clock.advance(hours=23, minutes=59)
    assert client.v1.customers.create({"name": "Ada"}, KEY).id == first.id
    clock.advance(minutes=1)
    assert client.v1.customers.create({"name": "Ada"}, KEY).id != first.id


def test_a_refusal_of_parameters_is_not_kept(server, client):
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.products.create({"description": "no name"}, KEY)
    assert client.v1.products.create({"name": "Pack"}, KEY).name == "Pack"


def test_two_at_once_with_one_key_are_a_conflict(server, client):
    made = []
    gate = server.hold(method="POST")
    first = threading.Thread(
        target=lambda: made.append(client.v1.customers.create({"name": "Ada"}, KEY).id)
    )
    first.start()
    gate.wait_until_reached()
    with pytest.raises(stripe.StripeError) as refused:
        client.v1.customers.create({"name": "Ada"}, KEY)
    assert refused.value.http_status == 409
    assert error_of(refused)["code"] == "idempotency_key_in_use"
    gate.release()
    first.join()
    assert [client.v1.customers.create({"name": "Ada"}, KEY).id] == made


def test_a_failure_inside_is_kept_under_its_key(server, client):
    server.go_wrong("error")
    for _ in range(2):
        with pytest.raises(stripe.APIError) as failed:
            client.v1.customers.create({"name": "Ada"}, KEY)
        assert failed.value.http_status == 500
    assert server.every("customer") == []
    assert client.v1.customers.create({"name": "Ada"}).name == "Ada"


def test_a_failure_may_come_after_the_effect(server, client):
    server.go_wrong("error", after=True)
    with pytest.raises(stripe.APIError):
        client.v1.customers.create({"name": "Ada"}, KEY)
    assert len(server.every("customer")) == 1


def test_a_rate_limit_is_not_kept(server, client):
    server.go_wrong("rate_limit", times=2, path="/v1/customers")
    for _ in range(2):
        with pytest.raises(stripe.RateLimitError):
            client.v1.customers.create({"name": "Ada"}, KEY)
    assert client.v1.customers.create({"name": "Ada"}, KEY).name == "Ada"


def test_a_key_may_lack_a_permission(server, client):
    server.go_wrong("forbidden")
    with pytest.raises(stripe.PermissionError):
        client.v1.customers.list()


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("kind", ["cut", "silence"])
def test_an_answer_that_is_lost_is_found_again_by_its_key(server, client, kind, after):
    client.v1.customers.create({"name": "the first compiles the schemas, and takes longer"})
    hasty = server.client(http_client=stripe.RequestsClient(timeout=0.5))
    server.go_wrong(kind, after=after)
    with pytest.raises(stripe.APIConnectionError):
        hasty.v1.customers.create({"name": "Ada"}, KEY)
    hasty._requestor._client.close()
    assert len(server.every("customer")) == 1 + after
    assert client.v1.customers.create({"name": "Ada"}, KEY).name == "Ada"
    assert len(server.every("customer")) == 2
