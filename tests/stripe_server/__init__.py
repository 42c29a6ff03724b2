"""A Stripe of our own, over real HTTP on loopback, for the real `stripe` client.

    with StripeServer(clock=clock) as stripe:
        client = stripe.client()
        session = client.v1.checkout.sessions.create({...})
        stripe.pay(session)
        for payload, header in stripe.deliveries():
            ...

It keeps state and behaves as Stripe does under API version 2026-08-26.dahlia. Requests and
answers are held against Stripe's own description of its API, where that lies beside the project:
a server that served or said anything else ends with an AssertionError, and so does one that was
asked for something that it does nothing about.

What it does otherwise than Stripe, on purpose:

- An invoice is finalised and paid as soon as it is made; Stripe waits an hour at a renewal.
- Subscriptions end and renew, and sessions expire, when the test says so, once the clock allows.
- Tax is the sum that the test names; there are no tax rates.
- Money of a currency stays in that currency unless `settlement` says otherwise.
- A request for another API version is refused: it would be answered in other shapes.
- A payment by card is captured at once: no manual capture, no Connect, no credit notes.
- The money of a refund that failed can be refunded again: `amount_refunded` goes down.
- Events come in one order; Stripe promises none, so a test shuffles them: `deliveries(shuffle=1)`.
"""

from __future__ import annotations

from tests.stripe_server.faults import Fault, Gate
from tests.stripe_server.server import StripeServer
from tests.stripe_server.webhooks import Attempt, Delivery, Endpoint

__all__ = ["Attempt", "Delivery", "Endpoint", "Fault", "Gate", "StripeServer"]
