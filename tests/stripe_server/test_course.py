"""Whatever happens, in whatever order: the books of the server agree with each other."""

from __future__ import annotations

import random
import threading

import pytest

from quota.testing import FakeClock
from tests.stripe_server import StripeServer
from tests.stripe_server.conftest import plan
from tests.stripe_server.test_packs import session_of
from tests.stripe_server.test_subscriptions import subscribed

DONE = frozenset({"failed", "canceled"})


class Course:
    """Random things that happen to one account, drawn from a seed."""

    def __init__(self, server: StripeServer, clock: FakeClock, seed: int) -> None:
        self.server, self.clock, self.random = server, clock, random.Random(seed)
        self.client = server.client()
        product = self.client.v1.products.create({"name": "Pack"})
        self.pack = self.client.v1.prices.create(
            {"product": product.id, "currency": "usd", "unit_amount": 1999}
        )
        self.plans = [plan(self.client, "Small", 999), plan(self.client, "Large", 4999)]

    def step(self) -> None:
        self.clock.advance(hours=self.random.randrange(1, 400))
        steps = [
            self.buy,
            self.buy_later,
            self.refund,
            self.fail_refund,
            self.dispute,
            self.close_dispute,
            self.subscribe,
            self.live_on,
            self.change_plan,
            self.pay_out,
        ]
        self.random.choice(steps)()

    def one(self, kind, **wanted):
        """One object of a kind with these fields, or None."""
        found = [
            each
            for each in self.server.every(kind)
            if all(each[name] in values for name, values in wanted.items())
        ]
        return self.random.choice(found) if found else None

    def buy(self):
        session = session_of(self.client, self.pack)
        if self.random.random() < 0.2:
            self.server.decline(session)
        self.server.pay(session)

    def buy_later(self):
        session = session_of(self.client, self.pack)
        self.server.pay_later(session)
        self.random.choice([self.server.clear, self.server.fail])(session)

    def refund(self):
        charge = self.one("charge", status=["succeeded"], refunded=[False], disputed=[False])
        if charge:
            left = charge["amount"] - charge["amount_refunded"]
            amount = self.random.choice([left, self.random.randrange(1, left + 1)])
            self.client.v1.refunds.create({"charge": charge["id"], "amount": amount})

    def fail_refund(self):
        refund = self.one("refund", status=["pending", "succeeded"])
        if refund and refund["status"] == "pending" and self.random.random() < 0.5:
            self.server.cancel_refund(refund)
        elif refund:
            self.server.fail_refund(refund)

    def dispute(self):
        charge = self.one("charge", status=["succeeded"], refunded=[False], disputed=[False])
        if charge:
            self.server.dispute(charge)

    def close_dispute(self):
        dispute = self.one("dispute", status=["needs_response", "under_review"])
        if dispute:
            self.random.choice([self.server.win, self.server.lose])(dispute)

    def subscribe(self):
        subscribed(self.server, self.client, self.random.choice(self.plans))

    def live_on(self):
        subscription = self.one("subscription", status=["active", "past_due"])
        if subscription is None:
            return
        until = subscription["items"]["data"][0]["current_period_end"]
        if self.clock().timestamp() < until:
            self.server.cancel(subscription, at_period_end=self.random.random() < 0.5)
        elif subscription["cancel_at"] is None and self.random.random() < 0.3:
            invoice = self.server.fail_renewal(subscription)
            if invoice["status"] == "open" and self.random.random() < 0.5:
                self.server.retry(invoice)
        else:
            self.server.renew(subscription)

    def change_plan(self):
        subscription = self.one("subscription", status=["active"], cancel_at=[None])
        if subscription:
            behavior = self.random.choice(["create_prorations", "always_invoice", "none"])
            price = self.random.choice(self.plans).id
            self.server.change_plan(subscription, price, proration_behavior=behavior)

    def pay_out(self):
        available = {
            each.currency: each.amount for each in self.client.v1.balance.retrieve().available
        }
        if available.get("usd", 0) > 0:
            self.server.payout()


def check(server: StripeServer) -> None:
    refunds, invoices = server.every("refund"), server.every("invoice")
    for charge in server.every("charge"):
        live = [each for each in refunds if each["charge"] == charge["id"]]
        total = sum(each["amount"] for each in live if each["status"] not in DONE)
        assert charge["amount_refunded"] == total <= charge["amount"]
        assert charge["refunded"] == (total == charge["amount"])
    for invoice in invoices:
        assert invoice["subtotal"] == sum(
            each["amount"] for each in server.world.notes[invoice["id"]]["lines"]
        )
        assert invoice["amount_paid"] + invoice["amount_remaining"] == invoice["amount_due"]
        used = invoice["ending_balance"] - invoice["starting_balance"]
        assert invoice["amount_due"] + used == invoice["total"]
    for payout in server.every("payout"):
        rows = server.client().v1.balance_transactions.list({"payout": payout["id"], "limit": 100})
        assert sum(row.net for row in rows.auto_paging_iter()) == 0
    rows = server.every("balance_transaction")
    assert all(row["net"] == row["amount"] - row["fee"] for row in rows)
    balance = server.client().v1.balance.retrieve()
    held = [*balance.available, *balance.pending]
    assert sum(each.amount for each in held) == sum(row["net"] for row in rows)
    taken = sum(each["amount_received"] for each in server.every("payment_intent"))
    charged = [row["amount"] for row in rows if row["type"] in {"charge", "payment"}]
    assert sum(charged) == taken


@pytest.mark.parametrize("seed", range(4))
def test_the_books_agree_after_any_course(server, clock, seed):
    course = Course(server, clock, seed)
    for _ in range(80):
        course.step()
    check(server)


def test_many_at_once_with_one_key_make_one(server, client):
    made, conflicts = [], []

    def create():
        try:
            key = {"idempotency_key": "one"}
            made.append(client.v1.customers.create({"name": "Ada"}, key).id)
        except Exception as error:  # noqa: BLE001 - which one is what the test asks
            conflicts.append(getattr(error, "http_status", error))

    threads = [threading.Thread(target=create) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(made) + len(conflicts) == 8
    assert len(set(made)) == len(server.every("customer")) == 1
    assert set(conflicts) <= {409}
