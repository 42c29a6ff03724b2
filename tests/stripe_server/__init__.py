"""A Stripe of our own, over real HTTP on loopback, for the real `stripe` client.

    with StripeServer(clock=clock) as stripe:
        client = stripe.client()
        session = client.v1.checkout.sessions.create({...})
        stripe.pay(session)
        for payload, header in stripe.deliveries():
            ...

It keeps state and behaves as Stripe does under API version 2026-08-26.dahlia. Requests and
answers are held against Stripe's own description of its API, where that lies beside the project.

What it does otherwise than Stripe, on purpose:

- An invoice is finalised and paid as soon as it is made; Stripe waits an hour at a renewal.
- Subscriptions end and renew when the test says so, once the clock has come to it.
- Tax is the sum that the test names; there are no tax rates.
- Money of a currency stays in that currency unless `settlement` says otherwise.
- A request for another API version is refused: it would be answered in other shapes.
- Payment by card is captured at once; there is no manual capture and no Connect.
"""

from __future__ import annotations

from tests.stripe_server.faults import Fault, Gate
from tests.stripe_server.server import StripeServer
from tests.stripe_server.webhooks import Attempt, Delivery, Endpoint

__all__ = ["Attempt", "Delivery", "Endpoint", "Fault", "Gate", "StripeServer"]
