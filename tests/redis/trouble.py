"""What tests of faults share: a clock to set, and calls that are meant to fail."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from quota.redis import RedisUnavailable, Script
from tests.redis.shells import COUNT, Shell

KEY = b"{account}"
# A machine with other things to do may take this long for what takes a tenth of a second.
GENEROUS = 5.0


class Clock:
    """The breaker's clock: it stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def pass_the_longest_wait(self) -> None:
        self.now += 60


def unavailable(client: Shell, *, unknown: bool, match: str | None = None) -> float:
    """Make a call that fails; the answer is how many seconds it took."""
    begin = time.monotonic()
    with pytest.raises(RedisUnavailable, match=match) as raised:
        client.run(COUNT, KEY)
    assert raised.value.outcome_unknown is unknown
    assert "\n" not in str(raised.value)
    return time.monotonic() - begin


def works_after_waiting(client: Shell, clock: Clock) -> bool:
    clock.pass_the_longest_wait()
    return failure_of(client) is None


def failure_of(client: Shell, script: Script = COUNT) -> RedisUnavailable | None:
    try:
        client.run(script, KEY)
    except RedisUnavailable as error:
        return error
    return None


def until(condition: Callable[[], bool]) -> None:
    """Try again until it is so, for some seconds."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
