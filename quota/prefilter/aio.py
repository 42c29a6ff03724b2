"""Redis in front of SQL, awaited: the same steps, over a client that pipelines concurrent calls by itself."""

from __future__ import annotations

from typing import Final

from policies.policy_set import PolicySet
from quota.ask import Ask
from quota.prefilter.front import Answer, Front
from quota.redis import RedisUnavailable, ScriptFailed, open_async


class AsyncFront:
    """Redis as one AsyncComptroller uses it: decisions here, the news by the thread of the sync one."""

    def __init__(self, front: Front) -> None:
        """Share what a Front knows, over a client of our own."""
        self._front: Final = front
        self._redis: Final = open_async(front.url)

    async def decide(self, policy_set: PolicySet, ask: Ask) -> Answer:
        """Ask Redis about a request, as `Front.decide` does.

        Raises:
            InvalidRequest, IdempotencyConflict, DeadlinePassed: of an operation that is limits only.
        """
        front = self._front
        asking, epoch = front.steps(policy_set, ask), front.news.untold.epoch
        try:
            key, args = next(asking)
            while True:
                key, args = asking.send(front.heard(await self._redis.run(front.script, key, args)))
        except StopIteration as done:
            return front.answer(policy_set, ask, done.value, epoch)
        except RedisUnavailable:
            return front.without(policy_set, ask)
        except ScriptFailed as error:
            return front.mistaken(policy_set, ask, error)

    async def close(self) -> None:
        """Close our connections."""
        await self._redis.close()
