"""The engine with Redis in front of it: whatever Redis has heard, and whatever it has lost, the answers stay."""

from __future__ import annotations

import random
from typing import Any

import pytest

from policies.policy_set import PolicySet
from quota import Comptroller, Denial
from quota.prefilter import snapshot
from quota.prefilter.answers import Verdict
from quota.prefilter.events import Undid
from quota.prefilter.front import Front
from quota.redis import open_sync
from tests.conformance.driver import Awaited, AwaitedFiled, Driver, Filed, Joined
from tests.conformance.servers import Served, ServedAwaited, ServedJoined
from tests.servers import shared_cluster, shared_redis

NOBODY_THERE = "redis://127.0.0.1:1"


class Fronted(Driver):
    """Redis in front, which hears of each call before the next: so it answers all denials that it can."""

    server: Any = staticmethod(shared_redis)

    def opened(self, policy_set: PolicySet) -> Comptroller:
        # Every program has the same accounts: it begins with an empty Redis.
        self.at = type(self).server()
        self.at.flush()
        self.redis = self.at.url
        comptroller = super().opened(policy_set)
        assert comptroller._front is not None
        self.front: Front = comptroller._front
        self.front.news.by_hand = True
        self.watch(self.front)
        return comptroller

    def watch(self, front: Front) -> None:
        """Count what the script answers, and what comes of it."""
        heard, meant = front.heard, front.answer

        def counted(reply: Any) -> Any:
            said = heard(reply)
            self.reached[f"script: {Verdict(said[0]).name}"] += 1
            return said

        def understood(*values: Any, **named: Any) -> Any:
            answer = meant(*values, **named)
            self.reached[f"front: {type(answer).__name__}"] += 1
            return answer

        front.heard, front.answer = counted, understood  # type: ignore[method-assign]

    def run(self, method: str, *values: Any, **named: Any) -> Any:
        try:
            answer = super().run(method, *values, **named)
            if isinstance(answer, Denial) and method == "admit":
                self.reached[f"{answer.decided_by} denied: {answer.reason}"] += 1
            return answer
        finally:
            undone = sum(isinstance(event, Undid) for event in self.front.news._events)
            self.reached["undone"] += undone
            self.tell()

    def tell(self) -> None:
        """Tell Redis what there is to tell."""
        self.front.news.flush()


class Clustered(Fronted):
    """A Cluster of three nodes in front."""

    server = staticmethod(shared_cluster)


class Lagging(Fronted):
    """Redis hears of what was written sooner or later, or loses everything; some of it gets lost on the way."""

    def opened(self, policy_set: PolicySet) -> Comptroller:
        self.random = random.Random(7)
        self.lost = open_sync(NOBODY_THERE)
        return super().opened(policy_set)

    def tell(self) -> None:
        news, happens = self.front.news, self.random.random()
        if happens < 0.05:
            self.at.flush()
            self.reached["flushed"] += 1
        elif happens < 0.25:
            redis, news._redis = news._redis, self.lost
            news.flush()
            news._redis = redis
            self.reached["lost"] += 1
        elif happens < 0.6:
            news.flush()

    def close(self) -> None:
        super().close()
        self.lost.close()


class Forgetful(Fronted):
    """Redis knows the keys of an account's last two grants alone: of an older one, SQL is asked."""

    def run(self, method: str, *values: Any, **named: Any) -> Any:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(snapshot, "KEYS_KNOWN", 2)
            return super().run(method, *values, **named)


class FiledFronted(Fronted, Filed):
    """On a file, behind Redis."""


class FiledLagging(Lagging, Filed):
    """On a file, behind a Redis that hears late."""


class FiledForgetful(Forgetful, Filed):
    """On a file, behind a Redis that knows few keys."""


class FiledClustered(Clustered, Filed):
    """On a file, behind a Cluster."""


class JoinedFronted(Fronted, Joined):
    """On a file, each call in a session of the host, behind Redis."""


class JoinedLagging(Lagging, Joined):
    """On a file, each call in a session of the host, behind a Redis that hears late."""


class AwaitedFronted(Fronted, AwaitedFiled):
    """On a file, each call awaited, behind Redis."""


class AwaitedClustered(Clustered, AwaitedFiled):
    """On a file, each call awaited, behind a Cluster."""


class ServedFronted(Fronted, Served):
    """On PostgreSQL, behind Redis."""


class ServedClustered(Clustered, Served):
    """On PostgreSQL, behind a Cluster."""


class ServedAwaitedFronted(Fronted, ServedAwaited):
    """On PostgreSQL, each call awaited, behind Redis."""


class ServedAwaitedLagging(Lagging, Clustered, ServedAwaited):
    """On PostgreSQL, each call awaited, behind a Cluster that hears late."""


class ServedJoinedFronted(Fronted, ServedJoined):
    """On PostgreSQL, each call in a session of the host, behind Redis."""


class MemoryAwaitedFronted(Fronted, Awaited):
    """In memory, each call awaited, behind Redis."""


class MemoryFronted(Fronted):
    """In memory, behind Redis."""


class MemoryLagging(Lagging):
    """In memory, behind a Redis that hears late."""


class MemoryForgetful(Forgetful):
    """In memory, behind a Redis that knows few keys."""
