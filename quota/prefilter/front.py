"""Redis in front of SQL: asks the script, and says what its answer means to an admission.

Sync and async shells drive the same steps. Where Redis gives no answer the outcome is SQL's, or for operations that
are limits only this process's own.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, ClassVar, Final, Literal, TypeVar

from policies.errors import InvalidRequest, StoreUnavailable
from policies.instants import micros
from policies.policy_set import PolicySet
from quota.ask import Ask
from quota.grants import Denial, Grant
from quota.prefilter.answers import answered
from quota.prefilter.budgets import BudgetMemory
from quota.prefilter.compiler import Compiler
from quota.prefilter.lives import UnbookedLives
from quota.prefilter.local import LocalLimits
from quota.prefilter.news import News
from quota.prefilter.prefilter import AskSql, Passed, Prefilter, Refused, Steps, deadline_micros
from quota.prefilter.prints import Keys
from quota.prefilter.script import script_text
from quota.prefilter.unbooked import (
    Unbooked,
    grant_of,
    unbooked_steps,
)
from quota.redis import RedisUnavailable, Script, ScriptFailed, SyncRedis, opening
from quota.redis.wire import Argument
from quota.stores.base import Store

Answer = Grant | Denial | Passed | AskSql | Refused
ResultT = TypeVar("ResultT")
AWAY: Final = AskSql("Redis is away", helps=False)
SECOND: Final = 1_000_000
ERASED_AT_ONCE: Final = 1000

log: Final = logging.getLogger("comptroller.redis")


class Front:
    """Redis as one Comptroller uses it. Safe for several threads."""

    raises_mistakes: ClassVar[bool] = False
    """Whether a request fails where Redis refuses the script: set by our own tests."""

    def __init__(
        self,
        redis: SyncRedis,
        url: str,
        store: Store,
        policies: Callable[[], PolicySet],
        clock: Callable[[], datetime],
        *,
        server_time: bool,
    ) -> None:
        """Ask `redis` at `url`, and tell it what `store` says. `server_time`: the script asks Redis for the time."""
        self.redis: Final = redis
        self.url: Final = url
        self.script: Final = Script.of(script_text())
        self._clock, self._server_time = clock, server_time
        self._budgets = BudgetMemory()
        self.keys: Final = Keys()
        self.prefilter: Final = Prefilter(self._budgets, self.keys)
        self.local: Final = LocalLimits(self.prefilter.compiler)
        self._heard_at, self._ahead = 0, 0

        def compiler() -> Compiler:
            return self.prefilter.compiler(policies())

        self.lives: Final = UnbookedLives(redis, self.script, self.local, self.now, self.keys)
        self.news: Final = News(
            store, redis, self.script, compiler, self.now, self._budgets, self.keys
        )

    def now(self) -> tuple[datetime, str]:
        """Return the clock's instant, and what the script is given as its `now`: empty for the server's own."""
        now = self._clock()
        return now, "" if self._server_time else str(micros(now))

    def decide(self, policy_set: PolicySet, ask: Ask) -> Answer:
        """Ask Redis about a request.

        Raises:
            InvalidRequest, IdempotencyConflict, DeadlinePassed: of an operation that is limits only.
        """
        epoch = self.news.untold.epoch
        try:
            return self.answer(policy_set, ask, self._drive(self.steps(policy_set, ask)), epoch)
        except RedisUnavailable:
            return self.without(policy_set, ask)
        except ScriptFailed as error:
            return self.mistaken(policy_set, ask, error)

    def mistaken(self, policy_set: PolicySet, ask: Ask, error: ScriptFailed) -> Answer:
        """Go on without Redis where it refuses what we ask: a mistake of ours, or of whoever set it up.

        SQL answers as well, so that no request fails for it; but it is said aloud, and tests raise it.
        """
        if self.raises_mistakes:
            raise error
        log.error("redis refuses our script, and is not asked: %s", error)
        return self.without(policy_set, ask)

    def steps(self, policy_set: PolicySet, ask: Ask) -> Steps[Passed | AskSql | Refused | Unbooked]:
        """Return the steps of deciding a request: in Redis alone, or before SQL does."""
        now, given = self.now()
        deadline = self._deadline(ask, now)
        if limits_only(policy_set, ask):
            return unbooked_steps(self.prefilter, policy_set, ask, now, given, deadline)
        return self.prefilter.steps(policy_set, ask, now, given, deadline)

    def answer(
        self,
        policy_set: PolicySet,
        ask: Ask,
        outcome: Passed | AskSql | Refused | Unbooked,
        epoch: int,
        by: Literal["redis", "local"] = "redis",
    ) -> Answer:
        """Say what an outcome means: a denial or an unbooked grant is the answer, anything else goes on to SQL.

        `epoch`: that of `news.untold` before Redis was asked.
        """
        if isinstance(outcome, Unbooked | Refused) and outcome.stale:
            self.news.unknown(ask.account)
        if isinstance(outcome, Unbooked):
            now = outcome.at if not outcome.replayed else self._clock()
            return grant_of(outcome, policy_set, ask, now, by)
        if isinstance(outcome, Refused):
            # What this process has written itself, Redis shall not contradict.
            if not limits_only(policy_set, ask) and self.news.untold.has(outcome.book_id, epoch):
                outcome = AskSql("Redis has not heard of all that was written", cold=True)
            elif not outcome.partial:
                return denial_of(outcome, policy_set, ask, by)
        if isinstance(outcome, AskSql) and outcome.cold:
            self.news.unknown(ask.account)
        return outcome

    def without(self, policy_set: PolicySet, ask: Ask) -> Answer:
        """Say what is to be done while Redis is away."""
        if not limits_only(policy_set, ask):
            return AWAY
        facts = self.prefilter.facts(ask.account)
        outcome = self.local.decide(policy_set, ask, facts, self._clock())
        return self.answer(policy_set, ask, outcome, 0, by="local")

    def heard(self, reply: Any) -> list[Any]:
        """Note what time it is at the server, to tell it until when it may take anything. Returns what it says."""
        said = answered(reply)
        if self._server_time and not 0 <= said[1] - self._heard_at < SECOND:
            self._heard_at = said[1]
            self._ahead = said[1] - micros(self._clock())
        return said

    def forget(self, account: str) -> None:
        """Forget an account, here and in Redis."""
        self.prefilter.forget(account)
        try:
            self.news.erase(account)
        except RedisUnavailable as error:
            raise StoreUnavailable(
                "the account's state in Redis could not be erased: try again"
            ) from error

    def forget_later(self, account: str) -> None:
        """Forget an account, here at once, and in Redis as soon as it answers. Never raises."""
        self.prefilter.forget(account)
        self.news.erase_later(account)

    def erase(self, accounts: Iterable[str]) -> None:
        """Erase what Redis holds of these accounts, as far as it answers: what stays dies by itself."""
        erased: list[Argument] = ["f", self.now()[1], 0]
        calls = [(self.keys.of(account), erased) for account in accounts]
        for start in range(0, len(calls), ERASED_AT_ONCE):
            self.redis.run_many(self.script, calls[start : start + ERASED_AT_ONCE])

    def state(self) -> str:
        """Say whether Redis answers: `up`, or what keeps it from it."""
        try:
            self.redis.command("PING")
        except RedisUnavailable as error:
            return f"away: {error}"
        except ScriptFailed as error:
            return f"refuses us: {error}"
        return "up"

    def close(self) -> None:
        """Tell what waits, and close our connections."""
        self.news.close()
        self.redis.close()

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
        asked = deadline_micros(ask.not_after)
        if not self._server_time or not self._heard_at:
            return asked
        return min(asked, micros(now) + self._ahead + round(opening.TIMEOUT_SECONDS * SECOND))


def limits_only(policy_set: PolicySet, ask: Ask) -> bool:
    """Whether SQL has no part in an operation."""
    try:
        return policy_set.operation(ask.operation).limits_only
    except InvalidRequest:
        return False  # SQL says what is wrong


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
