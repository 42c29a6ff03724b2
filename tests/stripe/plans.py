"""A shop that sells plans: what its policy file says, and what a subscriber's backend does."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from tests.stripe.shop import URLS, Shop

POLICIES = """
schema: 1
gpus: {h100: {usd_per_hour: 2.50}}
operations:
  clip:
    attributes: {n: {type: integer, default: 1, min: 1, max: 100}}
    weight: {each: {n: 1}}
    gpu_cost: {gpu: h100, gpu_seconds: 144}
    hold_for: 1h
packs:
  ten: {units: 10, price: {usd: 4.00}, valid_for: 12mo}
plans:
  standard:
    paid_use: auto
    sources: [{kind: daily_allowance, units: 3}, {kind: credits}]
  pro:
    extends: standard
    price: {usd: 30.00, every: 1mo}
    sources: [{kind: daily_allowance, units: 100}, {kind: credits}]
  studio:
    extends: pro
    price: {usd: 90.00, every: 1mo}
    sources: [{kind: daily_allowance, units: 500}, {kind: credits}]
default_plan: standard
past_due_grace: 7d
"""


class Subscribers:
    """What subscribers do in a shop, and how their books look."""

    def __init__(self, shop: Shop) -> None:
        self.shop, self.stripe = shop, shop.stripe

    def subscribed(self, plan: str = "pro", account: str = "ann", **paid: Any) -> str:
        """Subscribe, and hear of it. Returns the subscription."""
        taxed = "tax" in paid
        checkout = self.shop.comptroller.checkout(account, plan=plan, automatic_tax=taxed, **URLS)
        self.stripe.pay(checkout.session_id, **paid)
        self.shop.hear()
        return str(self.stripe.every("subscription")[-1]["id"])

    def price_of(self, plan: str) -> str:
        """The price of a plan at Stripe, which a checkout makes."""
        self.shop.comptroller.checkout(f"window-shopper-{plan}", plan=plan, **URLS)
        prices = self.stripe.every("price")
        return next(
            str(each["id"]) for each in prices if each["metadata"].get("comptroller_plan") == plan
        )

    def plan(self, account: str = "ann") -> str:
        """The plan that the account is on now."""
        return self.shop.comptroller.balance(account).plan

    def earned(self, since: datetime, until: datetime, plan: str = "pro") -> int:
        """What a plan has earned in a period, in US cents."""
        report = self.shop.comptroller.report(since, until, by=["plan"])
        assert report.check.ok, report.check.problems
        return sum(
            row.revenue_minor.get("usd", 0) for row in report.rows if row.key["plan"] == plan
        )

    def deferred(self) -> int:
        """What is unearned now, in US cents."""
        now = self.shop.clock()
        report = self.shop.comptroller.report(now - timedelta(days=4000), now + timedelta(days=1))
        assert report.check.ok, report.check.problems
        return sum(each.closing_minor for each in report.deferred)
