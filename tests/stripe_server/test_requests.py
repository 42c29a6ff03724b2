"""What a request has to be: its key, its parameters, its pages."""

from __future__ import annotations

import pytest
import stripe

from tests.stripe_server import StripeServer, specification
from tests.stripe_server.test_packs import session_of

described = pytest.mark.skipif(
    not specification.present(), reason="no ../shared beside the project: Stripe's description"
)


@pytest.mark.parametrize(
    ("params", "code", "param"),
    [
        ({"name": "Ada", "nickname": "A"}, "parameter_unknown", "nickname"),
        ({"address": {"planet": "Mars"}}, "parameter_unknown", "address[planet]"),
        ({"invoice_settings": {"x": "y"}}, "parameter_unknown", "invoice_settings[x]"),
        ({"balance": "much"}, "parameter_invalid_integer", "balance"),
        ({"metadata": {"k" * 41: "v"}}, None, "metadata"),
    ],
)
@described
def test_a_request_that_the_description_does_not_know_is_refused(client, params, code, param):
    with pytest.raises(stripe.InvalidRequestError) as refused:
        client.v1.customers.create(params)
    assert (refused.value.http_status, refused.value.code, refused.value.param) == (
        400,
        code,
        param,
    )


@described
def test_a_parameter_that_is_required_is_missed_where_it_belongs(client):
    line = {"quantity": 1, "price_data": {"unit_amount": 500, "product_data": {"name": "Pack"}}}
    with pytest.raises(stripe.InvalidRequestError) as refused:
        client.v1.checkout.sessions.create(
            {"mode": "payment", "success_url": "https://shop.example/", "line_items": [line]}
        )
    assert refused.value.code == "parameter_missing"
    assert refused.value.param == "line_items[0][price_data][currency]"


@described
def test_filters_of_a_list_are_checked_too(client):
    with pytest.raises(stripe.InvalidRequestError, match="unknown parameter: colour"):
        client.v1.customers.list({"colour": "red"})


def test_the_key_is_checked(server):
    wrong = server.client()
    wrong._requestor._options.api_key = "sk_test_wrong"
    with pytest.raises(stripe.AuthenticationError, match="Invalid API Key provided: sk_test_"):
        wrong.v1.customers.list()


def test_another_version_is_refused(server):
    other = server.client(stripe_version="2019-12-03")
    with pytest.raises(stripe.InvalidRequestError, match="Invalid Stripe API version"):
        other.v1.customers.list()


def test_what_is_not_there_is_said_so(client):
    with pytest.raises(stripe.InvalidRequestError, match="No such customer: 'cus_none'") as refused:
        client.v1.customers.retrieve("cus_none")
    assert (refused.value.http_status, refused.value.code) == (404, "resource_missing")
    with pytest.raises(stripe.InvalidRequestError, match="Unrecognized request URL"):
        client.raw_request("get", "/v1/unicorns")


def test_lists_come_in_pages_the_latest_first(server, client):
    made = [client.v1.customers.create({"name": str(number)}).id for number in range(25)]
    page = client.v1.customers.list({"limit": 10})
    assert [each.id for each in page.data] == made[:-11:-1]
    assert page.has_more
    assert [each.id for each in page.auto_paging_iter()] == made[::-1]
    before = client.v1.customers.list({"ending_before": made[20], "limit": 2})
    assert [each.id for each in before.data] == [made[22], made[21]]
    assert before.has_more
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.customers.list({"limit": 101})
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.customers.list({"starting_after": "cus_none"})


def test_lists_are_cut_by_dates(client, clock):
    first = client.v1.customers.create({"name": "first"})
    clock.advance(hours=1)
    second = client.v1.customers.create({"name": "second"})
    since = client.v1.customers.list({"created": {"gte": second.created}})
    assert [each.id for each in since.data] == [second.id]
    until = client.v1.customers.list({"created": {"lt": second.created}})
    assert [each.id for each in until.data] == [first.id]
    assert [each.id for each in client.v1.customers.list({"created": first.created}).data] == [
        first.id
    ]


def test_prices_are_found_by_their_lookup_keys(client, pack, basic):
    found = client.v1.prices.list({"lookup_keys": ["basic", "pack"], "active": True})
    assert {each.id for each in found.data} == {pack.id, basic.id}
    settings = {"currency": "usd", "unit_amount": 2500, "product": pack.product}
    with pytest.raises(stripe.InvalidRequestError, match="already uses that lookup key"):
        client.v1.prices.create({**settings, "lookup_key": "pack"})
    taken = client.v1.prices.create({**settings, "lookup_key": "pack", "transfer_lookup_key": True})
    assert [each.id for each in client.v1.prices.list({"lookup_keys": ["pack"]}).data] == [taken.id]
    assert client.v1.prices.retrieve(pack.id).lookup_key is None


def test_an_owner_edits_a_price_in_the_dashboard(server, client, pack):
    edited = server.edit_price(pack, unit_amount=2400)
    assert (edited["lookup_key"], edited["unit_amount"]) == ("pack", 2400)
    assert client.v1.prices.retrieve(pack.id).active is False
    with pytest.raises(stripe.InvalidRequestError, match="inactive"):
        session_of(client, pack)


def test_metadata_is_merged_and_unset(client):
    made = client.v1.customers.create({"metadata": {"a": "1", "b": "2"}})
    changed = client.v1.customers.update(made.id, {"metadata": {"a": "", "c": "3"}})
    assert changed.metadata.to_dict() == {"b": "2", "c": "3"}
    assert client.v1.customers.update(made.id, {"metadata": ""}).metadata.to_dict() == {}


def test_expanding_what_cannot_be_is_refused(client, pack):
    session = session_of(client, pack, expand=["line_items.data.price.product"])
    assert session.line_items.data[0].price.product.name == "Pack of 1000"
    with pytest.raises(stripe.InvalidRequestError, match="cannot be expanded"):
        client.v1.checkout.sessions.retrieve(session.id, {"expand": ["colour"]})


def test_requests_are_recorded(server, client, pack):
    server.forget_requests()
    client.v1.checkout.sessions.create(
        {
            "mode": "payment",
            "success_url": "https://shop.example/",
            "line_items": [{"price": pack.id, "quantity": 2}],
        },
        {"idempotency_key": "order-7"},
    )
    [request] = server.requested("POST", "/v1/checkout/sessions")
    assert request.idempotency_key == "order-7"
    assert request.params["line_items"]["0"] == {"price": pack.id, "quantity": "2"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"line_items": []}, "line_items"),
        ({"mode": "subscription"}, "at least one recurring price"),
        ({"expires_at": 1}, "at least 30 minutes"),
        ({"customer": "cus_none"}, "No such customer"),
        ({"subscription_data": {"description": "x"}}, "in `payment` mode"),
    ],
)
def test_a_session_that_makes_no_sense_is_refused(client, pack, more, message):
    with pytest.raises(stripe.InvalidRequestError, match=message):
        session_of(client, pack, **more)


def test_a_refused_request_leaves_nothing_behind(server, client, basic):
    line = {"currency": "usd", "unit_amount": 500, "product_data": {"name": "Pack"}}
    products = len(server.every("product"))
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.checkout.sessions.create(
            {
                "mode": "payment",
                "success_url": "https://shop.example/",
                "line_items": [
                    {"price_data": line, "quantity": 1},
                    {"price": basic.id, "quantity": 1},
                ],
            }
        )
    assert len(server.every("product")) == products


def test_a_customer_who_was_deleted_is_still_said_to_have_been(server, client, pack):
    customer = client.v1.customers.create({"email": "ada@example.com"})
    paid = server.pay(session_of(client, pack, customer=customer.id))
    assert client.v1.customers.delete(customer.id).deleted is True
    assert client.v1.customers.retrieve(customer.id).deleted is True
    assert client.v1.customers.list().data == []
    intent = client.v1.payment_intents.retrieve(paid["payment_intent"], {"expand": ["customer"]})
    assert intent.customer.deleted is True
    with pytest.raises(stripe.InvalidRequestError, match="No such customer"):
        client.v1.customers.update(customer.id, {"name": "Ada"})


def test_a_coupon_that_is_deleted_is_gone(client):
    made = client.v1.coupons.create({"percent_off": 12.5, "duration": "once", "id": "HALF"})
    assert made.percent_off == 12.5
    client.v1.coupons.delete("HALF")
    with pytest.raises(stripe.InvalidRequestError, match="No such coupon"):
        client.v1.coupons.retrieve("HALF")


def test_what_the_server_does_nothing_about_is_no_secret(clock):
    def course(**more):
        with StripeServer(clock) as server:
            server.client().v1.payment_intents.create({"amount": 500, "currency": "usd", **more})

    course(statement_descriptor="PACK")
    with pytest.raises(AssertionError, match="does nothing about `capture_method`"):
        course(capture_method="manual")
