"""Several workers of a webhook endpoint hear of one subscription at the same moment."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.stripe.plans import POLICIES
from tests.stripe.shop import Shop, opened
from tests.stripe.test_subscriptions_order_free import (
    BEGIN,
    END,
    Again,
    course_of,
    recovered_and_upgraded,
    refunded,
)

COPIES = 8


@pytest.fixture(params=["sqlite", "postgresql"])
def shop(request, tmp_path) -> Iterator[Shop]:
    file = request.param == "sqlite"
    url = f"sqlite:///{tmp_path}/books.db" if file else request.getfixturevalue("database_url")
    with opened(url, POLICIES) as shop:
        shop.clock.set(BEGIN)
        yield shop


@pytest.mark.parametrize("course", [refunded, recovered_and_upgraded])
def test_guarantee_order_free_what_is_heard_of_a_plan_at_the_same_moment_ends_the_same(
    shop, course
):
    checkout, events = course_of(shop, course)
    again = Again(shop, checkout)
    with ThreadPoolExecutor(8) as workers:
        # Each comes twice: a worker may lose the race for the very same event too.
        endings = [again.ending([*events, *events], workers) for _ in range(COPIES)]
    assert len({str(told) for told, _ in endings}) == 1, endings
    shop.clock.set(END)
    shop.comptroller.sweep()
    deferred = {deferred.closing_minor for deferred in shop.report().deferred}
    assert deferred == {0}
