"""Methods about selling through Stripe: checkouts, refunds, and the events by which Stripe says what was paid."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from billing.books import read_book, save_book
from billing.payments import Purchase, draft_checkout
from billing.plans import PLAN
from billing.posting import post
from billing.sql import Db
from billing.stripe import inbox
from billing.stripe.events import Event, Heard, heard_of, parsed, related
from billing.stripe.facts import REFUND
from billing.stripe.plan_facts import PlanRules
from billing.stripe.purchases import (
    Sale,
    add_sale,
    customer_of,
    keep_customer,
    known_of,
    load_sale,
    sales_of,
    set_session,
)
from billing.stripe.settings import HOW, StripeSettings
from billing.stripe.signature import check_signature
from policies.errors import ComptrollerError, InvalidRequest, PaymentRefused, UnknownPurchase
from policies.units import whole
from quota.accounts import lock_account
from quota.ask import name, text
from quota.methods.base import HostSession, Methods
from quota.methods.retried import retried
from quota.offers import offer_of, refuse_second
from quota.payments import hear, of_nobody
from quota.plans import paid_for, refundable
from quota.records import account_name
from quota.sales import Checkout, PurchaseView, StripeOutcome, viewed

if TYPE_CHECKING:
    from billing.stripe.gateway import Gateway

TRIES: Final = 10
"""How often an event that fails is tried before it waits for somebody to look at it."""

SEEN_BEFORE: Final = "seen before"
_WORKED_OFF: Final = ("done", "ignored")


class SellingMethods(Methods):
    """Methods about selling through Stripe."""

    _stripe: StripeSettings | None
    _made_gateway: Gateway | None = None

    def checkout(
        self,
        account: str,
        *,
        pack: str | None = None,
        plan: str | None = None,
        success_url: str,
        cancel_url: str,
        currency: str | None = None,
        promotion_codes: bool = False,
        automatic_tax: bool = False,
        save_card: bool = False,
    ) -> Checkout:
        """Offer a pack or a plan to a buyer, and return the Checkout Session at whose `url` it can be paid.

        The offer is written down before Stripe is asked: its units and its price stay what they are now, whatever
        becomes of the policy file. Each call is an offer of its own; those that nobody pays cost nothing. It talks to
        Stripe, so it takes no `session=`: a lock would be held meanwhile.

        Args:
            account: who buys.
            pack: a pack of the policy file: paid once.
            plan: a plan of the policy file that has a price: a subscription. Exactly one of pack and plan.
            success_url: where the buyer goes after paying. The lot comes with Stripe's event, not with this visit.
            cancel_url: where the buyer goes who does not pay.
            currency: one of its price's; the default is the policy file's.
            promotion_codes: whether the buyer may enter promotion codes of the Stripe account.
            automatic_tax: whether Stripe works out taxes.
            save_card: whether the card is kept for automatic top-ups. It switches none on.

        Raises:
            InvalidRequest: there is no such pack or plan, or not in that currency, or the account has a subscription
                already, or no Stripe key is configured.
            PaymentRefused: Stripe will not do it.
            PaymentUnavailable: Stripe cannot be reached; ask again.
        """
        offer = offer_of(self.policies, pack=pack, plan=plan, currency=currency)
        gateway = self._gateway()
        urls = (
            text(success_url, "success_url", most=2000),
            text(cancel_url, "cancel_url", most=2000),
        )
        purchase, book_id, customer = self._offer(name(account, "account"), offer)
        if customer is None:
            customer = gateway.create_customer(purchase.id)
        made = gateway.create_session(
            purchase,
            customer,
            urls,
            promotion_codes=promotion_codes,
            automatic_tax=automatic_tax,
            save_card=save_card,
        )
        self._offered(purchase.id, book_id, customer, str(made["id"]))
        return Checkout(purchase.id, str(made["id"]), str(made["url"]))

    def handle_stripe_event(
        self, payload: bytes, signature: str, *, session: HostSession | None = None
    ) -> StripeOutcome:
        """Take in an event that Stripe has sent to your endpoint, and do what follows from it, once.

        Answer 200 when it returns, whatever the outcome: the event is kept. One that fails is tried again by `sweep`,
        and can be looked at with `comptroller stripe events`.

        Args:
            payload: the request's body, as bytes, unchanged.
            signature: the request's `Stripe-Signature` header.
            session: the host's own session; the event is kept, and its effects are, when that commits.

        Raises:
            InvalidSignature: Stripe did not sign it with one of the secrets, or not lately.
            InvalidRequest: it is no event, of another mode or account, or no Stripe key is configured.
            AccountBusy: the account stayed locked past the timeout. Answer 500: Stripe sends it again.
            StoreUnavailable: the database cannot be written. Answer 500: Stripe sends it again.
            PaymentUnavailable: it is a thin event, and Stripe cannot be asked now. Answer 500.
        """
        settings = self._settings()
        if not isinstance(payload, bytes):
            raise InvalidRequest("payload must be the request's body as bytes, not parsed")
        if not settings.webhook_secrets:
            raise InvalidRequest(f"no webhook secret is configured: {HOW}")
        check_signature(payload, signature, settings.webhook_secrets, self._clock())
        event = of_this_account(payload, settings)
        if session is not None:
            return self._take_in(event, payload, session=session)
        self._keep(event, payload)
        return self.replay_stripe_event(event.id)

    def replay_stripe_event(
        self, event_id: str, *, session: HostSession | None = None
    ) -> StripeOutcome:
        """Work off an event of the inbox, unless that was done.

        Raises:
            InvalidRequest: there is no such event, or its bytes were erased.
            AccountBusy: the account stayed locked past the timeout.
            StoreUnavailable: the database cannot be written.
        """
        with self._db.reading() as db:
            letter = _checked(inbox.letter(db, event_id), event_id)
        if letter.status in _WORKED_OFF:
            return StripeOutcome(letter.id, letter.type, letter.status, SEEN_BEFORE)
        if letter.payload is None:
            raise InvalidRequest(f"the bytes of event `{event_id:.80}` were erased")
        return self._worked_off(event_id, self._meaning(letter.payload), session=session)

    @retried
    def stripe_events(
        self, status: inbox.Status | None = None, *, most: int = 50
    ) -> list[inbox.Letter]:
        """Return the events of the inbox that came last, latest first; of one status, where given."""
        with self._db.reading() as db:
            return inbox.letters(db, status, whole(most, "most", most=10_000))

    def refund(
        self, purchase_id: str, amount_minor: int | None = None, *, key: str | None = None
    ) -> PurchaseView:
        """Refund a purchase through Stripe, in part or what is left of it, and take its units back.

        Of a plan, the latest invoice of which something is left; the subscription itself goes on. As one made in
        Stripe's dashboard does: units that are unused are revoked, for a part in proportion to the money, rounded
        down. Asking again with the same key never refunds twice.

        Args:
            purchase_id: what `checkout` said.
            amount_minor: in minor units of its currency, tax included; None: all that is left.
            key: what this refund is known by. By default the number of refunds that were heard of before: a call that
                is repeated at once because its answer was lost makes no second one. Who repeats it later names a key.

        Raises:
            UnknownPurchase: there is no such purchase.
            InvalidRequest: nothing was paid for it, or less than that is left, or no Stripe key is configured.
            PaymentRefused: Stripe will not do it.
            PaymentUnavailable: Stripe cannot be reached; ask again.
        """
        gateway, found = self._gateway(), self.purchase(purchase_id)
        if found.status != "paid" or found.payment is None:
            raise InvalidRequest(
                f"purchase `{purchase_id}` is {found.status}: nothing was paid for it"
            )
        payment, left = self._left_of(found)
        amount = left if amount_minor is None else whole(amount_minor, "amount_minor")
        if not 0 < amount <= left:
            raise InvalidRequest(
                f"{left} {found.currency} (minor units) of purchase `{purchase_id}` are left to refund"
            )
        known_by = key or f"{self._refunds_of(payment)}:{amount}"
        made = gateway.create_refund(payment, amount, f"{purchase_id}:{known_by}")
        heard = heard_of(made, "refund.created", int(self._clock().timestamp()))
        if heard is not None:
            self._take_over(heard)
        return self.purchase(purchase_id)

    def purchase(self, purchase_id: str) -> PurchaseView:
        """Return a purchase, and what has become of it.

        Raises:
            UnknownPurchase: there is no such purchase.
        """
        with self._db.reading() as db:
            sale = load_sale(db, text(purchase_id, "purchase_id"))
            if sale is None:
                raise UnknownPurchase(f"there is no purchase `{purchase_id:.80}`")
            return _view(db, sale, account_name(db, sale.book_id))

    def purchases(self, account: str) -> list[PurchaseView]:
        """Return an account's purchases, oldest first.

        Raises:
            InvalidRequest: the account's name is none.
        """
        with self._db.reading() as db:
            book = read_book(db, name(account, "account"))
            return (
                [] if book is None else [_view(db, each, account) for each in sales_of(db, book.id)]
            )

    def customer_portal(self, account: str, *, return_url: str) -> str:
        """Return the address of a session in Stripe's customer portal, where a buyer finds cards and receipts.

        Raises:
            InvalidRequest: the account has never been offered anything, or no Stripe key is configured.
            PaymentRefused: Stripe will not do it.
            PaymentUnavailable: Stripe cannot be reached; ask again.
        """
        gateway = self._gateway()
        with self._db.reading() as db:
            book = read_book(db, name(account, "account"))
            customer = None if book is None else customer_of(db, book.id)
        if customer is None:
            raise InvalidRequest(f"account `{account}` has bought nothing through Stripe yet")
        return gateway.portal(customer, text(return_url, "return_url", most=2000))

    def _refunds_of(self, payment: str) -> int:
        """Return how many refunds of a payment were heard of, those that failed too: after one, another is another."""
        with self._db.reading() as db:
            return len(known_of(db, (payment,)).get(REFUND, {}))

    # --- what these are made of -------------------------------------------------------------

    def _left_of(self, found: PurchaseView) -> tuple[str, int]:
        """Return what a refund refunds: a payment, and what of it is left, in minor units."""
        left = found.total_minor - found.refunded_minor - found.lost_minor
        if found.kind == PLAN:
            with self._db.reading() as db:
                sale = load_sale(db, found.id)
                return (None if sale is None else refundable(db, sale)) or ("", 0)
        return found.payment or "", left

    def _settings(self) -> StripeSettings:
        if self._stripe is None:
            raise InvalidRequest(f"no Stripe key is configured: {HOW}")
        return self._stripe

    @property
    def _plan_rules(self) -> PlanRules:
        return PlanRules(self.policies.plans, self.policies.past_due_grace)

    def _gateway(self) -> Gateway:
        settings = self._settings()
        if self._made_gateway is None:
            from billing.stripe.gateway import Gateway  # noqa: PLC0415 - only who sells loads it

            self._made_gateway = Gateway(settings)
        return self._made_gateway

    @retried
    def _offer(self, account: str, purchase: Purchase) -> tuple[Purchase, int, str | None]:
        """Write an offer down. Returns it with its book, and who its buyer is at Stripe where that is known."""
        with self._db.writing() as db:
            book, now = lock_account(db, account, self._clock)
            if purchase.kind == PLAN:
                refuse_second(account, sales_of(db, book.id))
            post(db, book, draft_checkout(purchase, now), now)
            add_sale(db, book.id, purchase, now)
            save_book(db, book)
            return purchase, book.id, customer_of(db, book.id)

    @retried
    def _offered(self, purchase_id: str, book_id: int, customer: str, session_id: str) -> None:
        with self._db.writing() as db:
            set_session(db, purchase_id, session_id)
            keep_customer(db, book_id, customer)

    def _work_off_the_inbox(self) -> None:
        """Try the events again that could not be worked off, unless that was tried often enough."""
        with self._db.reading() as db:
            waiting = inbox.open_letters(db, tries=TRIES)
        for event_id in waiting:
            # What cannot be done now stays in the inbox, and keeps nobody from the rest of the sweep.
            with suppress(ComptrollerError):
                self.replay_stripe_event(event_id)

    @retried
    def _keep(self, event: Event, payload: bytes) -> None:
        with self._db.writing() as db:
            inbox.keep(db, event, payload, self._clock())

    def _take_in(self, event: Event, payload: bytes, *, session: HostSession) -> StripeOutcome:
        """Keep an event and work it off, in the host's transaction."""
        meaning = self._meaning(payload)  # before anything is locked
        with self._db.writing(session) as db:
            inbox.keep(db, event, payload, self._clock())
        return self._worked_off(event.id, meaning, session=session)

    def _meaning(self, payload: bytes) -> Heard | Exception | None:
        """Return what an event says of a payment: nothing, where it is about none, or why it cannot be read.

        A thin event says only what it is about: Stripe is asked how that is now, before any lock is taken.
        """
        try:
            event = parsed(payload)
            about = event.object
            if about is None:
                about = self._gateway().retrieve(*related(payload))
            at = int(event.created.timestamp())
            return None if about is None else heard_of(about, event.type.removeprefix("v1."), at)
        except (ValueError, PaymentRefused) as error:
            return error

    @retried
    def _worked_off(
        self,
        event_id: str,
        meaning: Heard | Exception | None,
        *,
        session: HostSession | None = None,
    ) -> StripeOutcome:
        """Do what follows from an event, once, and say what that was, in one transaction."""
        with self._db.writing(session) as db:
            letter = _checked(inbox.lock_letter(db, event_id), event_id)
            if letter.status in _WORKED_OFF:
                return StripeOutcome(letter.id, letter.type, letter.status, SEEN_BEFORE)
            status: inbox.Status = "done"
            payment = None
            if isinstance(meaning, Heard):
                payment, stops = meaning.payment, self.policies.on_dispute == "stop_paid_use"
                effect = hear(db, meaning, self._clock, self._plan_rules, stops_paid_use=stops)
            elif meaning is None:
                status, effect = "ignored", "not about a payment that we follow"
            else:
                status, effect = "failed", str(meaning)
            inbox.end(db, letter.id, status, effect, payment)
            if payment is not None and isinstance(meaning, Heard) and of_nobody(db, meaning):
                inbox.erase_of_payment(db, payment)
        return StripeOutcome(letter.id, letter.type, status, effect)

    @retried
    def _take_over(self, heard: Heard) -> str:
        with self._db.writing() as db:
            stops = self.policies.on_dispute == "stop_paid_use"
            return hear(db, heard, self._clock, self._plan_rules, stops_paid_use=stops)


def of_this_account(payload: bytes, settings: StripeSettings) -> Event:
    """Read an event, and make sure that it is of the account and the mode that the key is of."""
    try:
        event = parsed(payload)
    except ValueError as error:
        raise InvalidRequest(str(error)) from None
    if event.live != settings.live:
        modes = ("live" if live else "test" for live in (event.live, settings.live))
        said, ours = modes
        raise InvalidRequest(f"event `{event.id}` is of {said} mode, and the key is of {ours} mode")
    if event.account is not None:
        raise InvalidRequest(f"event `{event.id}` is of another Stripe account, `{event.account}`")
    return event


def _checked(letter: inbox.Letter | None, event_id: str) -> inbox.Letter:
    if letter is None:
        raise InvalidRequest(f"there is no event `{event_id:.80}`")
    return letter


def _view(db: Db, sale: Sale, account: str) -> PurchaseView:
    facts = known_of(db, (sale.session_id, sale.payment))
    if sale.kind == PLAN:
        sale = replace(sale, state=paid_for(db, sale))
    return viewed(sale, account, facts)
