"""A replay in which somebody acts on denials: it buys what is offered, and the row is decided once more."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from policies import PolicySet
from quota import Comptroller, Denial
from quota.replay import replay
from quota.traces import Row, read_trace

POLICIES = """
schema: 1
gpus: {a10: {usd_per_hour: 3.60}}
operations:
  image.generate: {gpu_cost: {gpu: a10, gpu_seconds: 1}, hold_for: 1h}
packs: {three: {units: 3, price: 1.00, valid_for: 2d}}
plans:
  small:
    paid_use: auto
    sources: [{kind: daily_allowance, units: 1}, {kind: credits}]
default_plan: small
on_release: {failed: {units: return}}
"""
START = datetime(2026, 3, 1, 12, tzinfo=UTC)


def demand(count: int, status: str = "succeeded") -> list[str]:
    """Rows of one account, a minute apart."""
    lines = ["at,account,operation,status,gpu_seconds\n"]
    for minute in range(count):
        at = START + timedelta(minutes=minute)
        lines.append(f"{at.isoformat()},ada,image.generate,{status},1\n")
    return lines


class Buyer:
    """Buys a pack at its first `most` denials, and notes when it was asked."""

    def __init__(self, most: int) -> None:
        self.most, self.asked = most, list[tuple[datetime, datetime, str]]()

    def __call__(self, comptroller: Comptroller, row: Row, denial: Denial) -> bool:
        self.asked.append((row.at, denial.at, denial.reason))
        if self.most == 0:
            return False
        self.most -= 1
        comptroller.record_purchase(row.account, pack="three", reference=f"order-{row.number}")
        return True


def run(buyer: Buyer | None, lines: list[str], redis: str | None = None) -> dict:
    policy_set = PolicySet.parse(POLICIES)
    rows = read_trace(lines, "csv", policy_set, name="t.csv")
    return replay(rows, policy_set, redis=redis, on_denial=buyer).as_dict()


@pytest.fixture(params=["nothing", "redis"])
def redis(request):
    return request.getfixturevalue("redis_url") if request.param == "redis" else None


def test_a_row_whose_denial_led_to_a_purchase_is_decided_once_more(redis):
    buyer = Buyer(most=1)
    found = run(buyer, demand(6), redis)
    # One free, three bought, and two denials on which nobody acted. A row that was asked twice counts once.
    assert (found["requests"], found["granted"], found["denied"]) == (6, 4, 2)
    assert found["denied_by_reason"] == {"allowance_exhausted": 2}
    assert found["units"] == {"daily_allowance": 1, "credits": 3}
    assert found["accounts"]["ada"]["requests"] == 6
    assert found["accounts"]["ada"]["units"] == 4


def test_the_revenue_of_what_was_bought_is_that_of_the_books(redis):
    # Of three units for a dollar two are delivered; the last row has not ended.
    assert run(Buyer(most=1), demand(4), redis)["revenue_minor"] == 66
    assert run(None, demand(4), redis)["revenue_minor"] == 0


def test_units_of_a_failed_row_go_back_to_what_was_bought(redis):
    found = run(Buyer(most=1), [*demand(2), *demand(5, "failed")[3:]], redis)
    assert (found["granted"], found["denied"]) == (5, 0)
    assert found["units"] == {"daily_allowance": 1, "credits": 2}  # the last row has not ended


def test_whoever_acts_on_a_denial_is_asked_at_its_instant_and_once_for_each_row():
    buyer = Buyer(most=0)
    found = run(buyer, demand(3))
    minutes = [START + timedelta(minutes=minute) for minute in (1, 2)]
    assert buyer.asked == [(at, at, "allowance_exhausted") for at in minutes]
    assert found["denied"] == 2


def test_a_row_that_is_denied_again_is_denied_once():
    def does_nothing(comptroller: Comptroller, row: Row, denial: Denial) -> bool:
        return True

    policy_set = PolicySet.parse(POLICIES)
    rows = read_trace(demand(2), "csv", policy_set, name="t.csv")
    assert replay(rows, policy_set, on_denial=does_nothing).as_dict()["denied"] == 1
