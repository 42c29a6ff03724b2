"""Methods about refunds through Stripe: money goes back to the buyer, and unused units are taken back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from billing.plans import PLAN
from billing.stripe.facts import REFUND
from billing.stripe.purchases import known_of, load_sale
from policies.errors import IdempotencyConflict, InvalidRequest
from policies.units import whole
from quota.ask import KEY_MAX, text
from quota.methods.selling import SellingMethods
from quota.plans import payments_of, refundable
from quota.sales import PurchaseView

Json = Mapping[str, Any]


class RefundingMethods(SellingMethods):
    """Methods about refunds through Stripe."""

    def refund(
        self, purchase_id: str, amount_minor: int | None = None, *, key: str | None = None
    ) -> PurchaseView:
        """Refund a purchase through Stripe, in part or what is left of it, and take its units back.

        Of a plan, the latest invoice of which something is left; the subscription itself goes on. As one made in
        Stripe's dashboard does: units that are unused are revoked, for a part in proportion to the money, rounded
        down.

        Args:
            purchase_id: what `checkout` said.
            amount_minor: in minor units of its currency, tax included; None: all that is left.
            key: what this refund is known by, for ever: asking again with it never refunds twice. By default it is
                the number of refunds that were heard of before: a call that is repeated at once because its answer
                was lost makes no second one. Who may repeat it later names a key.

        Raises:
            UnknownPurchase: there is no such purchase.
            InvalidRequest: nothing was paid for it, or less than that is left.
            PaymentNotConfigured: there is no Stripe key.
            IdempotencyConflict: the key was used before, for another amount.
            PaymentRefused: Stripe will not do it.
            PaymentUnavailable: Stripe cannot be reached; ask again.
        """
        gateway, found = self._gateway(), self.purchase(purchase_id)
        if found.status != "paid" or found.payment is None:
            raise InvalidRequest(
                f"purchase `{purchase_id}` is {found.status}: nothing was paid for it"
            )
        wanted = None if amount_minor is None else whole(amount_minor, "amount_minor")
        made = None
        if key is not None:
            made = self._made_before(found, text(key, "key", most=KEY_MAX), wanted)
        if made is None:
            payment, left = self._left_of(found)
            amount = left if wanted is None else wanted
            if not 0 < amount <= left:
                raise InvalidRequest(
                    f"{left} {found.currency} (minor units) of purchase `{purchase_id}` are left to refund"
                )
            known_by = key or f"{payment}:{self._refunds_of(payment)}:{amount}"
            made = gateway.create_refund(payment, amount, f"{purchase_id}:{known_by}", key)
        self._take_over_answer(made, "refund.created")
        return self.purchase(purchase_id)

    # --- what these are made of -------------------------------------------------------------

    def _made_before(self, found: PurchaseView, key: str, amount: int | None) -> Json | None:
        """Return the refund that was made under a key, as Stripe has it: its own memory of keys is short."""
        with self._db.reading() as db:
            sale = load_sale(db, found.id)
            payments = [] if sale is None else payments_of(db, sale)
        for payment in payments:
            made = self._gateway().find_refund(payment, key)
            if made is None:
                continue
            if amount not in (None, made["amount"]):
                raise IdempotencyConflict(
                    f"refund `{key}` was made of {made['amount']} {found.currency} (minor units): use another key"
                )
            return made
        return None

    def _refunds_of(self, payment: str) -> int:
        """Return how many refunds of a payment were heard of, those that failed too: after one, another is another."""
        with self._db.reading() as db:
            return len(known_of(db, (payment,)).get(REFUND, {}))

    def _left_of(self, found: PurchaseView) -> tuple[str, int]:
        """Return what a refund refunds: a payment, and what of it is left, in minor units."""
        left = found.total_minor - found.refunded_minor - found.lost_minor
        if found.kind == PLAN:
            with self._db.reading() as db:
                sale = load_sale(db, found.id)
                return (None if sale is None else refundable(db, sale)) or ("", 0)
        return found.payment or "", left
