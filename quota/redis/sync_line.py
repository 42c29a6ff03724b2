"""One socket to Redis: send a command, read its reply.

Own code and not redis-py's connection because that one is half of the round trip: what is left
here is one `send`, one `recv` and hiredis. Timeouts are the kernel's (SO_RCVTIMEO), which saves the
two `poll` calls that Python's own make.
"""

from __future__ import annotations

import queue
import socket
import ssl
import struct
import threading
from typing import Any, Final

import hiredis

from quota.clock import monotonic_seconds
from quota.redis import wire
from quota.redis.errors import refused_greeting
from quota.redis.target import Address, Target

_READ_BYTES: Final = 16 * 1024


class Line:
    """An open connection, greeted. One thread at a time uses it; after an error it is closed."""

    def __init__(self, target: Target, address: Address, timeout_seconds: float) -> None:
        """Connect and greet.

        Raises:
            OSError: nobody is there, or not within `timeout_seconds`.
            hiredis.ProtocolError: what is there is no Redis.
            RedisUnavailable: Redis refuses the login or the database.
        """
        self._timeout = timeout_seconds
        self._reader = wire.reader()
        self.last_used = monotonic_seconds()
        self._socket = _connected(target, address, timeout_seconds)
        try:
            self._greet(target, address)
        except BaseException:
            self._socket.close()
            raise

    def ask(self, packed: bytes) -> Any:
        """Send one command and return its reply, an error reply included.

        Raises:
            OSError: the connection is lost, or no reply came in time.
            hiredis.ProtocolError: what came is no reply of Redis.
        """
        self._socket.sendall(packed)
        return self.receive()

    def send(self, packed: bytes) -> None:
        """Send commands whose replies `receive` then returns, one by one."""
        self._socket.sendall(packed)

    def receive(self) -> Any:
        """Return the next reply; see `ask`."""
        reader = self._reader
        reply = reader.gets()
        deadline = 0.0
        while reply is wire.NOTHING:
            data = self._socket.recv(_READ_BYTES)
            if not data:
                raise ConnectionResetError("redis closed the connection")
            reader.feed(data)
            reply = reader.gets()
            if reply is wire.NOTHING:
                # The kernel times one read; a reply that trickles in has to end too.
                now = monotonic_seconds()
                deadline = deadline or now + self._timeout
                if now > deadline:
                    raise TimeoutError("redis did not finish its reply")
        return reply

    def is_stale(self) -> bool:
        """Whether the other side has closed an idle connection, or has said what nobody asked."""
        self._socket.settimeout(0)
        try:
            # TLS has no peek; a byte read here would be out of place anyway.
            self._socket.recv(1, 0 if isinstance(self._socket, ssl.SSLSocket) else socket.MSG_PEEK)
        except (BlockingIOError, ssl.SSLWantReadError):
            _limit(self._socket, self._timeout)
            return False
        except OSError:
            return True
        return True

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _greet(self, target: Target, address: Address) -> None:
        greetings = target.greetings()
        self.send(b"".join(wire.command(*greeting) for greeting in greetings))
        for name, *_ in greetings:
            reply = self.receive()
            if isinstance(reply, hiredis.ReplyError):
                raise refused_greeting(str(address), str(name), reply)


def _connected(target: Target, address: Address, timeout_seconds: float) -> socket.socket:
    if address.is_unix:
        one = socket.socket(socket.AF_UNIX)
        one.settimeout(timeout_seconds)
        try:
            one.connect(address.host)
        except BaseException:
            one.close()
            raise
    else:
        one = _first_that_answers(address, timeout_seconds)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if target.tls:
        # On failure, `wrap_socket` closes what it was given.
        one = target.tls.wrap_socket(one, server_hostname=address.host)
    _limit(one, timeout_seconds)
    return one


def _first_that_answers(address: Address, timeout_seconds: float) -> socket.socket:
    *others, last = _resolved(address, timeout_seconds)
    for host in others:
        try:
            return socket.create_connection((host, address.port), timeout_seconds)
        except TimeoutError:
            raise  # there is no time left for the others
        except OSError:
            continue  # `localhost` is ::1 too, where few servers listen, or which the machine does not have
    return socket.create_connection((last, address.port), timeout_seconds)


def _limit(one: socket.socket, timeout_seconds: float) -> None:
    """Limit each read and write."""
    if type(one).__module__ != "socket":
        # OpenSSL would retry a read that the kernel gave up, and gevent's sockets never block.
        one.settimeout(timeout_seconds)
        return
    one.settimeout(None)
    micros = round(timeout_seconds * 1_000_000)
    limit = struct.pack("@ll", *divmod(micros, 1_000_000))
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)


def _resolved(address: Address, timeout_seconds: float) -> list[str]:
    """Return the addresses of a host name, within the timeout: the resolver's own is seconds."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, address.host)
        except OSError:
            continue
        return [address.host]
    found: queue.SimpleQueue[list[str] | OSError] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            places = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
            found.put([str(place[4][0]) for place in places])
        except OSError as error:
            found.put(error)

    threading.Thread(target=look_up, daemon=True, name="comptroller-resolve").start()
    try:
        answer = found.get(timeout=timeout_seconds)
    except queue.Empty:
        raise TimeoutError(f"the name `{address.host}` was not resolved in time") from None
    if isinstance(answer, OSError):
        raise answer
    return answer
