"""Methods about one account: its plan, zone, tags, paid use; freezing and forgetting it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Literal

from billing.books import lock_book, save_book
from quota import accounts
from quota.ask import name, text
from quota.methods.base import HostSession, Methods
from quota.methods.retried import retried
from quota.stores.telling import when_committed


class AccountMethods(Methods):
    """Methods about one account."""

    @retried
    def set_plan(self, account: str, plan: str, *, session: HostSession | None = None) -> None:
        """Put an account on a plan. Its usage stays what it is.

        Raises:
            InvalidRequest: the plan is unknown.
        """
        self.policies.plan(name(plan, "plan"))
        with self._db.writing(session) as db:
            book, now = accounts.lock_account(db, name(account, "account"), self._clock)
            accounts.set_plan(db, book, plan, now)

    @retried
    def set_account(
        self,
        account: str,
        *,
        timezone: str | None = None,
        tags: Mapping[str, str] | None = None,
        session: HostSession | None = None,
    ) -> None:
        """Set an account's time zone, in force when its current window ends, and its tags.

        Raises:
            InvalidRequest: there is no such time zone, or the tags are no mapping of short texts.
        """
        with self._db.writing(session) as db:
            book, now = accounts.lock_account(db, name(account, "account"), self._clock)
            if tags is not None:
                accounts.set_tags(db, book, tags)
            if timezone is not None:
                accounts.set_zone(db, book, timezone, now)
            save_book(db, book)

    @retried
    def set_paid_use(
        self,
        account: str,
        paid_use: Literal["auto", "ask", "never"],
        *,
        spend_cap_minor: int | None = None,
        spend_cap_per: Literal["day", "week", "month"] = "month",
        session: HostSession | None = None,
    ) -> None:
        """Say whether credits may be used, and cap their cost, in minor units, per calendar day, week or month.

        Raises:
            InvalidRequest: a value is not allowed.
        """
        with self._db.writing(session) as db:
            book, now = accounts.lock_account(db, name(account, "account"), self._clock)
            accounts.set_paid_use(db, book, paid_use, spend_cap_minor, spend_cap_per, now)

    @retried
    def freeze(self, account: str, *, reason: str, session: HostSession | None = None) -> None:
        """Deny every request of an account from now on. Open grants run on, and its books stay as they are.

        Raises:
            InvalidRequest: the reason is empty or too long.
        """
        text(reason, "reason")
        with self._db.writing(session) as db:
            book, now = accounts.lock_account(db, name(account, "account"), self._clock)
            accounts.set_frozen(db, book, reason, now)

    @retried
    def unfreeze(self, account: str, *, session: HostSession | None = None) -> None:
        """Let an account's requests be decided again.

        Raises:
            InvalidRequest: the account's name is none.
        """
        with self._db.writing(session) as db:
            book, now = accounts.lock_account(db, name(account, "account"), self._clock)
            accounts.set_frozen(db, book, None, now)

    @retried
    def forget(self, account: str, *, session: HostSession | None = None) -> bool:
        """Erase an account's name, keys and free text. The books stay provable. Returns whether there was anything.

        Raises:
            InvalidRequest: the account's name is none.
        """
        account = name(account, "account")
        with self._db.writing(session) as db:
            book = lock_book(db, account)
            self._denials.forget(account)
            if book is None:
                accounts.forget_denials(db, account)
            else:
                accounts.forget(db, book, account, max(self._clock(), book.at))
        if self._front is not None:
            if session is None:
                self._front.forget(account)
            else:
                when_committed(session, partial(self._front.forget_later, account))
        return book is not None
