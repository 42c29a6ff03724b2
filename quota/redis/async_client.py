"""Redis for event loops: one server. A Cluster is built on it in async_cluster.py."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from typing import Any

from quota.redis import wire
from quota.redis.async_node import AsyncNode
from quota.redis.breaker import Breaker, State
from quota.redis.errors import as_result, closed, is_unknown_script, result
from quota.redis.forks import start_anew_in_children
from quota.redis.script import Script
from quota.redis.target import Address, Target
from quota.redis.wire import Argument, Call


class Here:
    """What one event loop has open. It is closed with the client, or with the loop."""

    def __init__(self, forget: Callable[[], None]) -> None:
        self.nodes: dict[Address, AsyncNode] = {}
        self.refreshing: asyncio.Task[bool] | None = None
        self._forget = forget
        self._until_end = self._stay()
        self._is_entered = False

    async def enter(self) -> None:
        """Have this closed when the loop ends."""
        if not self._is_entered:
            self._is_entered = True
            await anext(self._until_end)

    async def close(self) -> None:
        """Close every connection, and return when they are closed."""
        await self._until_end.aclose()

    async def _stay(self) -> AsyncGenerator[None]:
        # `asyncio.run` closes the asynchronous generators of its loop before it closes the loop.
        # That is the one chance to close a connection without a warning or a word of the host's.
        try:
            yield
        finally:
            self._forget()
            if self.refreshing is not None:
                self.refreshing.cancel()
                await asyncio.wait([self.refreshing])
            await asyncio.gather(*(node.close() for node in self.nodes.values()))


class AsyncRedis:
    """Runs scripts on one Redis server. Concurrent calls are pipelined by themselves.

    Usable from any number of event loops, in any thread: each has its own connection.
    Every call takes at most a connect and a reply of `timeout_seconds` each, and is never repeated.
    """

    def __init__(self, target: Target, timeout_seconds: float, clock: Callable[[], float]) -> None:
        self._target = target
        self._timeout = timeout_seconds
        self._clock = clock
        self._breakers: dict[Address, Breaker] = {}
        self._loops: dict[asyncio.AbstractEventLoop, Here] = {}
        self._parents: list[Here] = []
        self._closed = False
        start_anew_in_children(self)

    def after_fork(self) -> None:
        """Start with no connection. The parent's are kept unused: to drop them is to close them."""
        self._parents += self._loops.values()
        self._loops = {}

    async def run(self, script: Script, key: bytes, args: Sequence[Argument]) -> Any:
        """Run a script on a key, in one command once Redis has cached it.

        Raises:
            RedisUnavailable: Redis gave no answer; see its `outcome_unknown`.
            ScriptFailed: the script is wrong.
        """
        reply = await self._ask(key, wire.evalsha(script, key, args))
        if is_unknown_script(reply):
            reply = await self._ask(key, wire.eval_body(script, key, args))
        return result(reply)

    async def run_many(self, script: Script, calls: Sequence[Call]) -> list[Any | Exception]:
        """Run a script on many keys, pipelined; each gets its reply, or the exception it met.

        Calls of one key run in their order, unless the script is not cached: those are repeated
        after the others.
        """
        if self._closed:
            return [closed()] * len(calls)
        replies = await self._ask_many(
            [(key, wire.evalsha(script, key, args)) for key, args in calls]
        )
        unknown = [index for index, reply in enumerate(replies) if is_unknown_script(reply)]
        if unknown:
            bodies = [(calls[index][0], wire.eval_body(script, *calls[index])) for index in unknown]
            for index, reply in zip(unknown, await self._ask_many(bodies), strict=True):
                replies[index] = reply
        return [as_result(reply) for reply in replies]

    async def command(self, *args: Argument) -> Any:
        """Send any one command. In a Cluster, a first argument in bytes is the key that routes it.

        Raises:
            RedisUnavailable: Redis gave no answer; see its `outcome_unknown`.
            ScriptFailed: Redis refused the command.
        """
        return result(await self._ask(wire.key_of(args), wire.command(*args)))

    @property
    def states(self) -> dict[str, State]:
        """The state of each server's circuit breaker, by address."""
        return {str(address): breaker.state for address, breaker in list(self._breakers.items())}

    async def close(self) -> None:
        """Close all connections. Later calls raise RedisUnavailable."""
        self._closed = True
        running = asyncio.get_running_loop()
        loops, self._loops = self._loops, {}
        for loop, here in loops.items():
            if loop is running:
                await here.close()
            elif loop.is_running():
                # Another thread's loop: it closes its own. Waiting for it could wait for ever.
                self._close_over_there(loop, here.close())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(str, self._target.addresses))})"

    # --- which server: a Cluster has another answer ----------------------------------------------

    async def _ask(self, key: bytes | None, packed: bytes) -> Any:  # noqa: ARG002 - a Cluster routes by it
        return await self._node(self._target.addresses[0]).ask(packed)

    async def _ask_many(self, calls: Sequence[tuple[bytes, bytes]]) -> list[Any]:
        node = self._node(self._target.addresses[0])
        return await node.ask_many([packed for _, packed in calls])

    def _node(self, address: Address) -> AsyncNode:
        here = self._here()
        node = here.nodes.get(address)
        if node is None:
            breaker = self._breakers.setdefault(address, Breaker(self._clock))
            node = AsyncNode(self._target, address, self._timeout, breaker, here.enter)
            here.nodes[address] = node
        return node

    def _here(self) -> Here:
        """Return what this event loop has open."""
        if self._closed:
            raise closed()
        loop = asyncio.get_running_loop()
        here = self._loops.get(loop)
        if here is None:
            for other in [one for one in list(self._loops) if one.is_closed()]:
                self._loops.pop(other, None)  # closed without `shutdown_asyncgens`
            here = self._loops[loop] = Here(lambda: self._forget(loop))
        return here

    def _forget(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loops.pop(loop, None)

    @staticmethod
    def _close_over_there(
        loop: asyncio.AbstractEventLoop, closing: Coroutine[Any, Any, None]
    ) -> None:
        try:
            asyncio.run_coroutine_threadsafe(closing, loop)
        except RuntimeError:  # it has ended meanwhile, and closed what it had open
            closing.close()
