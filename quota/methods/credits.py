"""Methods about credits: given, bought, refunded."""

from __future__ import annotations

from datetime import datetime

from billing.purchases import PURCHASE, Refund
from policies.errors import InvalidRequest
from policies.instants import as_utc
from policies.units import whole
from quota import credits as lots
from quota.ask import name, text
from quota.credits import Issue, Issued
from quota.ids import parse_lot_id
from quota.methods.base import HostSession, Methods
from quota.methods.retried import retried


class CreditMethods(Methods):
    """Methods about credits."""

    @retried
    def add_credits(
        self,
        account: str,
        *,
        units: int,
        origin: str = "promotion",
        reference: str,
        expires_at: datetime | None = None,
        priority: int = 0,
        session: HostSession | None = None,
    ) -> Issued:
        """Give an account units that nobody paid for, once per account, origin and reference.

        Raises:
            InvalidRequest: a value is not allowed, or they would have expired already.
            IdempotencyConflict: the reference was used for other credits of this account.
        """
        if name(origin, "origin") in (PURCHASE, "refund", "carried_over"):
            raise InvalidRequest(
                f"origin `{origin}` is kept for our own use: choose another such as promotion"
            )
        now = self._clock()
        expiry = None if expires_at is None else as_utc(expires_at, "expires_at")
        if expiry is not None and expiry <= now:
            raise InvalidRequest(
                f"these credits would have expired at {expiry.isoformat()} already"
            )
        issue = Issue(
            account=name(account, "account"),
            origin=origin,
            reference=text(reference, "reference", most=200),
            units=whole(units, "units"),
            price_minor=0,
            currency=self.policies.currency,
            expires_at=expiry,
            priority=whole(priority, "priority", least=-1000, most=1000),
        )
        with self._db.writing(session) as db:
            return lots.issue(db, issue, lambda: max(now, self._clock()))

    @retried
    def record_purchase(
        self,
        account: str,
        *,
        pack: str,
        reference: str,
        at: datetime | None = None,
        currency: str | None = None,
        session: HostSession | None = None,
    ) -> Issued:
        """Record a pack that was paid for elsewhere, once per reference.

        Raises:
            InvalidRequest: there is no such pack, or it is not sold in that currency.
            IdempotencyConflict: the reference was used for another purchase.
        """
        policy_set, now = self.policies, self._clock()
        bought, bought_at = policy_set.pack(pack), now if at is None else as_utc(at, "at")
        if bought_at > now:
            raise InvalidRequest(f"at must not be in the future: {bought_at.isoformat()}")
        price = bought.price_in(currency or policy_set.currency, policy_set.currency)
        issue = Issue(
            account=name(account, "account"),
            origin=PURCHASE,
            reference=text(reference, "reference", most=200),
            units=bought.units,
            price_minor=price.minor,
            currency=price.currency,
            expires_at=None if bought.valid_for is None else bought.valid_for.after(bought_at),
            created_at=bought_at,
            pack=pack,
            priority=bought.priority,
        )
        with self._db.writing(session) as db:
            return lots.issue(db, issue, lambda: max(now, self._clock()))

    @retried
    def refund_lot(
        self, lot_id: str, *, reference: str, session: HostSession | None = None
    ) -> Refund:
        """Take back what is unused of a lot. Returns the units, and the money to return in minor units.

        Raises:
            UnknownLot: there is no such lot.
            IdempotencyConflict: the reference was used for another lot.
            InvalidRequest: the lot was refunded before.
        """
        ids = parse_lot_id(lot_id)
        with self._db.writing(session) as db:
            return lots.refund(db, ids, text(reference, "reference", most=200), self._clock)
