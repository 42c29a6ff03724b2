"""Redis in front of SQL: asks the script, and says what its answer means to an admission.

Sync and async shells drive the same steps. Where Redis gives no answer the outcome is SQL's, or for operations that
are limits only this process's own.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final, Literal, TypeVar

from policies.errors import GrantEnded, StoreUnavailable
from policies.instants import from_micros, micros
from policies.policy_set import PolicySet
from quota.ask import Ask
from quota.grants import Denial, Ending, Grant
from quota.prefilter.budgets import BudgetMemory
from quota.prefilter.compiler import Compiler
from quota.prefilter.local import LocalLimits
from quota.prefilter.news import News
from quota.prefilter.prefilter import Argument, AskSql, Passed, Prefilter, Refused, Steps
from quota.prefilter.prints import redis_key
from quota.prefilter.script import script_text
from quota.prefilter.unbooked import (
    RELEASED,
    SETTLED,
    STATUSES,
    Ids,
    Unbooked,
    grant_of,
    steps,
    unbooked_id,
    unknown,
)
from quota.redis import RedisUnavailable, Script, SyncRedis
from quota.stores.base import Store

Answer = Grant | Denial | Passed | AskSql | Refused
ResultT = TypeVar("ResultT")
AWAY: Final = AskSql("Redis is away")
TIMEOUT: Final = timedelta(milliseconds=100)


class Front:
    """Redis as one Comptroller uses it. Safe for several threads."""

    def __init__(
        self,
        redis: SyncRedis,
        store: Store,
        policies: Callable[[], PolicySet],
        clock: Callable[[], datetime],
        *,
        server_time: bool,
    ) -> None:
        """Ask `redis`, and tell it what `store` says. `server_time`: the script asks Redis for the time itself."""
        self.redis: Final = redis
        self.script: Final = Script.of(script_text())
        self._clock, self._server_time = clock, server_time
        self._budgets = BudgetMemory()
        self.prefilter: Final = Prefilter(self._budgets)
        self.local: Final = LocalLimits()
        self._ahead: timedelta | None = None

        def compiler() -> Compiler:
            return self.prefilter.compiler(policies())

        self.news: Final = News(store, redis, self.script, compiler, self.now, self._budgets)

    def now(self) -> tuple[datetime, str]:
        """Return the clock's instant, and what the script is given as its `now`: empty for the server's own."""
        now = self._clock()
        return now, "" if self._server_time else str(micros(now))

    def decide(self, policy_set: PolicySet, ask: Ask) -> Answer:
        """Ask Redis about a request.

        Raises:
            InvalidRequest, IdempotencyConflict, DeadlinePassed: of an operation that is limits only.
        """
        now = self._clock()
        try:
            if limits_only(policy_set, ask):
                return self.answer(
                    policy_set, ask, self._drive(self.unbooked_steps(policy_set, ask))
                )
            return self.answer(policy_set, ask, self._drive(self.steps(policy_set, ask)))
        except RedisUnavailable:
            return self.without(policy_set, ask, now)

    def steps(self, policy_set: PolicySet, ask: Ask) -> Steps[Passed | AskSql | Refused]:
        """Return the steps of deciding a request that SQL would make a grant of."""
        now, given = self.now()
        deadline = self._deadline(ask, now)
        return self.prefilter.steps(policy_set, ask, now, given, deadline)

    def unbooked_steps(self, policy_set: PolicySet, ask: Ask) -> Steps[Unbooked | AskSql | Refused]:
        """Return the steps of deciding a request in Redis alone."""
        now, given = self.now()
        return steps(self.prefilter, policy_set, ask, now, given, self._deadline(ask, now))

    def answer(
        self,
        policy_set: PolicySet,
        ask: Ask,
        outcome: Passed | AskSql | Refused | Unbooked,
        by: Literal["redis", "local"] = "redis",
    ) -> Answer:
        """Say what an outcome means: a denial or an unbooked grant is the answer, anything else goes on to SQL."""
        if isinstance(outcome, Unbooked):
            now = outcome.at if not outcome.replayed else self._clock()
            return grant_of(outcome, policy_set, ask, now, by)
        if isinstance(outcome, Refused) and not outcome.partial:
            return denial_of(outcome, policy_set, ask, by)
        if isinstance(outcome, AskSql) and outcome.cold:
            self.news.unknown(ask.account)
        return outcome

    def without(self, policy_set: PolicySet, ask: Ask, now: datetime) -> Answer:
        """Say what is to be done while Redis is away."""
        if not limits_only(policy_set, ask):
            return AWAY
        facts = self.prefilter.facts(ask.account)
        return self.answer(
            policy_set, ask, self.local.decide(policy_set, ask, facts, now), by="local"
        )

    def heard(self, reply: Any) -> Any:
        """Note what time it is at the server, to tell it until when it may take anything."""
        if self._server_time:
            self._ahead = from_micros(reply[1]) - self._clock()
        return reply

    def end(self, ids: Ids, status: Literal["settled", "released"], reason: str | None) -> Ending:
        """End a grant that only Redis knows, or say how it has ended.

        Raises:
            UnknownGrant: it was never granted, or Redis has let it go.
            StoreUnavailable: Redis is away.
        """
        flags = SETTLED if status == "settled" else RELEASED
        now, expires_at, before, live = self._change(ids, "e", flags, flags=flags)
        ended = status if live else STATUSES.get(before, "expired")
        return Ending(
            grant_id=unbooked_id(ids.print, ids.account),
            status=ended,
            by_this_call=live,
            late=not live and ended == "expired",
            units_charged=0,
            gpu_cost_micro_usd=0,
            gpu_reported=False,
            at=now if live else min(now, expires_at),
            reason=reason if live else None,
        )

    def extend(self, ids: Ids, by: timedelta) -> datetime:
        """Keep a grant that only Redis knows for a length of time from now. Returns until when.

        Raises:
            GrantEnded: it has ended.
            UnknownGrant: it was never granted, or Redis has let it go.
            StoreUnavailable: Redis is away.
        """
        span = by // timedelta(microseconds=1)
        _, expires_at, flags, live = self._change(ids, "x", span, by=by)
        if not live:
            status = STATUSES.get(flags, "expired")
            grant_id = unbooked_id(ids.print, ids.account)
            raise GrantEnded(f"grant `{grant_id}` has ended: it is {status}", status=status)
        return expires_at

    def forget(self, account: str) -> None:
        """Forget an account, here and in Redis."""
        self.prefilter.forget(account)
        try:
            self.redis.command(b"DEL", redis_key(account))
        except RedisUnavailable as error:
            raise StoreUnavailable(
                "the account's state in Redis could not be erased: try again"
            ) from error

    def close(self) -> None:
        """Tell what waits, and close our connections."""
        self.news.close()
        self.redis.close()

    def _change(
        self, ids: Ids, op: str, value: int, *, flags: int = 0, by: timedelta | None = None
    ) -> tuple[datetime, datetime, int, bool]:
        now, given = self.now()
        until = None if by is None else now + by
        here = self.local.change(ids, now, flags=flags, until=until)
        if here is not None:
            made, live = here
            return now, made.expires_at, made.flags, live
        args: list[Argument] = [op, given, 3_600_000, ids.print, value]
        try:
            told = self.redis.run(self.script, redis_key(ids.account), args)
        except RedisUnavailable as error:
            raise StoreUnavailable(
                "redis is away, and only it knows this grant: try again"
            ) from error
        if not told:
            raise unknown(unbooked_id(ids.print, ids.account))
        was_live, at, _, expires, after = told
        return from_micros(at), from_micros(expires), after, bool(was_live)

    def _drive(self, asking: Steps[ResultT]) -> ResultT:
        try:
            key, args = next(asking)
            while True:
                key, args = asking.send(self.heard(self.redis.run(self.script, key, args)))
        except StopIteration as done:
            result: ResultT = done.value
            return result

    def _deadline(self, ask: Ask, now: datetime) -> int:
        """Return after which instant of the server the script must not take anything: we have given up by then."""
        limits = [] if ask.not_after is None else [ask.not_after]
        if self._server_time and self._ahead is not None:
            limits.append(now + self._ahead + TIMEOUT)
        return micros(min(limits)) if limits else 0


def limits_only(policy_set: PolicySet, ask: Ask) -> bool:
    """Whether SQL has no part in an operation."""
    operation = policy_set.operations.get(ask.operation)
    return operation is not None and operation.limits_only


def denial_of(
    refused: Refused, policy_set: PolicySet, ask: Ask, by: Literal["redis", "local"] = "redis"
) -> Denial:
    """Return the denial as the caller sees it."""
    return Denial(
        id=f"de_{uuid.uuid4().hex}",
        account=ask.account,
        operation=ask.operation,
        attributes=refused.request.attributes,
        at=refused.at,
        policy_version=policy_set.version,
        findings=refused.decision.findings,
        plan=refused.rules.plan,
        member=ask.member,
        reason=str(refused.decision.reason),
        retry_at=refused.advice.retry_at,
        offers=refused.advice.offers,
        decided_by=by,
    )
