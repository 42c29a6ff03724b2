"""The engine, on each kind of store, with its answers in the model's form."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool, StaticPool

from policies.policy_set import PolicySet
from quota import AsyncComptroller, Comptroller, ComptrollerError, Denial, Grant
from quota.budgets import Terms
from quota.testing import FakeClock
from tests.conformance.answers import ending, issued, seen
from tests.model import Refused
from tests.world import discrepancies, raw

SMALL = Terms(share=1, part=2, first=2)
"""Blocks of budgets for a few requests, leased however little is left: so that programs come to their ends."""


class Driver:
    """A Comptroller whose every call is made in one way; `calls` of another class are made in another."""

    redis: str | None = None
    """The URL of Redis in front, if there is one."""

    def __init__(self, policy_set: PolicySet, folder: Path, clock: FakeClock) -> None:
        self.clock, self.folder = clock, folder
        self.reached: Counter[str] = Counter()
        self.comptroller = self.opened(policy_set)
        holder = self.comptroller._db.holder
        if holder is not None:
            holder.terms = SMALL

    def opened(self, policy_set: PolicySet) -> Comptroller:
        return Comptroller.open(policy_set, "sqlite://", redis=self.redis, clock=self.clock)

    def close(self) -> None:
        self.comptroller.close()

    def run(self, method: str, *values: Any, **named: Any) -> Any:
        return getattr(self.comptroller, method)(*values, **named)

    def answer(self, name: str, *values: Any, **named: Any) -> Any:
        """Make one of the calls below."""
        return getattr(self, name)(*values, **named)

    def ask(self, method: str, *values: Any, **named: Any) -> Any:
        """Call a method that only reads, and so takes no session."""
        return self.run(method, *values, **named)

    def call(self, method: str, *values: Any, **named: Any) -> Any:
        try:
            return self.run(method, *values, **named)
        except ComptrollerError as error:
            one_line = "\n" not in str(error)
            raise Refused(type(error).__name__ if one_line else str(error)) from error

    def use(self, policy_set: PolicySet) -> None:
        """Put another policy set in force, as a changed file does."""
        self.comptroller._policy_file._on_change(policy_set)
        self.comptroller._policy_file.current = policy_set

    # --- the calls, in the model's words ------------------------------------------------------

    def admit(self, account: str, operation: str, attributes: Any, key: str, **more: Any) -> Any:
        asked = {"account": account, "operation": operation, "attributes": attributes}
        decision = self.call("admit", **asked, key=key, **more)
        if isinstance(decision, Grant):
            return ("grant", *seen(decision), decision.replayed)
        assert isinstance(decision, Denial)
        told = (decision.reason, decision.retry_at, decision.offers)
        return ("denial", decision.at, decision.plan, decision.findings, *told)

    def start(self, grant_id: str) -> Any:
        grant = self.call("start", grant_id)
        return (*seen(grant), grant.expires_at)

    def extend(self, grant_id: str, by: timedelta) -> Any:
        grant = self.call("extend", grant_id, by)
        return (*seen(grant), grant.expires_at)

    def settle(self, grant_id: str, **report: Any) -> Any:
        return ending(self.call("settle", grant_id, **report))

    def release(self, grant_id: str, reason: str, gpu_seconds: Any = None) -> Any:
        return ending(self.call("release", grant_id, reason=reason, gpu_seconds=gpu_seconds))

    def add_gpu_cost(self, grant_id: str, gpu_seconds: Any, attempt: str) -> Any:
        report = {"gpu_seconds": gpu_seconds, "attempt": attempt}
        return (self.call("add_gpu_cost", grant_id, **report),)

    def set_plan(self, account: str, plan: str) -> Any:
        self.call("set_plan", account, plan)
        return ()

    def set_timezone(self, account: str, timezone: str) -> Any:
        self.call("set_account", account, timezone=timezone)
        return ()

    def set_paid_use(self, account: str, paid_use: str, cap: int | None, per: str) -> Any:
        more = {"spend_cap_minor": cap, "spend_cap_per": per}
        self.call("set_paid_use", account, paid_use, **more)
        return ()

    def freeze(self, account: str, frozen: bool) -> Any:
        if frozen:
            self.call("freeze", account, reason="chargeback")
        else:
            self.call("unfreeze", account)
        return ()

    def sweep(self) -> Any:
        return (self.ask("sweep"),)

    def purchase(self, account: str, pack: str, reference: str) -> Any:
        return issued(self.call("record_purchase", account, pack=pack, reference=reference))

    def add_credits(self, account: str, units: int, reference: str, expires: Any) -> Any:
        more = {"units": units, "reference": reference, "expires_at": expires}
        return issued(self.call("add_credits", account, **more))

    def refund(self, lot_id: str, reference: str) -> Any:
        refund = self.call("refund_lot", lot_id, reference=reference)
        return (refund.units, refund.amount_minor, refund.by_this_call)

    def get(self, grant_id: str) -> Any:
        return seen(self.ask("get", grant_id))

    def balance(self, account: str) -> Any:
        balance = self.ask("balance", account)
        return (
            tuple(
                (each.source, each.used, each.remaining, each.next_return_at)
                for each in balance.allowances
            ),
            {lot.id: (lot.available, lot.held) for lot in balance.lots},
            balance.held,
            balance.open_grants,
        )

    def money(self, account: str) -> tuple[int, ...]:
        columns = "revenue_minor breakage_minor refunded_minor gpu_micro_usd".split()
        sums = ", ".join(
            f"coalesce(sum({column}), 0)" for column in [*columns, "gpu_unreported_micro_usd"]
        )
        sql = (
            f"SELECT {sums} FROM comptroller_line JOIN comptroller_account_name AS name"
            " ON name.book_id = comptroller_line.book_id WHERE name.name = ?"
        )
        with self.comptroller._db.reading() as db:
            return raw(db, sql, account)[0]

    def verify(self) -> list[Any]:
        return discrepancies(self.comptroller)


class Filed(Driver):
    """On a file."""

    @property
    def path(self) -> Path:
        return self.folder / f"{id(self)}.db"

    def opened(self, policy_set: PolicySet) -> Comptroller:
        return Comptroller.open(
            policy_set, f"sqlite:///{self.path}", redis=self.redis, clock=self.clock
        )

    def close(self) -> None:
        super().close()
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)


class InSession(Driver):
    """Each call in a session of the host, on the host's own engine with its driver's defaults."""

    host: Engine

    def run(self, method: str, *values: Any, **named: Any) -> Any:
        with Session(self.host) as session:
            try:
                return getattr(self.comptroller, method)(*values, **named, session=session)
            finally:
                session.commit()  # also after an error: what fell due before it stays written

    def ask(self, method: str, *values: Any, **named: Any) -> Any:
        return getattr(self.comptroller, method)(*values, **named)


class Joined(InSession, Filed):
    """On a file, each call in a session of the host."""

    def opened(self, policy_set: PolicySet) -> Comptroller:
        self.host = create_engine(f"sqlite:///{self.path}", poolclass=NullPool)
        return super().opened(policy_set)


class JoinedInMemory(InSession):
    """In memory, on the host's own engine, which is one connection."""

    def opened(self, policy_set: PolicySet) -> Comptroller:
        self.host = create_engine(
            "sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False}
        )
        return Comptroller.open(policy_set, self.host, redis=self.redis, clock=self.clock)

    def close(self) -> None:
        super().close()
        self.host.dispose()


class Awaited(Driver):
    """In memory, each call awaited."""

    def opened(self, policy_set: PolicySet) -> Comptroller:
        self.loop = asyncio.new_event_loop()
        self.awaited = AsyncComptroller.open(
            policy_set, self.database, redis=self.redis, clock=self.clock
        )
        return self.awaited.sync

    @property
    def database(self) -> str:
        return "sqlite://"

    def run(self, method: str, *values: Any, **named: Any) -> Any:
        return self.loop.run_until_complete(getattr(self.awaited, method)(*values, **named))

    def close(self) -> None:
        self.loop.run_until_complete(self.awaited.close())
        self.loop.close()


class AwaitedFiled(Awaited, Filed):
    """On a file, each call awaited."""

    @property
    def database(self) -> str:
        return f"sqlite:///{self.path}"

    def close(self) -> None:
        Awaited.close(self)
        Filed.close(self)


class AwaitedInSession(Awaited):
    """Each call awaited in an AsyncSession of the host, on its driver's defaults."""

    host: AsyncEngine

    def run(self, method: str, *values: Any, **named: Any) -> Any:
        async def joined() -> Any:
            async with AsyncSession(self.host) as session:
                try:
                    return await getattr(self.awaited, method)(*values, **named, session=session)
                finally:
                    await session.commit()

        return self.loop.run_until_complete(joined())

    def ask(self, method: str, *values: Any, **named: Any) -> Any:
        return Awaited.run(self, method, *values, **named)


class AwaitedJoined(AwaitedInSession, AwaitedFiled):
    """On a file, each call awaited in an AsyncSession of the host, on aiosqlite."""

    def opened(self, policy_set: PolicySet) -> Comptroller:
        self.host = create_async_engine(f"sqlite+aiosqlite:///{self.path}", poolclass=NullPool)
        return super().opened(policy_set)
