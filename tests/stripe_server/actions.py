"""What people do that no request of ours asks for: customers, banks, and the owner's dashboard."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from tests.stripe_server import (
    balance,
    catalogue,
    checkout,
    collection,
    customers,
    disputes,
    payments,
    plan_changes,
    refunds,
    sessions,
    subscriptions,
)
from tests.stripe_server.checkout import Order
from tests.stripe_server.copies import copied
from tests.stripe_server.errors import Json
from tests.stripe_server.lists import at
from tests.stripe_server.world import World

P = ParamSpec("P")
T = TypeVar("T")
A = TypeVar("A", bound="Actor")
Named = Any  # an id, an object of the `stripe` client, or a dict: whatever the test holds


class Actor:
    """Whoever acts on a world, under the server's lock."""

    def __init__(self, world: World, lock: threading.RLock) -> None:
        self.world = world
        self._lock = lock

    def _get(self, named: Named, kind: str) -> Json:
        identity = named if isinstance(named, str) else named["id"]
        found = self.world.find(identity, kind)
        if found is None:
            raise LookupError(f"no {kind} has the id {identity!r}")
        return found

    def _intent(self, named: Named) -> Json:
        return self._get(named, "payment_intent")


def acting(
    work: Callable[Concatenate[A, P], T],
) -> Callable[Concatenate[A, P], T]:
    """Do it under the lock, with the balance as it is by the clock, and return a copy."""

    @functools.wraps(work)
    def locked(self: A, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with self._lock:
            balance.mature(self.world)
            return copied(work(self, *args, **kwargs))

    return locked


class CustomerActions(Actor):
    """What a customer does: at Checkout, with their cards, and in the billing portal."""

    @acting
    def pay(self, session: Named, /, **order: Any) -> Json:
        """Complete a session by card and return it; the options are those of `Order`."""
        subject = self._get(session, "checkout.session")
        checkout.pay(self.world, subject, Order(**order))
        return subject

    @acting
    def pay_later(self, session: Named, /, **order: Any) -> Json:
        """Complete a session by a debit from a bank account: `clear` or `fail` end it."""
        subject = self._get(session, "checkout.session")
        checkout.pay_later(self.world, subject, Order(**order))
        return subject

    @acting
    def clear(self, session: Named, fee: int | None = None) -> Json:
        subject = self._get(session, "checkout.session")
        checkout.clear(self.world, subject, fee)
        return subject

    @acting
    def fail(self, session: Named) -> Json:
        subject = self._get(session, "checkout.session")
        checkout.fail(self.world, subject)
        return subject

    @acting
    def decline(self, session: Named, code: str = "generic_decline") -> Json:
        """Try to pay with a card that declines: the session stays open."""
        subject = self._get(session, "checkout.session")
        checkout.decline(self.world, subject, code)
        return subject

    @acting
    def expire(self, session: Named) -> Json:
        """Leave a session alone until Stripe closes it."""
        subject = self._get(session, "checkout.session")
        sessions.expire(self.world, subject)
        return subject

    @acting
    def expire_due(self) -> list[Json]:
        """Close every session that is over by the clock."""
        return sessions.expire_due(self.world)

    @acting
    def add_card(self, customer: Named, behaviour: str = "ok", *, default: bool = True) -> Json:
        """Give a customer a card that pays, or declines with the code `behaviour`."""
        owner = self._get(customer, "customer")
        card = customers.create_card(self.world, behaviour)
        customers.attach(self.world, card["id"], owner["id"])
        if default:
            customers.set_default(self.world, owner, card)
        return card

    @acting
    def set_behaviour(self, card: Named, behaviour: str) -> None:
        """Let a card pay ("ok"), take its time ("slow"), or decline with this code, from now on."""
        method = self._get(card, "payment_method")
        self.world.note(method["id"])["behaviour"] = behaviour

    @acting
    def authenticate(self, payment_intent: Named, *, fee: int | None = None) -> Json:
        """Do what the bank asks for, where a payment waits for its customer."""
        intent = self._intent(payment_intent)
        if intent["status"] != "requires_action":
            raise ValueError(f"{intent['id']} is {intent['status']}: it waits for nobody")
        method = self._get(intent["payment_method"], "payment_method")
        payments.succeed(self.world, intent, method, fee)
        return intent

    @acting
    def change_plan(
        self,
        subscription: Named,
        price: Named,
        *,
        quantity: int | None = None,
        proration_behavior: str = "create_prorations",
    ) -> Json:
        """Move a subscription to another price in the billing portal."""
        subject = self._get(subscription, "subscription")
        items = copied(subscriptions.items_of(subject))
        items[0]["price"] = dict(self._get(price, "price"))
        items[0]["quantity"] = items[0]["quantity"] if quantity is None else quantity
        plan_changes.change(self.world, subject, items, proration_behavior)
        return subject

    @acting
    def cancel(self, subscription: Named, *, at_period_end: bool) -> Json:
        """End a subscription with its period, or at once."""
        subject = self._get(subscription, "subscription")
        if at_period_end:
            reason = {**subject["cancellation_details"], "reason": "cancellation_requested"}
            subscriptions.cancel_at_end(self.world, subject, wanted=True, reason=reason)
        else:
            subscriptions.end(self.world, subject)
        return subject

    @acting
    def resume(self, subscription: Named) -> Json:
        """Think again, before the period ends."""
        subject = self._get(subscription, "subscription")
        reason = {**subject["cancellation_details"], "reason": None}
        subscriptions.cancel_at_end(self.world, subject, wanted=False, reason=reason)
        return subject


class BankActions(Actor):
    """What banks and time do."""

    @acting
    def fail_refund(self, refund: Named, reason: str = "lost_or_stolen_card") -> Json:
        made = self._get(refund, "refund")
        refunds.fail(self.world, made, reason)
        return made

    @acting
    def settle_refund(self, refund: Named) -> Json:
        made = self._get(refund, "refund")
        refunds.settle(self.world, made)
        return made

    @acting
    def clear_payment(self, payment_intent: Named, fee: int | None = None) -> Json:
        """Let a payment that was on its way arrive."""
        intent = self._intent(payment_intent)
        payments.clear(self.world, intent, fee)
        return intent

    @acting
    def bounce(self, payment_intent: Named) -> Json:
        """Let a payment that was on its way not arrive."""
        intent = self._intent(payment_intent)
        payments.bounce(self.world, intent)
        return intent

    @acting
    def dispute(
        self,
        charge: Named,
        amount: int | None = None,
        *,
        reason: str = "fraudulent",
        fee: int = disputes.FEE,
        inquiry: bool = False,
    ) -> Json:
        """Dispute a charge, whole or so many minor units of it; the fee is in minor units too."""
        subject = self._get(charge, "charge")
        return disputes.dispute(
            self.world, subject, amount, reason=reason, fee=fee, inquiry=inquiry
        )

    @acting
    def escalate(self, dispute: Named) -> Json:
        made = self._get(dispute, "dispute")
        disputes.escalate(self.world, made)
        return made

    @acting
    def win(self, dispute: Named, *, fee_returned: bool = False) -> Json:
        made = self._get(dispute, "dispute")
        disputes.win(self.world, made, fee_returned=fee_returned)
        return made

    @acting
    def lose(self, dispute: Named) -> Json:
        made = self._get(dispute, "dispute")
        disputes.lose(self.world, made)
        return made

    @acting
    def renew(self, subscription: Named, *, fee: int | None = None, tax: int = 0) -> Json | None:
        """Let a period that is over by the clock be followed by the next, and return its invoice.

        None where the subscription was to end then, and has. Fee and tax are in minor units.
        """
        subject = self._get(subscription, "subscription")
        return subscriptions.renew(self.world, subject, fee=fee, tax=tax)

    @acting
    def fail_renewal(self, subscription: Named, code: str = "generic_decline") -> Json:
        """Let a renewal be declined and return its invoice: the subscription is past due."""
        subject = self._get(subscription, "subscription")
        return subscriptions.fail_renewal(self.world, subject, code)

    @acting
    def retry(self, invoice: Named, *, fee: int | None = None) -> Json:
        """Let Stripe try an open invoice again, and be paid."""
        made = self._get(invoice, "invoice")
        if made["status"] != "open":
            raise ValueError(f"invoice {made['id']} is {made['status']}, not open")
        owner = at(made, "parent.subscription_details.subscription")
        subscription = self._get(owner, "subscription")
        collection.pay(self.world, made, subscriptions.method_of(self.world, subscription), fee)
        subscriptions.recovered(self.world, subscription)
        return made

    @acting
    def give_up(self, subscription: Named, *, unpaid: bool = False) -> Json:
        """Let the last retry fail: the subscription ends, or is unpaid where so configured."""
        subject = self._get(subscription, "subscription")
        if unpaid:
            self.world.update("customer.subscription.updated", subject, status="unpaid")
        else:
            subscriptions.end(self.world, subject, reason="payment_failed")
        return subject

    @acting
    def payout(self, currency: str | None = None) -> Json:
        """Pay out what is available by the clock."""
        return balance.pay_out(self.world, currency)

    @acting
    def fail_payout(self, payout: Named) -> Json:
        """Let the bank send a payout back."""
        made = self._get(payout, "payout")
        balance.fail_payout(self.world, made)
        return made


class DashboardActions(Actor):
    """What the owner of the account does by hand."""

    @acting
    def refund(
        self,
        payment_intent: Named,
        amount: int | None = None,
        *,
        pending: bool = False,
        reason: str | None = "requested_by_customer",
    ) -> Json:
        """Refund a payment, whole or so many minor units of it."""
        intent = self._intent(payment_intent)
        charge = self._get(intent["latest_charge"], "charge")
        return refunds.refund(self.world, charge, amount, pending=pending, reason=reason)

    @acting
    def cancel_refund(self, refund: Named) -> Json:
        """Stop a refund that is still pending."""
        made = self._get(refund, "refund")
        refunds.cancel(self.world, made)
        return made

    @acting
    def edit_price(self, price: Named, /, unit_amount: int | None = None, **fields: Any) -> Json:
        """Edit a price as the dashboard does.

        An amount never changes: another price is made, which takes the lookup key, and the former
        one is archived. The answer is the price that is in force afterwards.
        """
        subject = self._get(price, "price")
        if unit_amount is None:
            return self.world.update("price.updated", subject, **fields)
        key = subject["lookup_key"]
        self.world.update("price.updated", subject, active=False, lookup_key=None)
        kept = ("metadata", "nickname", "recurring", "tax_behavior")
        more = {name: subject[name] for name in kept} | fields
        made = catalogue.create_price(
            self.world, subject["product"], subject["currency"], unit_amount, lookup_key=key, **more
        )
        product = self._get(subject["product"], "product")
        if product["default_price"] == subject["id"]:
            self.world.update("product.updated", product, default_price=made["id"])
        return made

    @acting
    def edit_product(self, product: Named, /, **fields: Any) -> Json:
        subject = self._get(product, "product")
        fields["updated"] = self.world.now()
        return self.world.update("product.updated", subject, **fields)
