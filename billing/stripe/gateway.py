"""The one module that talks to Stripe.

Every request that makes something carries an idempotency key of ours, derived from the purchase, so that whoever asks
again, after a crash or a lost reply, gets what was made the first time. Answers come back as plain JSON.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, NamedTuple, cast

import stripe

from billing.book import canonical
from billing.payments import Purchase
from billing.plans import PLAN
from billing.stripe.events import KIND_KEY, PURCHASE_KEY, TOP_UP
from billing.stripe.plan_events import PLAN_KEY
from billing.stripe.plan_prices import recurring
from billing.stripe.settings import StripeSettings
from billing.stripe.values import CUSTOMER_DELETED, REFUND_KEY
from policies.errors import PaymentRefused, PaymentUnavailable

API_VERSION: Final = "2026-08-26.dahlia"
"""The version of Stripe's interface that all of this is written against."""

TIMEOUT_SECONDS: Final = (5.0, 30.0)
"""To connect, and for the answer."""

RETRIES: Final = 2
PAGE: Final = 100
WAITS_SECONDS: Final = (1.0, 2.0, 4.0, 8.0, 16.0)
"""How long a list waits, time after time, where Stripe says that it is asked too often."""
WAIT_MAX_SECONDS: Final = 60.0
KEY: Final = "comptroller"

Json = Mapping[str, Any]


class Page(NamedTuple):
    """A page of a list, the latest first, and where the next one begins; None: there is no other."""

    items: Sequence[Json]
    after: str | None


class Gateway:
    """Asks Stripe. Safe for several threads."""

    def __init__(self, settings: StripeSettings) -> None:
        """Take the settings along; nothing is asked yet."""
        self.settings = settings
        base = settings.api_base
        self._client = stripe.StripeClient(
            settings.api_key,
            stripe_version=API_VERSION,
            base_addresses={} if base is None else {"api": base},
            max_network_retries=RETRIES,
            http_client=stripe.RequestsClient(timeout=TIMEOUT_SECONDS),
        )
        self._prices: dict[str, str] = {}
        self.pause: Callable[[float], object] = time.sleep

    def __repr__(self) -> str:
        return f"Gateway({self.settings!r})"

    def create_customer(self, purchase_id: str) -> str:
        """Create a customer for the buyer of a purchase, and return its id."""
        customers = self._client.v1.customers
        with _told():
            made = customers.create({}, {"idempotency_key": f"{KEY}:customer:{purchase_id}"})
        return str(made.id)

    def price(self, purchase: Purchase) -> str:
        """Return the id of the price that stands for a pack or plan as it is in its policy version, made if need be.

        Its lookup key is made of the content: a pack of another price has another key, and so a price of its own,
        while purchases made before keep theirs.
        """
        content = [purchase.pack, purchase.units, purchase.price_minor, purchase.currency]
        if purchase.kind == PLAN:
            content += [PLAN, purchase.valid_for or ""]
        lookup_key = f"{KEY}:{hashlib.sha256(canonical(content)).hexdigest()[:32]}"
        if lookup_key not in self._prices:
            self._prices[lookup_key] = self._find_price(lookup_key, purchase)
        return self._prices[lookup_key]

    def _find_price(self, lookup_key: str, purchase: Purchase) -> str:
        prices = self._client.v1.prices
        every = recurring(purchase.valid_for or "") if purchase.kind == PLAN else None
        period = None if every is None else (every["interval"], every["interval_count"])
        with _told():
            asked_for: Any = {"lookup_keys": [lookup_key], "expand": ["data.product"]}
            others = prices.list(asked_for).data
            for found in others:
                repeats = found.recurring and _period(found.recurring)
                same = found.unit_amount, found.currency, repeats
                sold = found.active and _is_sold(found.product)
                if sold and same == (purchase.price_minor, purchase.currency, period):
                    return str(found.id)
            # Where the dashboard has edited or archived ours, another is made, not the first one given again.
            instead = "".join(f":{found.id}" for found in others)
            asked: Any = {
                "currency": purchase.currency,
                "unit_amount": purchase.price_minor,
                "lookup_key": lookup_key,
                "transfer_lookup_key": True,
                "product_data": {"name": f"{purchase.units} credits ({purchase.pack})"},
            }
            if every is not None:
                asked["product_data"] = {"name": purchase.pack}
                asked["recurring"] = every
                asked["metadata"] = {PLAN_KEY: purchase.pack}
            made = prices.create(asked, {"idempotency_key": f"{KEY}:price:{lookup_key}{instead}"})
        return str(made.id)

    def create_session(
        self,
        purchase: Purchase,
        customer: str,
        urls: tuple[str, str],
        *,
        promotion_codes: bool,
        automatic_tax: bool,
        save_card: bool,
    ) -> Json:
        """Create the Checkout Session of a purchase. `urls`: where the buyer goes on success, and on cancelling."""
        metadata = {PURCHASE_KEY: purchase.id, KIND_KEY: purchase.kind}
        payment: Any = {"metadata": metadata}
        if save_card:
            payment["setup_future_usage"] = "off_session"
        named: Any = {"mode": "payment", "payment_intent_data": payment}
        if purchase.kind == PLAN:
            named = {"mode": "subscription", "subscription_data": {"metadata": metadata}}
        price = self.price(purchase)
        asked: Any = {
            **named,
            "customer": customer,
            "client_reference_id": purchase.id,
            "metadata": metadata,
            "line_items": [{"price": price, "quantity": 1}],
            "success_url": urls[0],
            "cancel_url": urls[1],
            "allow_promotion_codes": promotion_codes,
            "automatic_tax": {"enabled": automatic_tax},
        }
        if automatic_tax:
            # Taxes depend on where the buyer is: Checkout asks, and the customer is to remember.
            asked["customer_update"] = {"address": "auto"}
        create = self._client.v1.checkout.sessions.create
        known_by = f"{KEY}:session:{purchase.id}:{customer}"
        with _told():
            try:
                made = create(asked, {"idempotency_key": known_by})
            except stripe.InvalidRequestError as error:
                if _is_deleted(error):
                    raise
                # Somebody may have archived the price, or its product, in the dashboard since it was looked up.
                self._prices.clear()
                instead = self.price(purchase)
                if instead == price:
                    raise
                asked["line_items"] = [{"price": instead, "quantity": 1}]
                made = create(asked, {"idempotency_key": f"{known_by}:{instead}"})
        return _json(made)

    def create_payment(self, purchase: Purchase, customer: str) -> Json:
        """Pay for a purchase with the customer's card, without anybody there.

        Raises:
            PaymentRefused: there is no card, or it is declined, or its bank asks for the buyer (`code` says which).
        """
        with _told():
            made = self._client.v1.payment_intents.create(
                {
                    "amount": purchase.price_minor,
                    "currency": purchase.currency,
                    "customer": customer,
                    "payment_method": self._card_of(customer),
                    "off_session": True,
                    "confirm": True,
                    "metadata": {PURCHASE_KEY: purchase.id, KIND_KEY: TOP_UP},
                },
                {"idempotency_key": f"{KEY}:top_up:{purchase.id}"},
            )
        return _json(made)

    def find_payment(self, purchase: Purchase, customer: str) -> Json | None:
        """Return the payment of a purchase, of which no answer has come; None: there is none."""
        return self._find("payment_intent", {"customer": customer}, (PURCHASE_KEY, purchase.id))

    def _card_of(self, customer: str) -> str:
        v1 = self._client.v1
        found = v1.customers.retrieve(customer)
        if getattr(found, "deleted", False):
            raise PaymentRefused(_WAS_DELETED, code=CUSTOMER_DELETED)
        settings = found.invoice_settings
        default = None if settings is None else settings.default_payment_method
        if default is not None:
            return default if isinstance(default, str) else default.id
        for card in v1.customers.payment_methods.list(customer, {"type": "card", "limit": 1}).data:
            return card.id
        raise PaymentRefused("the customer has no card at Stripe", code="no_payment_method")

    def create_refund(self, payment: str, amount_minor: int, key: str, named: str | None) -> Json:
        """Refund a part of a payment.

        Args:
            payment: the PaymentIntent.
            amount_minor: in minor units of its currency.
            key: what Stripe knows the request by, for a day.
            named: what the refund is known by for ever, if by anything: `find_refund` finds it.
        """
        asked: Any = {"payment_intent": payment, "amount": amount_minor}
        if named is not None:
            asked["metadata"] = {REFUND_KEY: named}
        with _told():
            made = self._client.v1.refunds.create(asked, {"idempotency_key": f"{KEY}:refund:{key}"})
        return _json(made)

    def find_refund(self, payment: str, named: str) -> Json | None:
        """Return the refund of a payment that is known by this; None: there is none."""
        return self._find("refund", {"payment_intent": payment}, (REFUND_KEY, named))

    def portal(self, customer: str, return_url: str) -> str:
        """Return the address of a session in the customer portal."""
        with _told():
            made = self._client.v1.billing_portal.sessions.create(
                {"customer": customer, "return_url": return_url}
            )
        return str(made.url)

    def retrieve(self, kind: str, object_id: str) -> Json | None:
        """Fetch an object as it is now, by the kind that thin events name; None: of a kind that we do not follow."""
        v1 = self._client.v1
        by_kind: dict[str, Callable[[str], Any]] = {
            "checkout.session": v1.checkout.sessions.retrieve,
            "payment_intent": v1.payment_intents.retrieve,
            "refund": v1.refunds.retrieve,
            "dispute": v1.disputes.retrieve,
            "subscription": v1.subscriptions.retrieve,
            "invoice": v1.invoices.retrieve,
            "invoice_payment": v1.invoice_payments.retrieve,
        }
        if kind not in by_kind:
            return None
        with _told():
            return _json(by_kind[kind](object_id))

    def with_all_lines(self, invoice: Json) -> Json:
        """Return an invoice with all its lines, where it shows but the first of them."""
        lines: list[Json] = []
        after: str | None = None
        ask = self._client.v1.invoices.line_items.list
        while True:
            asked: Any = {"limit": PAGE} | ({} if after is None else {"starting_after": after})
            with _told():
                found = _json(self._patiently(partial(ask, str(invoice["id"]), asked)))
            lines.extend(found["data"])
            if not found["has_more"]:
                return {**invoice, "lines": {"data": lines}}
            after = str(lines[-1]["id"])

    def page(self, kind: str, asked: Mapping[str, Any], after: str | None) -> Page:
        """Return a page of a list of objects as they are now. Patient where Stripe says that it is asked too often.

        Args:
            kind: what is listed, as Stripe names its objects.
            asked: what narrows the list.
            after: the last id of the page before; None: the first page.
        """
        v1 = self._client.v1
        by_kind: dict[str, Callable[[Any], Any]] = {
            "event": v1.events.list,
            "checkout.session": v1.checkout.sessions.list,
            "subscription": v1.subscriptions.list,
            "invoice": v1.invoices.list,
            "invoice_payment": v1.invoice_payments.list,
            "payment_intent": v1.payment_intents.list,
            "refund": v1.refunds.list,
            "dispute": v1.disputes.list,
            "balance_transaction": v1.balance_transactions.list,
            "payout": v1.payouts.list,
        }
        wanted = {**asked, "limit": PAGE, **({} if after is None else {"starting_after": after})}
        with _told():
            found = _json(self._patiently(lambda: by_kind[kind](wanted)))
        items = found["data"]
        return Page(items, str(items[-1]["id"]) if found["has_more"] and items else None)

    def _find(self, kind: str, asked: Mapping[str, Any], bears: tuple[str, str]) -> Json | None:
        """Return the latest object of a list that bears this key and value in its metadata."""
        key, value = bears
        after = None
        while True:
            page = self.page(kind, asked, after)
            for each in page.items:
                if each["metadata"].get(key) == value:
                    return each
            after = page.after
            if after is None:
                return None

    def _patiently(self, ask: Callable[[], Any]) -> Any:
        """Ask again after a while where that was too often: Stripe's own client does not."""
        for wait in WAITS_SECONDS:
            try:
                return ask()
            except stripe.RateLimitError as error:
                self.pause(_wait_seconds(error, wait))
        return ask()


def _wait_seconds(error: stripe.RateLimitError, usual: float) -> float:
    said = str((error.headers or {}).get("Retry-After", ""))
    return min(float(said), WAIT_MAX_SECONDS) if said.isdecimal() else usual


def _is_sold(product: Any) -> bool:
    """Whether a product is not archived. One that was deleted knows nothing of that."""
    return bool(getattr(product, "active", False))


def _period(every: Any) -> tuple[str, int]:
    return str(every.interval), int(every.interval_count)


_WAS_DELETED: Final = (
    "the customer was deleted at Stripe: the account's next checkout makes another one"
)


@contextmanager
def _told() -> Iterator[None]:
    """Say what went wrong at Stripe in our own errors. The key is in none of them.

    Raises:
        PaymentUnavailable: it cannot be reached, has a fault, or asks to come back later.
        PaymentRefused: it will not do it.
    """
    try:
        yield
    except (stripe.APIConnectionError, stripe.RateLimitError) as error:
        raise PaymentUnavailable(
            f"Stripe cannot be reached now: {_said(error)}; ask again"
        ) from None
    except (stripe.AuthenticationError, stripe.PermissionError):
        raise PaymentRefused(
            "Stripe does not accept the API key: check that it is whole, and allowed to do this"
        ) from None
    except stripe.StripeError as error:
        if _is_deleted(error):
            raise PaymentRefused(_WAS_DELETED, code=CUSTOMER_DELETED) from None
        if error.http_status is None or error.http_status >= 500 or error.http_status == 409:  # noqa: PLR2004
            raise PaymentUnavailable(f"Stripe has a fault: {_said(error)}; ask again") from None
        raise PaymentRefused(f"Stripe refuses: {_said(error)}", code=error.code) from None


def _is_deleted(error: stripe.StripeError) -> bool:
    """Whether the customer that a request names is there no more."""
    named = error.param if isinstance(error, stripe.InvalidRequestError) else None
    return (error.code, named) == ("resource_missing", "customer")


def _said(error: stripe.StripeError) -> str:
    return str(error.user_message or "no answer").strip().rstrip(".").replace("\n", " ")[:300]


def _json(made: Any) -> Json:
    response = made.last_response
    if response is None:
        raise PaymentUnavailable("Stripe has given no answer; ask again")
    return cast("Json", response.data)
