"""One face for both shells, so that a test says once what is true of both."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Generator, Sequence
from typing import Any

from quota.redis import AsyncRedis, Script, SyncRedis, open_async, open_sync
from quota.redis.wire import Argument, Call

COUNT = Script.of("return redis.call('INCR', KEYS[1])")
ECHO = Script.of("return {KEYS[1], unpack(ARGV)}")
BROKEN = Script.of("return 1 + {}")
# For tests that are not about time: this machine may be busy.
PATIENT = 10.0
# For tests in which no reply comes. What is answered all the same has to be answered within it.
SHORT = 0.5


@types.coroutine
def a_turn() -> Generator[None]:
    """Let the event loop go round once."""
    yield


class Shell:
    """A client of either kind, called as the sync one is. An async one runs in a loop of its own."""

    def __init__(self, client: SyncRedis | AsyncRedis) -> None:
        self.client = client
        self._is_open = True
        self._runner = asyncio.Runner() if isinstance(client, AsyncRedis) else None

    def run(self, script: Script, key: bytes, args: Sequence[Argument] = ()) -> Any:
        return self._wait(self.client.run(script, key, args))

    def run_many(self, script: Script, calls: Sequence[Call]) -> list[Any | Exception]:
        replies: list[Any | Exception] = self._wait(self.client.run_many(script, calls))
        return replies

    def command(self, *args: Argument) -> Any:
        return self._wait(self.client.command(*args))

    def states(self) -> set[str]:
        return set(self.client.states.values())

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._wait(self.client.close())
            if self._runner:
                self._runner.close()

    def _wait(self, answer: Any) -> Any:
        if not self._runner:
            return answer
        try:
            return self._runner.run(answer)
        except asyncio.CancelledError as error:  # a test that ends here should say where
            raise AssertionError("cancelled") from error


def opened(kind: str, url: str, timeout_seconds: float = PATIENT, **options: Any) -> Shell:
    """A client of one kind: "sync" or "async"."""
    opener = open_sync if kind == "sync" else open_async
    return Shell(opener(url, timeout_seconds=timeout_seconds, **options))
