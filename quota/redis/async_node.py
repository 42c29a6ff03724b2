"""One Redis server, for the tasks of one event loop: a connection opened when it is first needed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import hiredis

from quota.redis import wire
from quota.redis.async_pipe import Pipe
from quota.redis.breaker import Breaker
from quota.redis.errors import (
    RedisUnavailable,
    as_exception,
    closed,
    is_failure,
    is_refusal,
    not_asked,
    reason,
    refused_greeting,
)
from quota.redis.target import Address, Target

# Calls of one `ask_many` that are under way together: more would time out behind each other.
_AT_A_TIME: Final = 64


class AsyncNode:
    """Sends commands to one server and returns raw replies. Belongs to one event loop.

    `before_opening` is awaited before each connect. `timeout_seconds` bounds a connect and a reply.
    """

    def __init__(
        self,
        target: Target,
        address: Address,
        timeout_seconds: float,
        breaker: Breaker,
        before_opening: Callable[[], Awaitable[None]],
    ) -> None:
        self.address = address
        self._target = target
        self._timeout = timeout_seconds
        self._breaker = breaker
        self._before_opening = before_opening
        self._loop = asyncio.get_running_loop()
        self._pipe: Pipe | None = None  # the one for new calls
        self._pipes: set[Pipe] = set()  # and those that wait for a last reply
        self._opening: asyncio.Task[Pipe | RedisUnavailable] | None = None
        self._closed = False

    async def ask(self, packed: bytes, *, asking: bool = False) -> Any:
        """Send one command and return its reply, an error reply that is no failure included.

        Raises:
            RedisUnavailable: no answer, or one by which Redis says that it cannot serve us now.
        """
        if not self._breaker.admits():
            raise not_asked(str(self.address))
        pipe = self._pipe
        if pipe is None or not pipe.is_open:
            pipe = await self._opened()
        reply = await pipe.ask(packed, asking=asking)
        if isinstance(reply, hiredis.ReplyError) and is_failure(reply):
            raise as_exception(reply)
        return reply

    async def ask_many(self, packed: Sequence[bytes]) -> list[Any]:
        """Send many commands. Each gets its raw reply, or the RedisUnavailable it met."""
        replies: list[Any] = []
        for start in range(0, len(packed), _AT_A_TIME):
            some = packed[start : start + _AT_A_TIME]
            replies += await asyncio.gather(*map(self._met, some))
        return replies

    async def _met(self, packed: bytes) -> Any:
        try:
            return await self.ask(packed)
        except RedisUnavailable as error:
            return error

    async def close(self) -> None:
        """Close the connection, and return when it is closed. Later calls raise RedisUnavailable."""
        self._closed = True
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait([self._opening])
        for pipe in list(self._pipes):
            pipe.abort("this client is closed")
            await pipe.closed

    def retire(self) -> None:
        """Close the connection when the calls under way have their replies."""
        if self._pipe is not None:
            self._pipe.retire()

    # --- the connection -------------------------------------------------------------------------

    async def _opened(self) -> Pipe:
        """Return a connection that one task opens for all that need it."""
        if self._closed:
            raise closed()
        if self._opening is None:
            self._opening = self._loop.create_task(self._open())
            self._opening.add_done_callback(self._note_opened)
        opening = self._opening
        try:
            # Shielded: when one of them is cancelled, the others still want the connection.
            pipe = await asyncio.shield(opening)
        except asyncio.CancelledError:
            if opening.cancelled():
                raise closed() from None
            raise
        if isinstance(pipe, RedisUnavailable):
            raise RedisUnavailable(str(pipe))
        return pipe

    def _note_opened(self, opening: asyncio.Task[Pipe | RedisUnavailable]) -> None:
        self._opening = None
        if not opening.cancelled() and isinstance(pipe := opening.result(), Pipe):
            self._pipe = pipe
            self._pipes.add(pipe)
            pipe.closed.add_done_callback(lambda _: self._pipes.discard(pipe))

    async def _open(self) -> Pipe | RedisUnavailable:
        await self._before_opening()
        pipe = Pipe(self._loop, self.address, self._timeout, self._breaker)
        try:
            async with asyncio.timeout(self._timeout):
                await self._connect(pipe)
                await self._greet(pipe)
        except OSError as error:
            pipe.abort("not opened")
            self._breaker.failed(refused=is_refusal(error))
            why = reason(error, self._timeout)
            return RedisUnavailable(f"redis at {self.address} cannot be reached: {why}")
        except RedisUnavailable as error:
            pipe.abort("not opened")
            self._breaker.failed()
            return error
        except BaseException:
            pipe.abort("not opened")
            raise
        return pipe

    async def _connect(self, pipe: Pipe) -> None:
        if self.address.is_unix:
            await self._loop.create_unix_connection(lambda: pipe, self.address.host)
        else:
            tls = self._target.tls
            await self._loop.create_connection(
                lambda: pipe,
                self.address.host,
                self.address.port,
                ssl=tls,
                server_hostname=self.address.host if tls else None,
            )

    async def _greet(self, pipe: Pipe) -> None:
        for greeting in self._target.greetings():
            reply = await pipe.ask(wire.command(*greeting))
            if isinstance(reply, hiredis.ReplyError):
                raise refused_greeting(str(self.address), str(greeting[0]), reply)
        pipe.begin()
