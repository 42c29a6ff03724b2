"""The life of a grant that SQL does not know: kept longer, ended, or asked for, in Redis alone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final, Literal, NamedTuple

from policies.errors import GrantEnded, StoreUnavailable
from policies.instants import from_micros
from policies.policy_set import PolicySet
from quota.grants import Ending, Grant, Status
from quota.prefilter.local import LocalLimits
from quota.prefilter.prints import Keys
from quota.prefilter.unbooked import RELEASED, SETTLED, STATUSES, Ids, unknown
from quota.redis import RedisUnavailable, Script, SyncRedis
from quota.redis.wire import Argument

LIFETIME_MS: Final = 3_600_000


class _Life(NamedTuple):
    now: datetime
    at: datetime
    expires_at: datetime
    flags: int
    live: bool
    """Whether it was, before this call."""

    @property
    def status(self) -> Status:
        return STATUSES.get(self.flags, "held" if self.live else "expired")


class UnbookedLives:
    """The grants that only Redis knows, or this process alone."""

    def __init__(
        self,
        redis: SyncRedis,
        script: Script,
        local: LocalLimits,
        now: Callable[[], tuple[datetime, str]],
        keys: Keys,
    ) -> None:
        """Ask `redis`, after those that were granted here while it was away."""
        self._redis, self._script, self._local, self._now = redis, script, local, now
        self._keys = keys

    def end(self, ids: Ids, status: Literal["settled", "released"], reason: str | None) -> Ending:
        """End a grant, or say how it has ended.

        Raises:
            UnknownGrant: it was never granted, or Redis has let it go.
            StoreUnavailable: Redis is away.
        """
        flags = SETTLED if status == "settled" else RELEASED
        life = self._change(ids, "e", flags, flags=flags)
        return Ending(
            grant_id=ids.text,
            status=status if life.live else life.status,
            by_this_call=life.live,
            late=not life.live and life.status == "expired",
            units_charged=0,
            gpu_cost_micro_usd=0,
            gpu_reported=False,
            at=life.now if life.live else min(life.now, life.expires_at),
            reason=reason if life.live else None,
        )

    def extend(self, ids: Ids, by: timedelta, policy_set: PolicySet) -> Grant:
        """Keep a grant for a length of time from now.

        Raises:
            GrantEnded: it has ended.
            UnknownGrant: it was never granted, or Redis has let it go.
            StoreUnavailable: Redis is away.
        """
        life = self._change(ids, "x", by // timedelta(microseconds=1), by=by)
        if not life.live:
            raise GrantEnded(
                f"grant `{ids.text}` has ended: it is {life.status}", status=life.status
            )
        return _grant(ids, life, policy_set)

    def get(self, ids: Ids, policy_set: PolicySet) -> Grant:
        """Return a grant as it stands now: without attributes and findings, which Redis does not keep.

        Raises:
            UnknownGrant: it was never granted, or Redis has let it go.
            StoreUnavailable: Redis is away.
        """
        return _grant(ids, self._change(ids, "q", 0), policy_set)

    def _change(
        self, ids: Ids, op: str, value: int, *, flags: int = 0, by: timedelta | None = None
    ) -> _Life:
        now, given = self._now()
        until = None if by is None else now + by
        here = self._local.change(ids, now, flags=flags, until=until)
        if here is not None:
            made, live = here
            return _Life(now, made.at, made.expires_at, made.flags, live)
        args: list[Argument] = [op, given, LIFETIME_MS, ids.print, value]
        try:
            told = self._redis.run(self._script, self._keys.of(ids.account), args)
        except RedisUnavailable as error:
            raise StoreUnavailable(
                "redis is away, and only it knows this grant: try again"
            ) from error
        if not told:
            raise unknown(ids)
        was_live, at, granted_at, expires, after = told
        return _Life(
            from_micros(at), from_micros(granted_at), from_micros(expires), after, bool(was_live)
        )


def _grant(ids: Ids, life: _Life, policy_set: PolicySet) -> Grant:
    return Grant(
        id=ids.text,
        account=ids.account,
        operation=ids.operation,
        attributes={},
        at=life.at,
        policy_version=policy_set.version,
        findings=(),
        plan=policy_set.default_plan,
        member=None,
        key="",
        allocations=(),
        gpu_cost_micro_usd=0,
        expires_at=life.expires_at,
        status=life.status,
        live=life.live,
        decided_by="redis",
    )
