"""order-free, for plans: any permutation and duplication of a subscription's events ends in the same books."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from billing.stripe.signature import sign
from quota.offers import plan_offer
from tests.stripe.copies import payload_of
from tests.stripe.plans import POLICIES, Subscribers
from tests.stripe.shop import URLS, Shop, opened

FOLLOWED = ("checkout.session", "subscription", "invoice", "invoice_payment", "refund", "dispute")
BEGIN = datetime(2026, 1, 31, 12, tzinfo=UTC)
RENEWAL = datetime(2026, 2, 28, 12, tzinfo=UTC)
END = datetime(2026, 4, 2, tzinfo=UTC)


def intent(shop: Shop) -> str:
    return str(shop.stripe.every("payment_intent")[-1]["id"])


def begun(shop: Shop, subscription: str) -> None:
    del shop, subscription


def refunded(shop: Shop, subscription: str) -> None:
    del subscription
    shop.clock.advance(days=3)
    refund = shop.stripe.refund(intent(shop), 700)
    shop.stripe.refund(intent(shop), 500)
    shop.stripe.fail_refund(refund["id"])


def recovered_and_upgraded(shop: Shop, subscription: str) -> None:
    shop.clock.set(RENEWAL)
    invoice = shop.stripe.fail_renewal(subscription)
    shop.clock.advance(days=2)
    shop.stripe.retry(invoice)
    shop.clock.advance(days=3)
    dearer = Subscribers(shop).price_of("studio")
    shop.stripe.change_plan(subscription, dearer, proration_behavior="always_invoice")


def downgraded_and_cancelled(shop: Shop, subscription: str) -> None:
    dearer = Subscribers(shop).price_of("studio")
    shop.clock.advance(days=3)
    shop.stripe.change_plan(subscription, dearer)
    shop.clock.advance(days=3)
    shop.stripe.change_plan(subscription, Subscribers(shop).price_of("pro"))
    shop.stripe.cancel(subscription, at_period_end=True)


def given_up(shop: Shop, subscription: str) -> None:
    shop.clock.set(RENEWAL)
    shop.stripe.fail_renewal(subscription)
    shop.clock.advance(days=5)
    shop.stripe.give_up(subscription)


COURSES: list[Callable[[Shop, str], None]] = [
    *(begun, refunded, recovered_and_upgraded, downgraded_and_cancelled, given_up)
]


@pytest.fixture
def shop() -> Iterator[Shop]:
    with opened(policies=POLICIES) as shop:
        shop.clock.set(BEGIN)
        yield shop


def course_of(shop: Shop, course: Callable[[Shop, str], None]) -> tuple[Any, list[bytes]]:
    """What Stripe sends of a course: the offer, and the events that we follow."""
    checkout = shop.comptroller.checkout("somebody", plan="pro", **URLS)
    shop.stripe.pay(checkout.session_id)
    course(shop, str(shop.stripe.every("subscription")[-1]["id"]))
    told = [event for event in shop.stripe.events if event["data"]["object"]["object"] in FOLLOWED]
    return checkout, [payload_of(event) for event in told]


class Again:
    """Hears the events of one course again and again, each time for somebody else."""

    def __init__(self, shop: Shop, checkout: Any) -> None:
        self.shop, self.checkout, self.made = shop, checkout, 0

    def ending(
        self, events: list[bytes], workers: ThreadPoolExecutor | None = None
    ) -> tuple[Any, ...]:
        """All that these events have done in the end, in this order, or heard by workers at one moment."""
        self.made += 1
        account, suffix = f"u{self.made}", f"x{self.made}"
        comptroller = self.shop.comptroller
        offer, book, _ = comptroller._offer(account, plan_offer(comptroller.policies, "pro", None))
        comptroller._kept_customer(book, f"cus_{suffix}", None)
        comptroller._offered(offer.id, f"{self.checkout.session_id}{suffix}")
        each = partial(self._hear, purchase=offer.id, suffix=suffix)
        list(map(each, events) if workers is None else workers.map(each, events))
        (bought,) = comptroller.purchases(account)
        plan = comptroller.balance(account).plan
        return (plan, bought.status, bought.total_minor, bought.refunded_minor), account

    def _hear(self, event: bytes, purchase: str, suffix: str) -> None:
        text = event.decode().replace(self.checkout.purchase_id, purchase)
        names = r'"((?:cs_test|sub|in|inpay|pi|re|du|dp|txn|ch|evt|cus)_\w+)"'
        text = re.sub(names, lambda found: f'"{found[1]}{suffix}"', text)
        now = int(self.shop.clock().timestamp())
        header = sign(text.encode(), self.shop.stripe.webhook_secret, now)
        outcome = self.shop.comptroller.handle_stripe_event(text.encode(), header)
        assert outcome.status in ("done", "ignored"), outcome


@pytest.mark.parametrize("course", COURSES, ids=lambda course: course.__name__)
def test_guarantee_order_free_any_order_of_a_subscriptions_events_ends_the_same(shop, course):
    checkout, events = course_of(shop, course)
    chance, again = random.Random(course.__name__), Again(shop, checkout)
    orders = [events, events[::-1]]
    orders += [chance.sample(events, len(events)) for _ in range(20)]
    orders += [[*order, *chance.choices(order, k=5)] for order in orders[2:8]]
    endings = [again.ending(order) for order in orders]
    assert len({str(told) for told, _ in endings}) == 1, {str(told) for told, _ in endings}
    for moment in (RENEWAL + timedelta(days=6), END):
        shop.clock.set(max(moment, shop.clock()))
        shop.comptroller.sweep()
        told = {
            (shop.comptroller.balance(account).plan, str(shop.ledger(account)))
            for _, account in endings
        }
        assert len(told) == 1, told


def test_guarantee_order_free_every_order_of_what_begins_a_subscription(shop):
    checkout, events = course_of(shop, begun)
    telling = [event for event in events if b'"invoice.updated"' not in event]
    telling = [event for event in telling if b'"invoice.payment_succeeded"' not in event]
    telling = [event for event in telling if b'"invoice.created"' not in event]
    again = Again(shop, checkout)
    endings = [again.ending(list(order)) for order in itertools.permutations(telling)]
    assert len(endings) >= 120
    assert {told for told, _ in endings} == {("pro", "paid", 3000, 0)}
    ledgers = {str(shop.ledger(account)) for _, account in endings}
    assert ledgers == {"{'deferred_plan:usd': -3000, 'stripe_clearing:usd': 3000}"}
