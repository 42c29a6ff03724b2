"""`comptroller stripe`: reconcile, events, purchases."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest

from quota import Comptroller, StripeSettings
from quota.clock import system_clock
from tests.edges.conftest import Cli, Product
from tests.stripe.shop import URLS, Shop
from tests.stripe_server import StripeServer


@pytest.fixture
def shop(product: Product, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """The product, with a Stripe that the environment names; the clock is the system's, as the command line's is."""
    with StripeServer(system_clock) as stripe:
        monkeypatch.setenv("STRIPE_API_KEY", stripe.api_key)
        monkeypatch.setenv("STRIPE_WEBHOOK_SECRETS", stripe.webhook_secret)
        monkeypatch.setenv("STRIPE_API_BASE", stripe.url)
        settings = StripeSettings(stripe.api_key, [stripe.webhook_secret], stripe.url)
        policies = product.folder / "policies.yaml"
        with Comptroller.open(policies, product.database, stripe=settings) as comptroller:
            yield Shop(comptroller, stripe, product.clock)


def bought(shop: Shop, account: str = "ada") -> str:
    checkout = shop.comptroller.checkout(account, pack="ten", **URLS)
    shop.stripe.pay(checkout.session_id, fee=42)
    return checkout.purchase_id


def test_what_webhooks_lost_is_taken_in_and_a_second_run_finds_nothing(cli: Cli, shop: Shop):
    bought(shop)
    said = cli("stripe", "reconcile")
    assert (said.code, said.err) == (0, ""), "there is no progress bar where there is no terminal"
    assert "that no webhook had brought" in said.out
    assert "paid: 10 units in " in said.out
    assert "fees: 42 usd (minor units)" in said.out
    assert "the books agree with Stripe to the cent" in said.out
    again = cli("stripe", "reconcile", "--since", "7d", "--json")
    assert (again.code, again.json["settled"], again.json["applied"]) == (0, True, [])
    assert again.json["checked"]["checkout.session"] == 1


def test_what_disagrees_is_shown_with_both_sides_and_exits_with_1(cli: Cli, shop: Shop):
    purchase = bought(shop)
    shop.hear()
    customer = shop.stripe.every("checkout.session")[0]["customer"]
    price = {"currency": "usd", "unit_amount": 700, "product_data": {"name": "By hand"}}
    made = shop.stripe.client().v1.checkout.sessions.create(
        {
            "mode": "payment",
            "success_url": URLS["success_url"],
            "customer": customer,
            "line_items": [{"price_data": price, "quantity": 1}],
        }
    )
    shop.stripe.pay(made.id)
    said = cli("stripe", "reconcile")
    assert said.code == 1
    assert "2 disagreements" in said.out
    assert "paid: 700 usd (minor units)" in said.out
    assert "no such purchase" in said.out
    found = cli("stripe", "reconcile", "--json").json
    assert {each["id"] for each in found["disagreements"]} >= {made.id}
    assert purchase not in {each["purchase"] for each in found["disagreements"]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["reconcile", "--since", "soon"], "--since `soon` is no time"),
        (["reconcile", "--since", "2999-01-01"], "since must not be in the future"),
        (["events", "--replay", "evt_nowhere"], "there is no event `evt_nowhere`"),
        (["events", "--replay", "evt_1", "--replay-failed"], "give --replay EVENT or"),
    ],
)
def test_bad_input_is_said_in_one_line(cli: Cli, shop: Shop, arguments, message):
    said = cli("stripe", *arguments)
    assert said.code == 2
    assert said.err.count("\n") == 1
    assert message in said.err


def test_without_a_key_one_line_says_what_to_set(cli: Cli, product: Product, monkeypatch):
    monkeypatch.delenv("STRIPE_API_KEY", raising=False)
    said = cli("stripe", "reconcile")
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "no Stripe key is configured" in said.err
    assert "STRIPE_API_KEY" in said.err
    assert cli("stripe", "events").code == 0


def test_stripe_that_cannot_be_reached_is_a_service_that_is_down(cli: Cli, shop: Shop):
    shop.stripe.go_wrong("error", path="/v1/events")
    said = cli("stripe", "reconcile")
    assert (said.code, said.err.count("\n")) == (3, 1)
    assert "Stripe has a fault" in said.err
    assert cli("stripe", "reconcile").code == 0


def test_the_inbox_is_shown_and_what_failed_is_worked_off_again(cli: Cli, shop: Shop, product):
    bought(shop)
    shop.hear()
    assert "checkout.session.completed" in cli("stripe", "events").out
    assert cli("stripe", "events", "--status", "failed").out == "none\n"
    assert "no event has failed" in cli("stripe", "events", "--replay-failed").out
    (done,) = [
        each
        for each in cli("stripe", "events", "--json").json["events"]
        if each["type"] == "checkout.session.completed"
    ]
    assert done["status"] == "done"
    assert "payload" not in done
    with sqlite3.connect(product.folder / "books.db") as books:
        books.execute("UPDATE comptroller_stripe_event SET status = 'failed'")
    books.close()
    assert cli("stripe", "reconcile").code == 0, "what had failed was worked off"
    said = cli("stripe", "events", "--replay", done["id"], "--json")
    assert said.json["events"][0]["effect"] == "seen before"
    with sqlite3.connect(product.folder / "books.db") as books:
        changed = "UPDATE comptroller_stripe_event SET status = 'failed', payload = NULL"
        books.execute(f"{changed} WHERE id = ?", [done["id"]])
    books.close()
    said = cli("stripe", "events", "--replay-failed", "--json")
    assert said.code == 1
    (failed,) = said.json["events"]
    assert failed["effect"] == f"the bytes of event `{done['id']}` were erased"


def test_an_accounts_purchases_are_shown(cli: Cli, shop: Shop):
    purchase = bought(shop)
    assert "pending" in cli("stripe", "purchases", "ada").out
    shop.hear()
    said = cli("stripe", "purchases", "ada").out
    for text in (purchase, "10 units (ten)", "$4.00", "paid"):
        assert text in said, text
    (found,) = cli("stripe", "purchases", "ada", "--json").json["purchases"]
    assert (found["id"], found["total_minor"]) == (purchase, 400)
    assert cli("stripe", "purchases", "nobody").out == "none\n"
