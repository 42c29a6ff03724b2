"""The Comptroller: limits and books joined in one step.

Each method checks its arguments, opens a transaction (or joins the host's), and calls the one module that does
the work; nothing is decided here. The way of an admission: `quota.admission` looks and grants,
`policies.waterfall` decides.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from billing.stripe.settings import StripeSettings, checked_settings
from policies.errors import ComptrollerError
from policies.policy_set import PolicySet
from quota.clock import Clock, checked
from quota.denials import DenialLog
from quota.methods.accounts import AccountMethods
from quota.methods.audits import AuditMethods
from quota.methods.credits import CreditMethods
from quota.methods.questions import QuestionMethods
from quota.methods.reconciling import ReconcilingMethods
from quota.methods.refunding import RefundingMethods
from quota.methods.requests import RequestMethods
from quota.policy_file import PolicyFile
from quota.prefilter.front import Front
from quota.redis import open_sync
from quota.stores.base import Store
from quota.stores.opening import open_store
from quota.stores.telling import TellingStore
from quota.versions import store

if TYPE_CHECKING:
    from types import TracebackType

    from sqlalchemy import Engine


class Comptroller(
    RequestMethods,
    AccountMethods,
    CreditMethods,
    QuestionMethods,
    RefundingMethods,
    ReconcilingMethods,
    AuditMethods,
):
    """Answers, for every generation that a user asks for: how much is allowed, out of what, at what GPU cost.

    Safe for several threads and several processes on one database. Every method that writes takes `session=`,
    the host's own SQLAlchemy session: what is written commits or rolls back with it.
    """

    def __init__(
        self,
        *,
        policy_file: PolicyFile,
        db: Store,
        clock: Clock,
        front: Front | None = None,
        stripe: StripeSettings | None = None,
    ) -> None:
        """Use `Comptroller.open`."""
        self._stripe = stripe
        self._policy_file, self._db, self._clock, self._front = policy_file, db, clock, front
        self._denials = DenialLog(db)

    @classmethod
    def open(
        cls,
        policies: str | Path | PolicySet,
        database: str | Engine = "sqlite:///comptroller.db",
        redis: str | None = None,
        clock: Clock | None = None,
        migrate: Literal["auto", "check"] = "auto",
        stripe: StripeSettings | None = None,
    ) -> Self:
        """Open the books.

        Args:
            policies: a policy file's path, which is watched for changes, or a PolicySet.
            database: a URL (`sqlite://` is in memory), or the host's own SQLAlchemy engine.
            redis: a URL, `redis://` or `redis+cluster://`, of what answers denials in front of the database.
            clock: returns an aware datetime; the default asks the system each time.
            migrate: `auto` brings the schema up to date, `check` only makes sure that it is.
            stripe: the keys of the Stripe account to sell through; the default asks the environment for
                `STRIPE_API_KEY`, `STRIPE_WEBHOOK_SECRETS` and `STRIPE_API_BASE`.

        Raises:
            PolicyError: the policy file has errors; `problems` lists all of them.
            InvalidRequest: a URL cannot be used, or an argument is of the wrong type.
            SchemaMismatch: the database has another schema.
            StoreUnavailable: the database cannot be opened.
        """
        now = checked(clock)
        stripe = checked_settings(stripe)
        client = None if redis is None else open_sync(redis)
        db = open_store(database) if client is None else TellingStore(open_store(database))
        try:
            db.migrate(migrate)

            def keep(policy_set: PolicySet, *, waits: bool = True) -> None:
                with db.writing(waits=waits) as transaction:
                    store(transaction, policy_set)

            policy_file = PolicyFile(policies, on_change=keep)
            keep(policy_file.current)
        except BaseException:
            db.close()
            raise
        front = None
        if client is not None and redis is not None:
            front = Front(client, redis, db, policy_file.latest, now, server_time=clock is None)
        if isinstance(db, TellingStore) and front is not None:
            db.listener = front.news
        return cls(policy_file=policy_file, db=db, clock=now, front=front, stripe=stripe)

    def close(self) -> None:
        """Write what waits, and close our connections. The host's engine stays open."""
        if self._front is not None:
            self._front.close()
        self._denials.close()
        # What cannot be returned now returns when its lease has ended.
        with suppress(ComptrollerError):
            self._return_blocks(self._clock(), own=True)
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def reload_policies(self) -> PolicySet:
        """Read the policy file again now, and return what is in force.

        Raises:
            PolicyError: it has errors; the old policy set stays in force.
        """
        return self._policy_file.reload()
