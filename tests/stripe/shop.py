"""A shop that sells packs through a Stripe of the tests: what a host's backend does, and how its books look."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from billing.placement import placed
from billing.report import Report
from policies.policy_set import PolicySet
from quota import Comptroller, StripeSettings
from quota.sales import Checkout, PurchaseView, StripeOutcome
from quota.testing import FakeClock
from tests.stripe_server import StripeServer

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
  ten: {units: 10, price: {usd: 4.00, jpy: 600, kwd: 1.250}, valid_for: 12mo}
  seven: {units: 7, price: 9.99}
plans:
  standard:
    paid_use: auto
    sources: [{kind: credits}]
default_plan: standard
"""
URLS: Any = {
    "success_url": "https://shop.example/thanks",
    "cancel_url": "https://shop.example/packs",
}


@dataclass
class Shop:
    """A backend that embeds Comptroller, and the Stripe that it sells through."""

    comptroller: Comptroller
    stripe: StripeServer
    clock: FakeClock
    heard: int = 0

    def checkout(self, pack: str = "ten", account: str = "ann", **options: Any) -> Checkout:
        """What the backend does when somebody wants to buy."""
        return self.comptroller.checkout(account, pack=pack, **URLS, **options)

    def bought(self, pack: str = "ten", account: str = "ann", **paid: Any) -> PurchaseView:
        """Buy a pack, and hear of it."""
        checkout = self.checkout(pack, account)
        self.stripe.pay(checkout.session_id, **paid)
        self.hear()
        return self.comptroller.purchase(checkout.purchase_id)

    def hear(self) -> list[StripeOutcome]:
        """What the webhook endpoint does with all that Stripe has sent since."""
        events = list(self.stripe.deliveries())[self.heard :]
        self.heard += len(events)
        return self.take_in(events)

    def take_in(self, events: Iterable[Any]) -> list[StripeOutcome]:
        """What the webhook endpoint does with these."""
        return [self.comptroller.handle_stripe_event(each.payload, each.header) for each in events]

    def use(self, units: int, key: str, account: str = "ann") -> bool:
        """Have something generated, and deliver it."""
        decision = self.comptroller.admit(
            account=account, operation="clip", attributes={"n": units}, key=key
        )
        if decision:
            self.comptroller.settle(decision.id, gpu_seconds=100)
        return bool(decision)

    def units(self, account: str = "ann") -> int:
        """What can be used now."""
        return self.comptroller.balance(account).credits

    def report(self) -> Report:
        """The whole history of the shop."""
        return self.comptroller.report(
            self.clock().replace(year=2000), self.clock().replace(year=2100), by=["plan"]
        )

    def ledger(self, account: str = "ann") -> dict[str, int]:
        """What each account of money has in the end: debits less credits, in minor units; nothing is left out."""
        return dict(sorted(self._ledger(account)))

    def _ledger(self, account: str) -> Iterator[tuple[str, int]]:
        with self.comptroller._db.reading() as db:
            cursor = db.driver.cursor()
            cursor.execute(placed(LEDGER.format(account=account), db.dialect))
            for name, amount in cursor.fetchall():
                if amount:
                    yield str(name), int(amount)


LEDGER = """
SELECT account, sum(amount) FROM (
  SELECT t.debit AS account, t.amount FROM comptroller_transfer t
    JOIN comptroller_account_name n ON n.book_id = t.book_id
    WHERE n.name = '{account}' AND t.asset NOT IN ('CREDIT', 'USD.micro')
  UNION ALL
  SELECT t.credit, -t.amount FROM comptroller_transfer t
    JOIN comptroller_account_name n ON n.book_id = t.book_id
    WHERE n.name = '{account}' AND t.asset NOT IN ('CREDIT', 'USD.micro')
) AS sides GROUP BY account
"""


@contextmanager
def opened(
    database: str = "sqlite://", policies: str = POLICIES, redis: str | None = None
) -> Iterator[Shop]:
    """Open a shop, and close it with its books sound."""
    clock = FakeClock()
    with StripeServer(clock) as stripe:
        settings = StripeSettings(stripe.api_key, [stripe.webhook_secret], stripe.url)
        policy_set = PolicySet.parse(policies)
        with Comptroller.open(
            policy_set, database, redis, clock=clock, stripe=settings
        ) as comptroller:
            yield Shop(comptroller, stripe, clock)
            assert [str(each) for each in comptroller.verify()] == []
            assert stripe.complaints == []
