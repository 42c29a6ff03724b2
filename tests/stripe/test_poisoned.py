"""An event that cannot be worked off is kept as failed, says why, and keeps nobody from the others."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from tests.hosts.host import on_driver
from tests.stripe.plans import POLICIES, Subscribers
from tests.stripe.shop import Shop, opened
from tests.stripe.test_bad_events import edited, hear, payload_of, signed


@pytest.fixture(params=["sqlite", "postgresql"])
def shop(request, tmp_path) -> Iterator[Shop]:
    file = request.param == "sqlite"
    url = f"sqlite:///{tmp_path}/books.db" if file else request.getfixturevalue("database_url")
    with opened(url) as shop:
        yield shop


def poisoned(shop: Shop) -> bytes:
    """Have the payment of one purchase claimed for another, and return the event that the books then cannot take."""
    other = shop.checkout(account="ben")
    shop.stripe.pay(shop.checkout().session_id)
    claimed = {"comptroller_purchase": other.purchase_id, "comptroller_kind": "pack"}
    claim = edited(
        payload_of(shop, "payment_intent.succeeded"), id="evt_claim", data__object__metadata=claimed
    )
    assert hear(shop, claim).status == "done"
    return payload_of(shop, "checkout.session.completed")


def test_an_event_that_the_books_cannot_take_is_kept_as_failed_and_says_why(shop):
    outcome = hear(shop, poisoned(shop))
    assert outcome.status == "failed"
    assert "\n" not in outcome.effect
    (letter,) = shop.comptroller.stripe_events("failed")
    assert (letter.id, letter.attempts, letter.effect) == (outcome.event_id, 1, outcome.effect)
    assert shop.ledger() == {}, "nothing of it was booked"


def test_it_keeps_nobody_from_a_sweep_nor_from_reconciliation(shop):
    payload = poisoned(shop)
    hear(shop, payload)
    shop.stripe.pay(shop.checkout(account="eve").session_id)
    shop.clock.advance(hours=1)
    shop.comptroller.sweep()
    (letter,) = shop.comptroller.stripe_events("failed")
    assert letter.attempts == 2
    found = shop.comptroller.reconcile_stripe()
    assert shop.units("eve") == 10
    assert "event" in {each.kind for each in found.disagreements}


@pytest.mark.parametrize("value", ["soon", True, -1, 1 << 60, 1.5])
def test_a_subscription_that_ends_at_no_instant_is_kept_as_failed(value):
    with opened(policies=POLICIES) as shop:
        people = Subscribers(shop)
        people.subscribed("pro")
        payload = payload_of(shop, "customer.subscription.created")
        outcome = hear(shop, edited(payload, id="evt_x", data__object__cancel_at=value))
        assert outcome.status == "failed"
        assert people.plan() == "pro"


@pytest.mark.parametrize("identity", ["in\x00", "in\ud800", "in\n"])
def test_an_object_whose_id_cannot_be_stored_is_kept_as_failed(shop, identity):
    shop.bought()
    shop.stripe.refund(shop.stripe.every("payment_intent")[-1]["id"], 100)
    payload = payload_of(shop, "refund.created")
    assert hear(shop, edited(payload, data__object__id=identity)).status == "failed"
    assert shop.units() == 10


def test_in_the_hosts_transaction_it_is_kept_as_failed_too_and_the_host_goes_on(shop, request):
    payload = poisoned(shop)
    url = request.getfixturevalue("database_url") if "postgresql" in request.node.name else None
    engine = (
        shop.comptroller._db.engine if url is None else create_engine(on_driver(url, "psycopg"))
    )
    with Session(engine) as host, host.begin():
        outcome = shop.comptroller.handle_stripe_event(payload, signed(shop, payload), session=host)
        assert outcome.status == "failed"
        assert host.execute(text("SELECT 1")).scalar() == 1
    (letter,) = shop.comptroller.stripe_events("failed")
    assert (letter.id, letter.attempts) == (outcome.event_id, 1)
    if url is not None:
        engine.dispose()
