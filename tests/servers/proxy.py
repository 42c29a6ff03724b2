"""A TCP proxy that loses what it is told to lose: the network between an engine and its server.

It counts exchanges. An exchange is what a client sends until an answer comes, and that answer, so
that "the third reply is lost" means the same however TCP cuts the bytes. A rule looks at each
exchange as it begins and may name a fault. Rules draw from a random source of the connection's
own, seeded by the proxy's seed and the connection's number: one seed, one course of events.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Self, TypeVar
from urllib.parse import urlsplit, urlunsplit

T = TypeVar("T")

PORTS: Final = {"postgresql": 5432, "redis": 6379}
CHUNK: Final = 65536
TIMEOUT_SECONDS: Final = 20


@dataclass(frozen=True)
class Fault:
    """What happens to one exchange.

    `lost` swallows the request, so that the server never sees it, or the reply, after its first
    `passed` bytes. `cut` closes the connection there; otherwise it stays open, and silent.
    """

    lost: Literal["nothing", "request", "reply"] = "nothing"
    delay_seconds: float = 0
    cut: bool = False
    passed: int = 0


@dataclass
class Exchange:
    """One request and its reply, as far as the proxy has seen them. Both numbers count from 0."""

    connection: int
    number: int
    request: bytes  # as far as it came in one piece
    random: random.Random = field(repr=False, compare=False)
    fault: Fault = Fault()
    replied: int = 0  # bytes that came from the server


Rule = Callable[[Exchange], Fault | None]


class _Connection:
    """A client's connection and ours to the server, in the proxy's loop."""

    def __init__(self, proxy: Proxy, number: int) -> None:
        self.proxy, self.number = proxy, number
        self.random = random.Random(f"{proxy.seed}/{number}")
        self.exchange: Exchange | None = None
        self.count = 0
        self.closed = asyncio.Event()
        self.reset = False

    async def run(self, client: socket.socket) -> None:
        client_reader, client_writer = await asyncio.open_connection(sock=client)
        try:
            server_reader, server_writer = await asyncio.open_connection(*self.proxy.target)
        except OSError:  # what stands behind is down: so is the way to it
            client_writer.close()
            return
        pumps = [
            asyncio.create_task(self._pump(client_reader, server_writer, self._request)),
            asyncio.create_task(self._pump(server_reader, client_writer, self._reply)),
            asyncio.create_task(self.closed.wait()),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            if self.reset:
                linger = struct.pack("ii", 1, 0)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            for writer in (client_writer, server_writer):
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()

    async def _pump(
        self,
        source: asyncio.StreamReader,
        target: asyncio.StreamWriter,
        passed: Callable[[bytes], Coroutine[Any, Any, bytes]],
    ) -> None:
        with contextlib.suppress(OSError):
            # Before Python 3.12 `wait_for` loses a cancellation that comes as its own wait ends.
            while not self.closed.is_set() and (data := await source.read(CHUNK)):
                if data := await passed(data):
                    target.write(data)
                    await target.drain()
                if self.exchange and self._is_cut(self.exchange):
                    return

    def _is_cut(self, exchange: Exchange) -> bool:
        fault = exchange.fault
        return fault.cut and (fault.lost == "request" or exchange.replied > fault.passed)

    async def _request(self, data: bytes) -> bytes:
        if self.exchange is None or self.exchange.replied:
            self.exchange = Exchange(self.number, self.count, data, self.random)
            self.count += 1
            self.exchange.fault = self.proxy.rule(self.exchange) or Fault()
            self.proxy.exchanges.append(self.exchange)
        if self.exchange.fault.lost == "request":
            return b""
        return data

    async def _reply(self, data: bytes) -> bytes:
        exchange = self.exchange
        if exchange is None:  # a server that speaks first
            return data
        fault, before = exchange.fault, exchange.replied
        exchange.replied += len(data)
        if fault.delay_seconds and not before:
            # Not for longer than the connection lives.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.closed.wait(), fault.delay_seconds)
        if fault.lost == "reply":
            return data[: max(0, fault.passed - before)]
        return data


class Proxy:
    """A way to the server at `url` on which faults happen; `url` of the proxy leads through it.

    `with Proxy(redis_url, seed=7) as proxy: ...`. What a method orders is in force when it returns.
    """

    def __init__(self, url: str, *, seed: int = 0) -> None:
        self._url = urlsplit(url)
        port = self._url.port or PORTS[self._url.scheme]
        self.target = (self._url.hostname or "127.0.0.1", port)
        self.seed = seed
        self.rule: Rule = lambda exchange: None
        self.exchanges: list[Exchange] = []
        self.port = 0
        self._listener: socket.socket | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._accepting: asyncio.Task[None] | None = None
        self._connections: dict[_Connection, asyncio.Task[None]] = {}
        self._number = 0

    @property
    def url(self) -> str:
        """The URL of the server, through the proxy."""
        user, at, _ = self._url.netloc.rpartition("@")
        return urlunsplit(self._url._replace(netloc=f"{user}{at}127.0.0.1:{self.port}"))

    @property
    def faults(self) -> list[Exchange]:
        """The exchanges to which something happened."""
        return [exchange for exchange in self.exchanges if exchange.fault != Fault()]

    # --- faults of exchanges ------------------------------------------------------------------

    def follow(self, rule: Rule) -> None:
        """Ask this rule about each exchange from now on."""
        self._in_loop(self._follow(rule))

    def heal(self) -> None:
        """From now on nothing happens to any exchange. Connections that are silent stay so."""
        self.follow(lambda exchange: None)

    def next(self, fault: Fault, count: int = 1, containing: bytes = b"") -> None:
        """Let it happen to the next so many exchanges whose request contains these bytes."""
        left = count

        def rule(exchange: Exchange) -> Fault | None:
            nonlocal left
            if not left or containing not in exchange.request:
                return None
            left -= 1
            return fault

        self.follow(rule)

    def sometimes(self, fault: Fault, probability: float) -> None:
        """Let it happen to exchanges as chance will have it: the seed's."""
        self.follow(lambda each: fault if each.random.random() < probability else None)

    def delay_replies(self, seconds: float) -> None:
        self.follow(lambda exchange: Fault(delay_seconds=seconds))

    def drop_replies(self, count: int = 1, *, containing: bytes = b"", cut: bool = False) -> None:
        """Swallow the next so many replies; the server has done what it was asked."""
        self.next(Fault(lost="reply", cut=cut), count, containing)

    def drop_requests(self, count: int = 1, *, containing: bytes = b"", cut: bool = False) -> None:
        """Swallow the next so many requests; the server never hears of them."""
        self.next(Fault(lost="request", cut=cut), count, containing)

    # --- faults of the way --------------------------------------------------------------------

    def cut(self, *, reset: bool = False) -> int:
        """Close all connections, with a reset instead of an end where asked; the answer is how many."""
        return self._in_loop(self._cut(reset=reset))

    def refuse(self) -> None:
        """Close all connections and refuse new ones."""
        self._in_loop(self._refuse())

    def accept(self) -> None:
        """Accept connections again."""
        self._in_loop(self._accept())

    # --- its life -----------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._thread.start()
        self.accept()
        return self

    def __exit__(self, *raised: object) -> None:
        self._in_loop(self._refuse())
        if self._listener:
            self._listener.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(TIMEOUT_SECONDS)
        self._loop.close()

    def _in_loop(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(TIMEOUT_SECONDS)

    async def _follow(self, rule: Rule) -> None:
        self.rule = rule

    async def _cut(self, *, reset: bool) -> int:
        connections = dict(self._connections)
        for connection in connections:
            connection.reset = reset
            connection.closed.set()
        await asyncio.gather(*connections.values(), return_exceptions=True)
        return len(connections)

    def _bound(self) -> socket.socket:
        """A socket that holds the port. Until it listens, the kernel refuses who connects."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.setblocking(False)
        self.port = listener.getsockname()[1]
        return listener

    async def _refuse(self) -> None:
        if self._accepting and self._listener:
            self._accepting.cancel()
            await asyncio.gather(self._accepting, return_exceptions=True)
            self._accepting = None
            self._listener.close()
            self._listener = self._bound()
        await self._cut(reset=False)

    async def _accept(self) -> None:
        if self._accepting is None:
            self._listener = self._listener or self._bound()
            self._listener.listen(128)
            self._accepting = asyncio.create_task(self._serve(self._listener))

    async def _serve(self, listener: socket.socket) -> None:
        while True:
            client, _ = await self._loop.sock_accept(listener)
            connection = _Connection(self, self._number)
            self._number += 1
            task = asyncio.create_task(connection.run(client))
            self._connections[connection] = task
            task.add_done_callback(functools.partial(self._forget, connection))

    def _forget(self, connection: _Connection, _: asyncio.Task[None]) -> None:
        del self._connections[connection]
