"""What is served is what Stripe describes, and the check of it can fail."""

from __future__ import annotations

import pytest
import stripe

from tests.stripe_server import StripeServer, specification
from tests.stripe_server.routes import ROUTES
from tests.stripe_server.test_packs import session_of
from tests.stripe_server.test_subscriptions import subscribed

pytestmark = pytest.mark.skipif(
    not specification.present(), reason="no ../shared beside the project: Stripe's description"
)


def test_an_object_of_the_server_is_one_of_stripes(server, client, pack):
    paid = server.pay(session_of(client, pack))
    charge = server.get(server.get(paid["payment_intent"])["latest_charge"])
    assert specification.complaints([paid, charge]) == []


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"amount": "2000"}, "is not of type"),
        ({"status": "done"}, "is not one of"),
        ({"colour": "red"}, "colour"),
        ({"payment_method_details": {"type": "card", "card": {"exp_year": 2040}}}, ""),
    ],
)
def test_an_object_that_is_not_one_of_stripes_is_noticed(server, client, pack, fields, complaint):
    paid = server.pay(session_of(client, pack))
    charge = server.get(server.get(paid["payment_intent"])["latest_charge"])
    [told] = specification.complaints({"data": [charge | fields]})
    assert charge["id"] in told
    assert complaint in told


def test_a_member_that_is_missing_is_noticed(server, client, pack):
    paid = server.pay(session_of(client, pack))
    del paid["payment_status"]
    [told] = specification.complaints(paid)
    assert "payment_status" in told


def lived(clock, course):
    """Run a server through a course of events, to its end."""
    with StripeServer(clock) as server:
        course(server, server.client())


def test_a_server_that_served_what_is_not_stripes_ends_with_an_error(clock):
    def course(server, client):
        server.world.add("customer", "cus_broken", livemode="no")
        client.v1.customers.list()

    with pytest.raises(AssertionError, match="served what Stripe does not"):
        lived(clock, course)


def test_an_event_about_what_is_not_stripes_ends_with_an_error(clock):
    def course(server, client):
        server.world.emit("customer.created", server.world.add("customer", "cus_broken"))

    with pytest.raises(AssertionError, match="livemode"):
        lived(clock, course)


def test_a_mistake_of_the_server_ends_with_an_error(clock):
    def course(server, client):
        server.world.add("customer", "cus_broken")
        with pytest.raises(stripe.APIError):
            client.v1.customers.update("cus_broken", {"metadata": {"a": "b"}})

    with pytest.raises(AssertionError, match="KeyError"):
        lived(clock, course)


def test_every_endpoint_is_in_the_description():
    unknown = [
        (each.method, each.template)
        for each in ROUTES
        if specification.request_schema(each.method, each.template) is None
        and not each.template.startswith("/v2/")
    ]
    assert unknown == []


def test_whatever_happens_is_told_in_objects_of_stripes(
    server, client, clock, pack, basic, premium
):
    """A long course. The server checks at its end what it served and what its events say."""
    paid = server.pay(session_of(client, pack, customer_creation="always"))["payment_intent"]
    refund = server.refund(paid, 700)
    server.fail_refund(refund)
    waiting = session_of(client, pack)
    later = server.pay_later(waiting)["payment_intent"]
    server.clear(waiting)
    server.settle_refund(client.v1.refunds.create({"payment_intent": later, "amount": 100}).id)
    server.decline(session_of(client, pack))
    server.lose(server.dispute(server.get(later)["latest_charge"], 50, inquiry=False))
    made = subscribed(server, client, basic, automatic_tax={"enabled": True})
    clock.advance(days=10)
    server.change_plan(made, premium.id, proration_behavior="always_invoice")
    clock.advance(days=25)
    server.renew(made, tax=100)
    clock.advance(days=31)
    server.retry(server.fail_renewal(made))
    server.payout()
    server.cancel(made, at_period_end=False)
    kinds = {each["object"] for each in server.world.objects.values()}
    for kind in kinds:
        assert specification.complaints(server.every(kind)) == []
    assert {"charge", "dispute", "invoice", "payout", "refund"} <= kinds
    assert len(server.deliveries(thin=True)) == len(server.events)
