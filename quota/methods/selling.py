"""Methods about selling through Stripe: checkouts, what has become of purchases, and the customer portal."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from billing.books import lock_book_by_id, read_book, save_book
from billing.payments import Purchase, draft_checkout
from billing.plans import PLAN
from billing.posting import post
from billing.sql import Db
from billing.stripe.purchases import (
    Sale,
    add_sale,
    customer_of,
    keep_customer,
    known_of,
    load_sale,
    replace_customer,
    sales_of,
    set_session,
)
from billing.stripe.values import CUSTOMER_DELETED
from policies.errors import InvalidRequest, PaymentRefused, UnknownPurchase
from quota.accounts import lock_account
from quota.ask import name, text
from quota.methods.retried import retried
from quota.methods.stripe import StripeMethods
from quota.offers import offer_of, refuse_second
from quota.plans import paid_for
from quota.records import account_name
from quota.sales import Checkout, PurchaseView, viewed


class SellingMethods(StripeMethods):
    """Methods about selling through Stripe."""

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
                already.
            PaymentNotConfigured: there is no Stripe key.
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
        create = partial(
            gateway.create_session,
            purchase,
            urls=urls,
            promotion_codes=promotion_codes,
            automatic_tax=automatic_tax,
            save_card=save_card,
        )
        try:
            made = create(customer or self._new_customer(purchase.id, book_id))
        except PaymentRefused as error:
            if error.code != CUSTOMER_DELETED or customer is None:
                raise
            made = create(self._new_customer(purchase.id, book_id, gone=customer))
        self._offered(purchase.id, str(made["id"]))
        return Checkout(purchase.id, str(made["id"]), str(made["url"]))

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
            InvalidRequest: the account has never been offered anything.
            PaymentNotConfigured: there is no Stripe key.
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

    # --- what these are made of -------------------------------------------------------------

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

    def _new_customer(self, purchase_id: str, book_id: int, gone: str | None = None) -> str:
        """Make a customer of the buyer of a purchase, in the place of one that is gone."""
        made = self._gateway().create_customer(purchase_id)
        return self._kept_customer(book_id, made, gone)

    @retried
    def _kept_customer(self, book_id: int, made: str, gone: str | None) -> str:
        """Remember who a buyer is at Stripe. Returns who it is: where two have asked at one time, the first."""
        with self._db.writing() as db:
            book = lock_book_by_id(db, book_id)
            if book is None or book.salt is None:
                return made  # forgotten meanwhile
            if gone is not None:
                replace_customer(db, book_id, gone, made)
            keep_customer(db, book_id, made)
            return customer_of(db, book_id) or made

    @retried
    def _offered(self, purchase_id: str, session_id: str) -> None:
        with self._db.writing() as db:
            set_session(db, purchase_id, session_id)


def _view(db: Db, sale: Sale, account: str) -> PurchaseView:
    facts = known_of(db, (sale.session_id, sale.payment))
    if sale.kind == PLAN:
        sale = replace(sale, state=paid_for(db, sale))
    return viewed(sale, account, facts)
