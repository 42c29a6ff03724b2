"""An invoice with more lines than its events show is earned as one that shows all."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from policies.errors import PaymentUnavailable
from tests.stripe.plans import POLICIES, Subscribers
from tests.stripe.shop import Shop, opened

BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
RENEWAL = datetime(2026, 4, 1, tzinfo=UTC)
END = datetime(2026, 5, 1, tzinfo=UTC)


@pytest.fixture
def shop() -> Iterator[Shop]:
    with opened(policies=POLICIES) as shop:
        shop.clock.set(BEGIN)
        yield shop


def renewed_after_many_changes(shop: Shop) -> Subscribers:
    """Go to the dearer plan and back three times within a month, and renew. Nothing of the renewal is heard yet."""
    people = Subscribers(shop)
    subscription = people.subscribed("pro")
    for _ in range(3):
        for plan in ("studio", "pro"):
            shop.clock.advance(timedelta(days=2))
            shop.stripe.change_plan(subscription, people.price_of(plan))
    shop.hear()
    shop.clock.set(RENEWAL)
    shop.stripe.renew(subscription)
    invoice = shop.stripe.every("invoice")[-1]
    assert invoice["lines"]["has_more"]
    return people


def april(shop: Shop, people: Subscribers) -> tuple[int, int]:
    """What April has earned of the plan that was renewed, its first day apart, and what is left unearned of all."""
    shop.clock.set(END + timedelta(days=1))
    shop.comptroller.sweep()
    return people.earned(RENEWAL + timedelta(days=1), END), people.deferred()


def test_all_lines_of_a_long_invoice_are_earned_over_their_own_days(shop):
    people = renewed_after_many_changes(shop)
    shop.hear()
    assert april(shop, people) == (2900, 0), "a thirtieth a day"


def test_reconciliation_takes_over_a_long_invoice_whole(shop):
    people = renewed_after_many_changes(shop)
    shop.heard = len(shop.stripe.events)  # its webhooks are lost
    found = shop.comptroller.reconcile_stripe()
    assert found.settled, found.disagreements
    assert april(shop, people) == (2900, 0)


def test_while_stripe_is_away_a_long_invoice_waits(shop):
    people = renewed_after_many_changes(shop)
    (paid,) = list(shop.stripe.deliveries("invoice.paid", since=shop.heard))[-1:]
    shop.stripe.go_wrong("rate_limit", times=20, method="GET")
    shop.comptroller._gateway().pause = lambda _: None
    with pytest.raises(PaymentUnavailable):
        shop.comptroller.handle_stripe_event(*paid)
    assert [each.type for each in shop.comptroller.stripe_events("received")] == ["invoice.paid"]
    shop.stripe.heal()
    shop.comptroller.sweep()
    assert shop.comptroller.stripe_events("received") == []
    assert april(shop, people) == (2900, 0)
