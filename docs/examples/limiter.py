"""Comptroller as an exact rate limiter, and nothing else.

    COMPTROLLER_REDIS=redis://localhost:6379 .venv/bin/python docs/examples/limiter.py

An operation that is `limits_only` takes no units and costs no GPU time. With Redis each call is one round trip, all
processes share one limit, and SQL is not asked. Without it each process counts for itself and keeps every call in its
memory: enough for a test or for trying it out.
"""

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from policies import PolicySet
from quota import Comptroller

POLICIES = """
schema: 1
operations:
  api.call: {limits_only: true, hold_for: 1s}
plans:
  free: {limits: [{kind: rate, limit: 30, per: 1m, burst: 5}]}
  pro: {limits: [{kind: rate, limit: 600, per: 1m, burst: 50}]}
default_plan: free
"""


@dataclass(frozen=True)
class Limiter:
    """Says of each call whether it may go on. Safe for threads: one per process is enough."""

    comptroller: Comptroller

    def wait(self, caller: str, plan: str | None = None) -> timedelta:
        """Count a call that may go on now, and answer zero; else how long to wait. A refused call is not counted."""
        decision = self.comptroller.admit(
            account=caller, operation="api.call", key=uuid.uuid4().hex, plan=plan
        )
        if decision:
            return timedelta(0)
        assert decision.retry_at is not None, "a rate always lets the next call through in the end"
        return decision.retry_at - decision.at


@contextmanager
def opened(clock: Callable[[], datetime] | None = None) -> Iterator[Limiter]:
    """Open the limiter: once per process. Tests give it a clock that they set."""
    redis = os.environ.get("COMPTROLLER_REDIS")
    policies = PolicySet.parse(POLICIES)
    with Comptroller.open(policies, "sqlite://", redis, clock=clock) as comptroller:
        yield Limiter(comptroller)


def main() -> None:
    with opened() as limiter:
        for number in range(1, 8):
            wait = limiter.wait("caller-1")
            print(f"call {number}:", f"429, Retry-After {wait}" if wait else "200")


if __name__ == "__main__":
    main()
