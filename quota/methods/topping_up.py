"""Methods about automatic top-ups: a pack bought without anybody there, whenever credits run low."""

from __future__ import annotations

import uuid
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final

from billing.books import BookState, lock_book_by_id, read_book, save_book
from billing.payments import Purchase, draft_checkout
from billing.posting import post
from billing.sql import Db
from billing.stripe.purchases import Sale, add_sale, customer_of
from billing.stripe.top_ups import (
    TOP_UP,
    TopUp,
    books_that_top_up,
    give_up,
    load_top_up,
    spent_minor,
    under_way,
)
from policies.errors import ComptrollerError, InvalidRequest, PaymentRefused
from policies.policy_set import PolicySet
from policies.units import MINOR_MAX, whole
from quota.accounts import lock_account
from quota.ask import name
from quota.dues import post_dues
from quota.methods.base import HostSession
from quota.methods.retried import retried
from quota.methods.selling import SellingMethods
from quota.sales import PurchaseView
from quota.top_ups import set_top_up, switch_off

KEY_LIVES: Final = timedelta(hours=23)
"""For so long Stripe knows a request by its key. Asking again later would pay twice."""


class TopUpMethods(SellingMethods):
    """Methods about automatic top-ups."""

    @retried
    def set_top_up(
        self,
        account: str,
        *,
        pack: str | None,
        below_units: int = 1,
        cap_minor_per_month: int = 0,
        currency: str | None = None,
        session: HostSession | None = None,
    ) -> TopUp | None:
        """Have a pack bought with the buyer's saved card whenever few credits are left; or stop that.

        Nothing else ever switches it on: no purchase does. A payment that is declined, or that asks for the buyer,
        switches it off. `sweep` tops up; `top_up` does for one account at once.

        Args:
            account: who opts in.
            pack: a pack of the policy file; None: no more top-ups.
            below_units: it is bought when fewer credits than that are left.
            cap_minor_per_month: the most that is spent on it per calendar month (UTC), in minor units.
            currency: one of the pack's; the default is the policy file's.
            session: the host's own session.

        Raises:
            InvalidRequest: there is no such pack, or the cap is below its price.
        """
        wanted = (
            None if pack is None else self._wanted(pack, below_units, cap_minor_per_month, currency)
        )
        with self._db.writing(session) as db:
            book, now = lock_account(db, name(account, "account"), self._clock)
            known = load_top_up(db, book.id)
            if wanted is None and known is not None:
                wanted = known._replace(off="switched off by the account")
            if wanted is not None and wanted != known:
                post_dues(db, book, now)
                set_top_up(db, book, wanted, now)
            save_book(db, book)
        return wanted

    def top_up_of(self, account: str) -> TopUp | None:
        """Return what an account has opted in to, and whether it is on: `off` says why it is not.

        Raises:
            InvalidRequest: the account's name is none.
        """
        with self._db.reading() as db:
            book = read_book(db, name(account, "account"))
            return None if book is None else load_top_up(db, book.id)

    def top_up(self, account: str) -> PurchaseView | None:
        """Top an account up now, if it has opted in, few credits are left, and the cap allows it.

        Returns the purchase; None where there was nothing to do.

        Raises:
            PaymentNotConfigured: there is no Stripe key.
            PaymentRefused: Stripe does not accept the key. A card that is declined switches it off instead.
            PaymentUnavailable: Stripe cannot be reached; asking again pays once.
        """
        self._settings()
        with self._db.reading() as db:
            book = read_book(db, name(account, "account"))
        purchase_id = None if book is None else self._top_up_book(book.id)
        return None if purchase_id is None else self.purchase(purchase_id)

    # --- what these are made of -------------------------------------------------------------

    def _wanted(self, pack: str, below_units: int, cap_minor: int, currency: str | None) -> TopUp:
        policy_set = self.policies
        sold = policy_set.pack(name(pack, "pack"))
        price = sold.price_in(currency or policy_set.currency, policy_set.currency)
        cap = whole(cap_minor, "cap_minor_per_month", most=MINOR_MAX)
        if cap < price.minor:
            raise InvalidRequest(
                f"cap_minor_per_month must be at least the pack's price, {price.minor} {price.currency} (minor units)"
            )
        return TopUp(pack, whole(below_units, "below_units"), cap, price.currency)

    def _top_up_all(self) -> None:
        """Top up all accounts that have opted in. What cannot be done now is done by the next sweep."""
        if self._stripe is None:
            return
        after = 0
        while True:
            with self._db.reading() as db:
                books = books_that_top_up(db, after)
            for book_id in books:
                with suppress(ComptrollerError):
                    self._top_up_book(book_id)
            if not books:
                return
            after = books[-1]

    def _top_up_book(self, book_id: int) -> str | None:
        due = self._due_top_up(book_id)
        if due is not None and self._was_asked_long_ago(due[0]):
            if self._is_found(*due):
                return due[0].id
            self._give_up(due[0], "it is not known whether Stripe ever heard of it")
            due = self._due_top_up(book_id)
        if due is None:
            return None
        sale, customer = due
        if sale.payment is None:
            if customer is None:
                self._switch_off(sale, "no_payment_method")
                return sale.id
            try:
                made = self._gateway().create_payment(sale.purchase, customer)
            except PaymentRefused as error:
                if error.code is None:
                    raise  # it is our key or our request that Stripe refuses, not the buyer's card
                self._switch_off(sale, error.code)
                return sale.id
            self._take_over_answer(made, "payment_intent.created")
        return sale.id

    @retried
    def _due_top_up(self, book_id: int) -> tuple[Sale, str | None] | None:
        """Return the top-up that is to be paid now, written down before Stripe is asked, and its buyer."""
        with self._db.writing() as db:
            book = lock_book_by_id(db, book_id)
            top_up = None if book is None else load_top_up(db, book_id)
            if book is None or top_up is None or top_up.off is not None:
                return None
            now = max(self._clock(), book.at)
            left = sum(lot.available for lot in post_dues(db, book, now).lots)
            sale = under_way(db, book_id)
            stopped = book.frozen is not None or book.disputes
            if sale is None and left < top_up.below_units and not stopped:
                sale = _offered(db, book, self.policies, top_up, now)
            save_book(db, book)
            return None if sale is None else (sale, customer_of(db, book_id))

    def _was_asked_long_ago(self, sale: Sale) -> bool:
        """Whether Stripe may have forgotten by which key it was asked to pay."""
        return sale.payment is None and self._clock() - sale.created_at > KEY_LIVES

    def _is_found(self, sale: Sale, customer: str | None) -> bool:
        """Look at Stripe for the payment of a top-up that nobody has heard of, and take it over."""
        try:
            made = (
                None if customer is None else self._gateway().find_payment(sale.purchase, customer)
            )
        except PaymentRefused as error:
            if error.code is None:
                raise
            return False
        if made is not None:
            self._take_over_answer(made, "payment_intent.created")
        return made is not None

    @retried
    def _give_up(self, sale: Sale, why: str) -> None:
        with self._db.writing() as db:
            lock_book_by_id(db, sale.book_id)
            waiting = under_way(db, sale.book_id)
            # Its event may have come meanwhile.
            if waiting is not None and waiting.id == sale.id and waiting.payment is None:
                give_up(db, sale.id, why)

    @retried
    def _switch_off(self, sale: Sale, why: str) -> None:
        with self._db.writing() as db:
            book = lock_book_by_id(db, sale.book_id)
            if book is None:
                return
            now = max(self._clock(), book.at)
            post_dues(db, book, now)
            give_up(db, sale.id, why)
            switch_off(db, book, why, now)
            save_book(db, book)


def _offered(
    db: Db, book: BookState, policy_set: PolicySet, top_up: TopUp, now: datetime
) -> Sale | None:
    """Write down the purchase of one more pack, if the month's cap allows it."""
    pack = policy_set.packs.get(top_up.pack)
    if pack is None:
        return None
    price = pack.price_in(top_up.currency, policy_set.currency)
    month = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    if spent_minor(db, book.id, top_up.currency, month) + price.minor > top_up.cap_minor:
        return None
    purchase = Purchase(
        id=f"pu_{uuid.uuid4().hex}",
        pack=top_up.pack,
        units=pack.units,
        price_minor=price.minor,
        currency=price.currency,
        priority=pack.priority,
        valid_for=None if pack.valid_for is None else str(pack.valid_for),
        policy_version=policy_set.version,
        kind=TOP_UP,
    )
    post(db, book, draft_checkout(purchase, now), now)
    add_sale(db, book.id, purchase, now)
    return under_way(db, book.id)
