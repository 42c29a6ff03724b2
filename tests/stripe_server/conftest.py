"""What the tests of the server itself may ask for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import stripe

from quota.testing import FakeClock
from tests.stripe_server import StripeServer


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def server(clock: FakeClock) -> Iterator[StripeServer]:
    with StripeServer(clock) as server:
        yield server


@pytest.fixture
def client(server: StripeServer) -> Any:
    return server.client()


@pytest.fixture
def pack(client: Any) -> Any:
    """A price of 20.00 dollars, paid once."""
    product = client.v1.products.create({"name": "Pack of 1000"})
    return client.v1.prices.create(
        {
            "product": product.id,
            "currency": "usd",
            "unit_amount": 2000,
            "lookup_key": "pack",
            "metadata": {"pack": "thousand"},
        }
    )


def error_of(refused: pytest.ExceptionInfo[stripe.StripeError]) -> Any:
    """What Stripe's answer says of an error, also where the client leaves it out."""
    body: Any = refused.value.json_body
    return body["error"]


def plan(client: Any, name: str, unit_amount: int, interval: str = "month") -> Any:
    product = client.v1.products.create({"name": name})
    return client.v1.prices.create(
        {
            "product": product.id,
            "currency": "usd",
            "unit_amount": unit_amount,
            "lookup_key": name.lower(),
            "recurring": {"interval": interval},
        }
    )


@pytest.fixture
def basic(client: Any) -> Any:
    return plan(client, "Basic", 3000)


@pytest.fixture
def premium(client: Any) -> Any:
    return plan(client, "Premium", 9000)
