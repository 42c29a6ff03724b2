"""The same methods, awaited.

Rules have neither sync nor async, and neither has the SQL: it is written once, over a connection. Here each
call runs in a worker thread; with the host's own `AsyncSession` it runs on that session's connection, by
`run_sync`. (An async SQLite driver measured ten times slower than the ordinary one in a thread: it hops threads
at every statement.)
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial, wraps
from itertools import islice
from typing import TYPE_CHECKING, Any, Concatenate, Final, Literal, ParamSpec, Self, TypeVar

from sqlalchemy.ext.asyncio import AsyncSession

from quota.ask import checked_ask
from quota.engine import Comptroller
from quota.forks import Forkable
from quota.grants import Decision, Denial, Grant
from quota.group_commit.queue import GroupCommit
from quota.group_commit.works import (
    Admission,
    Work,
    extending,
    goes_on,
    releasing,
    settling,
    starting,
)
from quota.methods.base import HostSession
from quota.methods.requests import REASON_FAILED, started_job
from quota.prefilter.aio import AsyncFront

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from sqlalchemy import Engine

    from billing.stripe.settings import StripeSettings
    from policies.policy_set import PolicySet
    from quota.clock import Clock
    from quota.grants import Job

LINES_AT_ONCE: Final = 500
THREADS: Final = 16
"""How many calls may be under way at one time; further ones wait for their turn."""

P = ParamSpec("P")
T = TypeVar("T")


def awaited(
    method: Callable[Concatenate[Comptroller, P], T],
) -> Callable[Concatenate[AsyncComptroller, P], Coroutine[Any, Any, T]]:
    """Return a method of Comptroller as one of AsyncComptroller, with the same arguments, answer and errors."""

    @wraps(method)
    async def call(self: AsyncComptroller, /, *args: P.args, **kwargs: P.kwargs) -> T:
        session = kwargs.get("session")
        if isinstance(session, AsyncSession):
            others = {name: value for name, value in kwargs.items() if name != "session"}
            work: Any = method
            return await session.run_sync(
                lambda host: work(self.sync, *args, session=host, **others)
            )
        return await self.in_thread(partial(method, self.sync, *args, **kwargs))

    return call


def grouped(
    method: Callable[Concatenate[Comptroller, P], T],
    work_of: Callable[Concatenate[Comptroller, P], Work | None],
) -> Callable[Concatenate[AsyncComptroller, P], Coroutine[Any, Any, T]]:
    """Return the same as `awaited`, for calls that may share a transaction. `work_of`: what one does in it."""
    single = awaited(method)

    @wraps(method)
    async def call(self: AsyncComptroller, /, *args: P.args, **kwargs: P.kwargs) -> T:
        if self._shared.group is None or kwargs.get("session") is not None:
            return await single(self, *args, **kwargs)
        work = work_of(self.sync, *args, **kwargs)
        if work is None:
            return await single(self, *args, **kwargs)
        answer: T = await self._shared.group.make(work, partial(method, self.sync, *args, **kwargs))
        return answer

    return call


class _Shared(Forkable):
    """What calls of an AsyncComptroller share: threads, and transactions. A forked child makes both anew."""

    def __init__(self, sync: Comptroller, *, group_commit: bool) -> None:
        self._sync, self._group_commit = sync, group_commit
        self.after_fork()
        self.starts_anew_in_children()

    def after_fork(self) -> None:
        self.threads = ThreadPoolExecutor(THREADS, thread_name_prefix="comptroller")
        store = self._sync._db  # noqa: SLF001 - one thing, two faces
        self.group = GroupCommit(store, self.threads) if self._group_commit else None


class AsyncComptroller:
    """A Comptroller for asyncio: the same methods, awaited. `session=` takes the host's own AsyncSession.

    A call that is cancelled goes on in its thread: what it grants can be found by its key, or expires.
    """

    def __init__(self, sync: Comptroller, *, group_commit: bool = True) -> None:
        """Use `AsyncComptroller.open`, or hand over a Comptroller to share."""
        self.sync: Final = sync
        self._redis: Final = None if sync._front is None else AsyncFront(sync._front)  # noqa: SLF001 - see above
        self._shared: Final = _Shared(sync, group_commit=group_commit)
        self._is_closing = False

    @classmethod
    def open(
        cls,
        policies: str | Path | PolicySet,
        database: str | Engine = "sqlite:///comptroller.db",
        redis: str | None = None,
        clock: Clock | None = None,
        migrate: Literal["auto", "check"] = "auto",
        stripe: StripeSettings | None = None,
        *,
        group_commit: bool = True,
    ) -> Self:
        """Open the books, as `Comptroller.open` does. May be awaited, or used with `async with`.

        `group_commit`: whether calls that are under way at the same time share transactions.

        Raises:
            PolicyError: the policy file has errors; `problems` lists all of them.
            InvalidRequest: the database's URL cannot be used.
            SchemaMismatch: the database has another schema.
            StoreUnavailable: the database cannot be opened.
        """
        comptroller = Comptroller.open(policies, database, redis, clock, migrate, stripe)
        return cls(comptroller, group_commit=group_commit)

    def __await__(self) -> Generator[Any, None, Self]:
        return self._self().__await__()

    async def _self(self) -> Self:
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Write what waits, and close our connections. The host's engine stays open."""
        if self._is_closing:
            return
        self._is_closing = True
        try:
            if self._redis is not None:
                await self._redis.close()
            if self._shared.group is not None:
                await self.in_thread(self._shared.group.close)
            await self.in_thread(self.sync.close)
        except BaseException:
            self._is_closing = False  # who was interrupted may close again
            raise
        self._shared.threads.shutdown(wait=False)

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run a call in one of our threads, with the caller's context variables."""
        context = contextvars.copy_context()
        return await asyncio.get_running_loop().run_in_executor(
            self._shared.threads, context.run, work
        )

    @property
    def policies(self) -> PolicySet:
        """The policy set in force."""
        return self.sync.policies

    async def admit(
        self,
        *,
        account: str,
        operation: str,
        attributes: Mapping[str, object] | None = None,
        key: str,
        plan: str | None = None,
        member: str | None = None,
        consent: bool | int = False,
        not_after: datetime | None = None,
        session: HostSession | None = None,
    ) -> Decision:
        """Decide one request, and take what it is granted, as `Comptroller.admit` does.

        Raises:
            InvalidRequest: something asked for is unknown or not allowed.
            IdempotencyConflict: the key was used for another request.
            DeadlinePassed: `not_after` is past.
            AccountBusy: the account stayed locked past the timeout.
            StaleTransaction: the host's transaction had read before it wrote.
            StoreUnavailable: the database cannot be used.
        """
        ask = checked_ask(
            account=account,
            operation=operation,
            attributes=attributes,
            key=key,
            plan=plan,
            member=member,
            consent=consent,
            not_after=not_after,
        )
        told = None if self._redis is None else await self._redis.decide(self.policies, ask)
        if isinstance(told, Grant):
            return told
        if isinstance(told, Denial):
            self.sync._record(told)  # noqa: SLF001 - see above
            return told
        if self._shared.group is None or session is not None or not goes_on(told):
            return await self._decided(ask, told, session=session)
        denied = self._shared.group.denied
        work = Admission(self.sync, ask, told, expects_denial=account in denied)
        alone = partial(Comptroller._decided, self.sync, ask, told)  # noqa: SLF001 - see above
        decision: Decision = await self._shared.group.make(work, alone)
        denied.note(account, granted=decision.granted)
        return decision

    _decided = awaited(Comptroller._decided)  # noqa: SLF001 - see above
    estimate = awaited(Comptroller.estimate)

    start = grouped(Comptroller.start, starting)
    extend = grouped(Comptroller.extend, extending)
    settle = grouped(Comptroller.settle, settling)
    release = grouped(Comptroller.release, releasing)
    add_gpu_cost = awaited(Comptroller.add_gpu_cost)

    set_plan = awaited(Comptroller.set_plan)
    set_account = awaited(Comptroller.set_account)
    set_paid_use = awaited(Comptroller.set_paid_use)
    freeze = awaited(Comptroller.freeze)
    unfreeze = awaited(Comptroller.unfreeze)
    forget = awaited(Comptroller.forget)

    add_credits = awaited(Comptroller.add_credits)
    record_purchase = awaited(Comptroller.record_purchase)
    refund_lot = awaited(Comptroller.refund_lot)

    checkout = awaited(Comptroller.checkout)
    handle_stripe_event = awaited(Comptroller.handle_stripe_event)
    replay_stripe_event = awaited(Comptroller.replay_stripe_event)
    stripe_events = awaited(Comptroller.stripe_events)
    refund = awaited(Comptroller.refund)
    purchase = awaited(Comptroller.purchase)
    purchases = awaited(Comptroller.purchases)
    customer_portal = awaited(Comptroller.customer_portal)
    reconcile_stripe = awaited(Comptroller.reconcile_stripe)
    set_top_up = awaited(Comptroller.set_top_up)
    top_up_of = awaited(Comptroller.top_up_of)
    top_up = awaited(Comptroller.top_up)

    get = awaited(Comptroller.get)
    find = awaited(Comptroller.find)
    grants = awaited(Comptroller.grants)
    denials = awaited(Comptroller.denials)
    tags = awaited(Comptroller.tags)
    balance = awaited(Comptroller.balance)
    sweep = awaited(Comptroller.sweep)
    health = awaited(Comptroller.health)
    reload_policies = awaited(Comptroller.reload_policies)

    statement = awaited(Comptroller.statement)
    report = awaited(Comptroller.report)
    verify = awaited(Comptroller.verify)
    explain = awaited(Comptroller.explain)

    async def export(self) -> AsyncIterator[str]:
        """Yield all records and transfers as the lines of a CSV file, for auditors.

        Raises:
            StoreUnavailable: the database cannot be read.
        """
        lines = self.sync.export()
        while part := await self.in_thread(lambda: list(islice(lines, LINES_AT_ONCE))):
            for line in part:
                yield line

    @asynccontextmanager
    async def job(
        self,
        *,
        account: str,
        operation: str,
        attributes: Mapping[str, object] | None = None,
        key: str,
        plan: str | None = None,
        member: str | None = None,
        consent: bool | int = False,
        not_after: datetime | None = None,
    ) -> AsyncIterator[Job]:
        """Admit a request and do its work: settles at the end, releases as `failed` when the body raises.

        Raises:
            Denied: the request was refused; `.denial` says why.
            GrantEnded: the key brought a grant that is not live any more: its work must not run again.
            InvalidRequest: something asked for is unknown or not allowed.
        """
        job = started_job(
            await self.admit(
                account=account,
                operation=operation,
                attributes=attributes,
                key=key,
                plan=plan,
                member=member,
                consent=consent,
                not_after=not_after,
            )
        )
        try:
            yield job
        except BaseException:
            # Shielded: a cancelled job must give its units back too.
            failed = self.release(job.grant.id, reason=REASON_FAILED, **_spent(job))
            job.ending = await asyncio.shield(asyncio.ensure_future(failed))
            raise
        job.ending = await self.settle(job.grant.id, delivered=job.delivered, **_spent(job))


def _spent(job: Job) -> dict[str, Any]:
    return {"gpu_seconds": job.gpu_seconds, "gpu": job.gpu}
