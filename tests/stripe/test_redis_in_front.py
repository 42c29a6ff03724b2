"""What a payment has come to is known to Redis too: an account that may use nothing is denied there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from quota import Denial
from tests.stripe.shop import Shop, opened


@pytest.fixture
def shop(redis_url, tmp_path) -> Iterator[Shop]:
    with opened(f"sqlite:///{tmp_path}/books.db", redis=redis_url) as shop:
        yield shop


def denied(shop: Shop, units: int = 1) -> tuple[str, str]:
    """Ask twice, all news told in between, and return why it is denied, and by whom, the second time."""
    for number in range(2):
        decision = shop.comptroller.admit(
            account="ann", operation="clip", attributes={"n": units}, key=f"denied {units} {number}"
        )
        front = shop.comptroller._front
        assert front is not None
        front.news.flush()
    assert isinstance(decision, Denial)
    return str(decision.reason), decision.decided_by


def test_who_disputes_one_payment_uses_no_other_credits(shop):
    shop.bought()
    shop.bought("seven")
    dispute = shop.stripe.dispute(shop.stripe.every("charge")[0]["id"])
    shop.hear()
    assert denied(shop) == ("paid_use_off", "redis")
    shop.stripe.win(dispute["id"])
    shop.hear()
    assert shop.use(17, "all of it, of both")


def test_units_that_are_owed_are_decided_in_sql(shop):
    bought = shop.bought()
    held = shop.comptroller.admit(account="ann", operation="clip", attributes={"n": 9}, key="long")
    shop.comptroller.refund(bought.id, 200)
    assert denied(shop) == ("credits_exhausted", "sql")
    shop.comptroller.release(held.id, reason="failed")
    assert shop.units() == 5
    assert denied(shop, 6)[0] == "credits_exhausted"
    assert shop.use(5, "all that is left")
