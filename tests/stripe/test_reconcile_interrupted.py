"""Reconciliation that is interrupted, rate-limited, or not alone: it goes on, and does nothing twice."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from policies.errors import PaymentUnavailable
from policies.policy_set import PolicySet
from quota import AsyncComptroller, StripeSettings
from tests.databases import KINDS, a_database
from tests.stripe.shop import POLICIES, Shop, opened
from tests.stripe.test_reconcile import course, ending, paid_out

LISTS = (
    *("/v1/events", "/v1/checkout/sessions", "/v1/subscriptions", "/v1/invoices"),
    *("/v1/invoice_payments", "/v1/payment_intents", "/v1/refunds"),
    *("/v1/disputes", "/v1/balance_transactions", "/v1/payouts"),
)


@pytest.fixture
def shop() -> Iterator[Shop]:
    with opened() as shop:
        yield shop


def listed(shop: Shop, path: str) -> int:
    return len(shop.stripe.requested("GET", path))


class CrashError(Exception):
    """The process ends."""


def crash_after(pages: int) -> Callable[[str, int], None]:
    """End the process once so many pages are worked off."""
    left = [pages]

    def told(kind: str, done: int) -> None:
        left[0] -= 1
        if not left[0]:
            raise CrashError

    return told


@pytest.fixture(scope="module")
def whole() -> str:
    """How it ends where nothing is interrupted."""
    with opened() as shop:
        course(shop)
        paid_out(shop)
        assert shop.comptroller.reconcile_stripe().settled
        return ending(shop)


@pytest.mark.parametrize("pages", range(1, len(LISTS) + 1))
def test_one_that_crashes_after_a_page_goes_on_from_there(shop, whole, pages):
    course(shop)
    paid_out(shop)
    with pytest.raises(CrashError):
        shop.comptroller.reconcile_stripe(progress=crash_after(pages))
    shop.stripe.forget_requests()
    found = shop.comptroller.reconcile_stripe()
    assert found.settled, found.disagreements
    asked = [listed(shop, path) for path in LISTS]
    # The rows of a payout are asked for beside those of the time.
    assert asked[:8] == [0] * min(pages, 8) + [1] * max(0, 8 - pages)
    assert any("paid: 10 units" in each.effect for each in found.applied)
    assert ending(shop) == whole
    assert shop.comptroller.reconcile_stripe().applied == []


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("kind", ["cut", "error"])
def test_one_that_stripe_does_not_answer_says_so_and_goes_on_when_asked_again(
    shop, whole, path, kind
):
    course(shop)
    paid_out(shop)
    shop.stripe.go_wrong(kind, path=path, times=3)
    with pytest.raises(PaymentUnavailable, match="ask again"):
        shop.comptroller.reconcile_stripe()
    shop.stripe.heal()
    found = shop.comptroller.reconcile_stripe()
    assert found.settled, found.disagreements
    assert ending(shop) == whole


def test_what_came_while_it_was_interrupted_is_looked_at_too(shop):
    shop.stripe.pay(shop.checkout(account="ann").session_id)
    with pytest.raises(CrashError):
        shop.comptroller.reconcile_stripe(progress=crash_after(3))
    shop.clock.advance(timedelta(hours=1))
    shop.stripe.pay(shop.checkout(account="ben").session_id, fee=17)
    found = shop.comptroller.reconcile_stripe()
    assert found.settled, found.disagreements
    assert (shop.units("ann"), shop.units("ben")) == (10, 10)
    assert shop.ledger("ben")["fees:usd"] == 17


def test_one_that_was_interrupted_long_ago_begins_anew(shop):
    shop.stripe.pay(shop.checkout().session_id)
    with pytest.raises(CrashError):
        shop.comptroller.reconcile_stripe(progress=crash_after(3))
    shop.clock.advance(timedelta(days=2))
    shop.stripe.forget_requests()
    assert shop.comptroller.reconcile_stripe().until == shop.clock()
    assert listed(shop, "/v1/events") == 1


def test_one_that_is_asked_too_often_waits_as_long_as_stripe_says(shop):
    shop.stripe.pay(shop.checkout().session_id)
    waits: list[float] = []
    shop.comptroller._gateway().pause = waits.append
    shop.stripe.go_wrong("rate_limit", path="/v1/events", times=3)
    assert shop.comptroller.reconcile_stripe().settled
    assert waits == [1, 2, 4]
    shop.stripe.go_wrong("rate_limit", path="/v1/refunds", times=100)
    with pytest.raises(PaymentUnavailable, match="ask again"):
        shop.comptroller.reconcile_stripe()
    assert waits == [1, 2, 4, 1, 2, 4, 8, 16]


def test_lists_of_several_pages_are_walked_to_their_end(shop):
    for number in range(105):
        checkout = shop.checkout(account=f"u{number}")
        shop.stripe.pay(checkout.session_id, fee=1)
        if number % 7 == 0:
            shop.stripe.refund(shop.stripe.every("payment_intent")[-1]["id"], 40)
    payout = paid_out(shop)
    told: list[tuple[str, int]] = []
    found = shop.comptroller.reconcile_stripe(progress=lambda *said: told.append(said))
    assert found.settled, found.disagreements
    assert found.checked["checkout.session"] == 105
    assert found.checked["balance_transaction"] == 105 + 15 + 1
    assert [done for kind, done in told if kind == "checkout.session"] == [100, 105]
    assert [shop.units(f"u{number}") for number in (0, 1, 104)] == [9, 10, 10]
    (check,) = found.payouts
    assert (check.booked_minor, check.left_minor) == (payout["amount"], 0)


@pytest.mark.parametrize("kind", KINDS)
def test_two_at_once_beside_webhooks_do_nothing_twice(kind, tmp_path: Path):
    with a_database(kind, tmp_path) as url, opened(url) as shop:
        course(shop)
        paid_out(shop)
        failures: list[BaseException] = []

        def run(work: Callable[[], Any]) -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - told to the test
                failures.append(error)

        works = [shop.comptroller.reconcile_stripe] * 2 + [shop.hear]
        threads = [threading.Thread(target=run, args=[work]) for work in works]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert failures == []
        again = shop.comptroller.reconcile_stripe()
        assert (again.applied, again.disagreements) == ([], [])
        assert shop.units("ann") == 10
        assert shop.ledger("ann").get("stripe_clearing:usd", 0) == 0


def test_the_async_face_reconciles_too(tmp_path: Path):
    url = f"sqlite:///{tmp_path / 'books.db'}"
    with opened(url) as shop:
        shop.stripe.pay(shop.checkout().session_id)
        settings = StripeSettings(shop.stripe.api_key, [], shop.stripe.url)

        async def reconciled() -> list[str]:
            policies = PolicySet.parse(POLICIES)
            opening = AsyncComptroller.open(policies, url, clock=shop.clock, stripe=settings)
            async with await opening as comptroller:
                found = await comptroller.reconcile_stripe()
            return [each.effect for each in found.applied]

        assert any("paid: 10 units" in each for each in asyncio.run(reconciled()))
        assert shop.units() == 10
