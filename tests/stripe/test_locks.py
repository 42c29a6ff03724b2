"""On PostgreSQL, workers that hear of one purchase at a time take their locks in one order: none is undone."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from tests.hosts.host import on_driver
from tests.postgres.conftest import WAITING
from tests.stripe.shop import Shop, opened

SOON = "?options=-c%20deadlock_timeout%3D200"
KNOWN = "INSERT INTO comptroller.stripe_fact (payment, facts) VALUES (%s, '{}')"
LOCK = "SELECT 1 FROM comptroller.stripe_fact WHERE payment = %s FOR UPDATE"


@pytest.fixture
def shop(database_url) -> Iterator[Shop]:
    with opened(database_url) as shop:
        yield shop


def until_waiting(outside: psycopg.Connection, many: int) -> None:
    """Come back once so many wait for a lock."""
    while outside.execute(WAITING).fetchone() != (many,):
        pass


def test_the_events_of_a_session_and_of_its_payment_wait_for_each_other_in_one_order(
    shop, database_url
):
    shop.stripe.pay(shop.checkout().session_id)
    (session,) = shop.stripe.deliveries("checkout.session.completed")
    (payment,) = shop.stripe.deliveries("payment_intent.succeeded")
    intent = shop.stripe.every("payment_intent")[-1]["id"]
    host = create_engine(on_driver(database_url, "psycopg") + SOON)
    handle = shop.comptroller.handle_stripe_event

    def in_the_hosts_session() -> str:
        """Nothing is done again there: who is undone is told."""
        with Session(host) as ours:
            outcome = handle(session.payload, session.header, session=ours)
            ours.commit()
        return str(outcome.effect)

    with (
        ThreadPoolExecutor(2) as workers,
        psycopg.connect(database_url, autocommit=True) as outside,
        psycopg.connect(database_url) as holder,
    ):
        outside.execute(KNOWN, [intent])
        holder.execute(LOCK, [intent])
        first = workers.submit(handle, payment.payload, payment.header)
        until_waiting(outside, 1)
        second = workers.submit(in_the_hosts_session)
        until_waiting(outside, 2)
        holder.rollback()
        assert first.result(30).status == "done"
        assert "paid: 10 units" in second.result(30)
    host.dispose()
    assert shop.units() == 10


def test_an_event_that_two_workers_hear_of_at_once_is_worked_off_once(shop, database_url):
    checkout = shop.checkout()
    shop.stripe.pay(checkout.session_id)
    (paid,) = shop.stripe.deliveries("checkout.session.completed")
    with (
        ThreadPoolExecutor(2) as workers,
        psycopg.connect(database_url, autocommit=True) as outside,
        psycopg.connect(database_url) as holder,
    ):
        outside.execute(KNOWN, [checkout.session_id])
        holder.execute(LOCK, [checkout.session_id])
        handle = shop.comptroller.handle_stripe_event
        both = [workers.submit(handle, paid.payload, paid.header) for _ in range(2)]
        until_waiting(outside, 2)
        holder.rollback()
        effects = {each.result(30).effect for each in both}
    (letter,) = shop.comptroller.stripe_events()
    assert effects == {letter.effect, "seen before"}
    assert (letter.attempts, shop.units()) == (1, 10)
