"""Several workers of a webhook endpoint hear of one payment at the same moment."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.stripe.copies import Copies
from tests.stripe.shop import Shop, opened
from tests.stripe.test_order_free import (
    course_of,
    disputed_and_lost,
    paid_late_and_the_refund_fails,
    refunded_twice,
)

COPIES = 12


@pytest.fixture(params=["sqlite", "postgresql"])
def shop(request, tmp_path) -> Iterator[Shop]:
    file = request.param == "sqlite"
    url = f"sqlite:///{tmp_path}/books.db" if file else request.getfixturevalue("database_url")
    with opened(url) as shop:
        yield shop


@pytest.mark.parametrize(
    "course", [refunded_twice, paid_late_and_the_refund_fails, disputed_and_lost]
)
def test_guarantee_order_free_events_heard_at_the_same_moment_end_the_same(shop, course):
    purchase, session, events = course_of(shop, course)
    copies = Copies(shop, "ten")
    endings = set()
    with ThreadPoolExecutor(8) as workers:
        for _ in range(COPIES):
            account, renamed = copies.of(events, purchase, session)
            # Each comes twice: a worker may lose the race for the very same event too.
            list(workers.map(copies.take_in, [*renamed, *renamed]))
            endings.add(json.dumps(copies.ending(account), default=str))
    assert len(endings) == 1, endings
