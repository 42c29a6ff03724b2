"""One Redis server, for threads: a bounded pool of connections behind a circuit breaker."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

import hiredis

from quota.redis.breaker import Breaker
from quota.redis.errors import (
    RedisUnavailable,
    as_exception,
    calls_for_reconnect,
    closed,
    is_failure,
    is_refusal,
    not_asked,
    reason,
)
from quota.redis.forks import start_anew_in_children
from quota.redis.sync_line import Line
from quota.redis.target import Address, Target

CONNECTIONS: Final = 16
# An idle connection is looked at before it is used again: firewalls and servers close them.
_IDLE_SECONDS: Final = 1.0
# Commands sent before their replies are read. Bounded, so that neither side's buffers fill up.
_AT_A_TIME: Final = 64


class Node:
    """Sends commands to one server and returns raw replies. Safe for threads, starts anew in forks.

    `timeout_seconds` bounds a connect, a reply, and the wait for a free connection, each.
    """

    def __init__(
        self,
        target: Target,
        address: Address,
        timeout_seconds: float,
        clock: Callable[[], float],
        connections: int = CONNECTIONS,
    ) -> None:
        self.address = address
        self.breaker = Breaker(clock)
        self._target = target
        self._timeout = timeout_seconds
        self._connections = connections
        self._clock = clock
        self._closed = False
        self._start()
        start_anew_in_children(self)

    def _start(self) -> None:
        # Idle connections, and None for each place where one may be opened.
        self._free: queue.SimpleQueue[Line | None] = queue.SimpleQueue()
        self._places = self._connections  # not yet given out
        self._lock = threading.Lock()

    def after_fork(self) -> None:
        """Start with no connection: those there are belong to the parent, which keeps them open."""
        self._drop_idle()
        self._start()

    def ask(self, packed: bytes, *, replies: int = 1) -> Any:
        """Send one command and return its reply, an error reply that is no failure included.

        `replies` is 2 for a command with a prefix; the last reply counts.

        Raises:
            RedisUnavailable: no answer, or one by which Redis says that it cannot serve us now.
        """

        def once(line: Line) -> Any:
            reply = line.ask(packed)
            for _ in range(replies - 1):
                reply = line.receive()
            return reply

        reply = self._talk(once)
        if isinstance(reply, hiredis.ReplyError) and is_failure(reply):
            raise as_exception(reply)
        return reply

    def ask_many(self, packed: Sequence[bytes]) -> list[Any]:
        """Send commands in pipelines. Each gets its raw reply, or the RedisUnavailable it met."""
        if not packed:
            return []
        replies: list[Any] = []
        sent = 0

        def in_turns(line: Line) -> Any:
            nonlocal sent
            for start in range(0, len(packed), _AT_A_TIME):
                some = packed[start : start + _AT_A_TIME]
                sent += len(some)
                line.send(b"".join(some))
                for _ in some:
                    replies.append(line.receive())
            return replies[-1]

        try:
            self._talk(in_turns)
        except RedisUnavailable as error:
            unanswered = sent - len(replies)
            replies += [RedisUnavailable(str(error), outcome_unknown=True)] * unanswered
            replies += [RedisUnavailable(str(error))] * (len(packed) - sent)
        return [
            as_exception(reply)
            if isinstance(reply, hiredis.ReplyError) and is_failure(reply)
            else reply
            for reply in replies
        ]

    def close(self) -> None:
        """Close the idle connections; those in use close when they are given back."""
        self._closed = True
        self._drop_idle()

    # --- connections ----------------------------------------------------------------------------

    def _talk(self, conversation: Callable[[Line], Any]) -> Any:
        """Lend a connection to `conversation`, and tell the breaker how its last reply went."""
        if self._closed:
            raise closed()
        if not self.breaker.admits():
            raise not_asked(str(self.address))
        line = self._take()
        try:
            reply = conversation(line)
        except (OSError, hiredis.ProtocolError) as error:
            self._discard(line)
            self._drop_idle()  # they lead to the same place
            self.breaker.failed()
            why = reason(error, self._timeout)
            raise RedisUnavailable(
                f"redis at {self.address} gave no reply: {why}", outcome_unknown=True
            ) from error
        except BaseException:
            self._discard(line)  # interrupted: its reply may still come
            raise
        if isinstance(reply, hiredis.ReplyError) and is_failure(reply):
            self.breaker.failed()
            if calls_for_reconnect(reply):
                self._discard(line)
                self._drop_idle()
                return reply
        else:
            self.breaker.succeeded()
        self._give_back(line)
        return reply

    def _take(self) -> Line:
        try:
            line = self._free.get_nowait()
        except queue.Empty:
            line = self._place()
        if line is not None:
            if self._clock() - line.last_used < _IDLE_SECONDS or not line.is_stale():
                return line
            line.close()
        try:
            return Line(self._target, self.address, self._timeout)
        except (OSError, hiredis.ProtocolError) as error:
            self._free.put(None)
            self.breaker.failed(refused=is_refusal(error))
            why = reason(error, self._timeout)
            raise RedisUnavailable(f"redis at {self.address} cannot be reached: {why}") from error
        except BaseException as error:
            self._free.put(None)
            if isinstance(error, RedisUnavailable):
                self.breaker.failed()
            raise

    def _place(self) -> Line | None:
        """Return None for a place where a connection may be opened, or wait for either."""
        with self._lock:
            if self._places:
                self._places -= 1
                return None
        try:
            return self._free.get(timeout=self._timeout)
        except queue.Empty:
            busy = f"all {self._connections} connections to redis at {self.address} are in use"
            raise RedisUnavailable(busy) from None

    def _give_back(self, line: Line) -> None:
        if self._closed:
            self._discard(line)
        else:
            line.last_used = self._clock()
            self._free.put(line)

    def _discard(self, line: Line) -> None:
        line.close()
        self._free.put(None)

    def _drop_idle(self) -> None:
        for _ in range(self._free.qsize()):
            try:
                line = self._free.get_nowait()
            except queue.Empty:
                return
            if line is not None:
                line.close()
            self._free.put(None)
