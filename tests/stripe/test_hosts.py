"""Events in the host's own transaction, and selling on asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from billing.stripe.signature import sign
from quota import AsyncComptroller
from tests.hosts.host import on_driver
from tests.stripe.shop import URLS, Shop, opened


@pytest.fixture
def shop() -> Iterator[Shop]:
    with opened() as shop:
        yield shop


def paid(shop: Shop) -> bytes:
    """Let somebody pay, and return the event that says so, of which the shop has not yet heard."""
    shop.stripe.pay(shop.checkout().session_id)
    return shop.stripe.deliveries("checkout.session.completed")[-1].payload


def header_of(shop: Shop, payload: bytes) -> str:
    return sign(payload, shop.stripe.webhook_secret, int(shop.clock().timestamp()))


def test_an_event_in_the_hosts_session_is_kept_when_that_commits_and_not_before(shop):
    payload = paid(shop)
    engine, header = shop.comptroller._db.engine, header_of(shop, payload)
    with Session(engine) as host:
        outcome = shop.comptroller.handle_stripe_event(payload, header, session=host)
        assert "paid: 10 units" in outcome.effect
        host.rollback()
    assert (shop.units(), len(shop.comptroller.stripe_events()), shop.ledger()) == (0, 0, {})
    with Session(engine) as host, host.begin():
        again = shop.comptroller.handle_stripe_event(payload, header, session=host)
        assert again.effect == outcome.effect
    assert (shop.units(), len(shop.comptroller.stripe_events())) == (10, 1)
    with Session(engine) as host, host.begin():
        last = shop.comptroller.handle_stripe_event(payload, header, session=host)
        assert last.effect == "seen before"


def test_selling_on_asyncio(shop):
    settings = shop.comptroller._stripe

    async def sell() -> None:
        async with AsyncComptroller.open(
            shop.comptroller.policies, "sqlite://", clock=shop.clock, stripe=settings
        ) as comptroller:
            checkouts = await asyncio.gather(
                *(comptroller.checkout(f"u{n}", pack="ten", **URLS) for n in range(4))
            )
            for checkout in checkouts:
                shop.stripe.pay(checkout.session_id)
            deliveries = shop.stripe.deliveries(copies=2, shuffle=7)
            outcomes = await asyncio.gather(
                *(comptroller.handle_stripe_event(*each) for each in deliveries)
            )
            assert {each.status for each in outcomes} == {"done", "ignored"}
            await comptroller.refund(checkouts[0].purchase_id, 200)
            left = [(await comptroller.balance(f"u{n}")).credits for n in range(4)]
            assert left == [5, 10, 10, 10]
            assert (await comptroller.purchase(checkouts[0].purchase_id)).refunded_minor == 200
            assert await comptroller.verify() == []

    asyncio.run(sell())


@pytest.fixture(params=["aiosqlite", "asyncpg"])
def driver(request):
    return request.param


@pytest.fixture
def database(request, driver, tmp_path) -> str:
    if driver == "aiosqlite":
        return f"sqlite:///{tmp_path}/books.db"
    return str(request.getfixturevalue("database_url"))


def test_an_event_in_the_hosts_async_session_is_kept_when_that_commits(database, driver):
    async def hear(shop: Shop, payload: bytes) -> None:
        stripe, header = shop.comptroller._stripe, header_of(shop, payload)
        policies, clock = shop.comptroller.policies, shop.clock
        host = create_async_engine(on_driver(database, driver), poolclass=NullPool)
        async with AsyncComptroller.open(
            policies, database, clock=clock, stripe=stripe
        ) as comptroller:
            async with AsyncSession(host) as session:
                await comptroller.handle_stripe_event(payload, header, session=session)
                await session.rollback()
            assert await comptroller.stripe_events() == []
            async with AsyncSession(host) as session:
                outcome = await comptroller.handle_stripe_event(payload, header, session=session)
                assert "paid: 10 units" in outcome.effect
                await session.commit()
            assert (await comptroller.balance("ann")).credits == 10
        await host.dispose()

    with opened(database) as shop:
        asyncio.run(hear(shop, paid(shop)))
