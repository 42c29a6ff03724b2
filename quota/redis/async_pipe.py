"""One connection to Redis that many tasks share: implicit pipelining.

The calls that tasks make in one turn of the event loop go out in one write, or in a few where they
are many: Redis works on the first ones while the others are still being asked. Replies come in the
order of the calls, so each reply belongs to the oldest call that has none, whether somebody still
waits for it or not: a cancelled call, and one whose time is over, keep their place in the queue.

A connection on which a reply is overdue takes no new calls: those under way may still be answered,
and then it closes. So what follows a timeout never waits behind it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import islice
from typing import Any, Final, cast

import hiredis

from quota.redis import wire
from quota.redis.breaker import Breaker
from quota.redis.errors import RedisUnavailable, calls_for_reconnect, is_failure
from quota.redis.target import Address

# A reply so many timeouts overdue will not come: the connection hangs, and is closed.
_HUNG_AFTER: Final = 4
# Calls under way on one connection. More than these means that Redis does not keep up.
_MOST_WAITING: Final = 16_384
# So many calls are written before their turn ends. At 64 tasks this makes a call a third cheaper; 8 and 32 do the same.
_MOST_UNSENT: Final = 16


class Pipe(asyncio.Protocol):
    """Sends commands and gives each its own reply. Belongs to one event loop.

    `timeout_seconds` is what a reply may take, from the write that sends its command.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        address: Address,
        timeout_seconds: float,
        breaker: Breaker,
    ) -> None:
        self._loop = loop
        self._address = address
        self._timeout = timeout_seconds
        self._breaker = breaker
        self._reader = wire.reader()
        self._transport: asyncio.Transport | None = None
        self._why_closed: str | None = None
        self._retiring = False
        self._greeted = False
        # Calls are numbered from 1. Those after `_sent` are in `_unsent`, for the next write.
        self._waiting: deque[asyncio.Future[Any] | None] = deque()  # None: nobody wants that reply
        self._unsent: list[bytes] = []
        self._sent = 0
        self._answered = 0
        self._expired = 0
        self._writes: deque[tuple[float, int]] = deque()  # deadline of a write, its last call
        self._timer: asyncio.TimerHandle | None = None
        self.closed: asyncio.Future[None] = loop.create_future()

    @property
    def is_open(self) -> bool:
        """Whether new calls may use it."""
        return self._why_closed is None and not self._retiring

    @property
    def is_idle(self) -> bool:
        """Whether no reply is outstanding."""
        return not self._waiting

    def ask(self, packed: bytes, *, asking: bool = False) -> asyncio.Future[Any]:
        """Send one command with the next write; the future is its reply, an error reply included.

        `asking` sends ASKING before it, whose reply nobody sees. The future raises RedisUnavailable
        if no reply comes in time, or the connection is lost.
        """
        if not self.is_open:
            raise RedisUnavailable(f"redis at {self._address}: {self._why_closed or 'closing'}")
        if len(self._waiting) >= _MOST_WAITING:
            raise RedisUnavailable(f"{_MOST_WAITING} calls of redis at {self._address} are waiting")
        if not self._unsent:
            self._loop.call_soon(self._write)
        if asking:
            self._unsent.append(wire.ASKING)
            self._waiting.append(None)
        future: asyncio.Future[Any] = self._loop.create_future()
        self._unsent.append(packed)
        self._waiting.append(future)
        if len(self._unsent) >= _MOST_UNSENT:
            self._write()
        return future

    def begin(self) -> None:
        """Note that Redis has let us in: replies from now on say that it does its work."""
        self._greeted = True

    def retire(self) -> None:
        """Take no more calls, and close when those under way have their replies."""
        self._retiring = True
        if self.is_idle:
            self.abort("closed")

    def abort(self, why: str) -> None:
        """Close at once; calls under way fail."""
        self._fail_all(why)
        if self._transport is not None:
            self._transport.abort()
        elif not self.closed.done():
            self.closed.set_result(None)

    # --- what the event loop calls --------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note the way out."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail what is under way."""
        if not self.is_idle:
            self._breaker.failed()
        self._fail_all(f"the connection was lost ({exc or 'redis closed it'})")
        if not self.closed.done():
            self.closed.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Give every reply to the call that it belongs to."""
        reader = self._reader
        reader.feed(data)
        in_time = failed = False
        try:
            while (reply := reader.gets()) is not wire.NOTHING:
                if self._answered == self._sent:
                    self._misspoken("a reply that nobody asked for")
                    return
                future = self._waiting.popleft()
                self._answered += 1
                if isinstance(reply, hiredis.ReplyError) and is_failure(reply):
                    failed = True
                    self._retiring |= calls_for_reconnect(reply)
                elif self._answered > self._expired:
                    in_time = True
                if future is not None and not future.done():
                    future.set_result(reply)
        except hiredis.ProtocolError as error:
            self._misspoken(str(error))
            return
        if in_time:
            # One that takes logins and answers no call is still one that does not answer.
            if self._greeted:
                self._breaker.succeeded()
        elif failed:
            self._breaker.failed()
        if self._retiring and self.is_idle:
            self.abort("closed")

    # --- the write of a turn, and its deadline --------------------------------------------------

    def _write(self) -> None:
        unsent = self._unsent
        if self._transport is None or not unsent:
            return
        # The clock starts at the write: a loop that was busy with something else has cost nothing.
        deadline = self._loop.time() + self._timeout
        self._sent += len(unsent)
        self._writes.append((deadline, self._sent))
        if self._timer is None:
            self._timer = self._loop.call_at(deadline, self._expire)
        self._transport.write(b"".join(unsent))
        unsent.clear()

    def _expire(self) -> None:
        """Fail the calls whose time is over. One timer serves all: it moves from write to write."""
        self._timer = None
        writes = self._writes
        while writes and writes[0][1] <= self._answered:
            writes.popleft()
        if not writes:
            return
        now = self._loop.time()
        wake = hung = writes[0][0] + _HUNG_AFTER * self._timeout
        if now >= hung:
            self.abort("it hangs")
            return
        due = 0
        for deadline, last in writes:
            if deadline > now:
                wake = min(wake, deadline)
                break
            due = last
        if due > self._expired:
            self._breaker.failed()
            self._retiring = True
            begin = max(self._expired, self._answered) - self._answered
            overdue = islice(self._waiting, begin, due - self._answered)
            self._expired = due
            self._fail(list(overdue), f"nothing within {self._timeout:g} seconds", unknown=True)
        self._timer = self._loop.call_at(wake, self._expire)

    def _misspoken(self, what: str) -> None:
        self._breaker.failed()
        self.abort(f"it does not speak as redis does: {what}")

    def _fail_all(self, why: str) -> None:
        if self._why_closed is not None:
            return
        self._why_closed = why
        if self._timer is not None:
            self._timer.cancel()
        sent = self._sent - self._answered
        calls = list(self._waiting)
        self._waiting.clear()
        self._unsent.clear()
        self._fail(calls[:sent], why, unknown=True)
        self._fail(calls[sent:], why, unknown=False)

    def _fail(self, calls: list[asyncio.Future[Any] | None], why: str, *, unknown: bool) -> None:
        for future in calls:
            if future is not None and not future.done():
                message = f"redis at {self._address} gave no reply: {why}"
                future.set_exception(RedisUnavailable(message, outcome_unknown=unknown))
