"""Whatever happens on the way or to the server: an answer of one's own, or RedisUnavailable in time.

Each test runs with both shells. Nothing is ever executed twice.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from quota.redis import RedisUnavailable
from tests.redis.conftest import Connect
from tests.redis.shells import COUNT, ECHO, SHORT
from tests.redis.trouble import (
    GENEROUS,
    KEY,
    Clock,
    failure_of,
    unavailable,
    until,
    works_after_waiting,
)
from tests.servers import RedisAt
from tests.servers.proxy import Exchange, Fault, Proxy


@pytest.fixture
def proxy(redis_url: str) -> Iterator[Proxy]:
    with Proxy(redis_url) as one:
        yield one


# --- on the way ---------------------------------------------------------------------------------


def test_a_lost_reply_leaves_the_outcome_unknown_and_is_not_asked_for_again(
    connect: Connect, proxy: Proxy
):
    client = connect(proxy.url, SHORT)
    assert client.run(COUNT, KEY) == 1
    proxy.drop_replies()
    assert unavailable(client, unknown=True, match="nothing within 0.5 seconds") < GENEROUS
    # It was counted, once: a client that retries would have counted it again.
    assert client.run(COUNT, KEY) == 3


def test_a_lost_request_leaves_the_outcome_unknown_too(connect: Connect, proxy: Proxy):
    client = connect(proxy.url, SHORT)
    assert client.run(COUNT, KEY) == 1
    proxy.drop_requests()
    unavailable(client, unknown=True)
    proxy.cut()  # the silent connection of an async client, which is not yet given up
    with contextlib.suppress(RedisUnavailable):
        assert client.run(COUNT, KEY) == 2
    assert client.run(COUNT, KEY) in {2, 3}


@pytest.mark.parametrize("lost", ["request", "reply"])
def test_a_connection_cut_in_the_middle_leaves_the_outcome_unknown(
    connect: Connect, proxy: Proxy, lost
):
    client = connect(proxy.url)
    assert client.run(COUNT, KEY) == 1
    proxy.next(Fault(lost=lost, cut=True))
    unavailable(client, unknown=True, match="no reply")
    assert client.run(COUNT, KEY) == (2 if lost == "request" else 3)


def test_half_a_reply_is_no_reply(connect: Connect, proxy: Proxy):
    client = connect(proxy.url, SHORT)
    client.run(ECHO, KEY, ["x" * 100])
    proxy.next(Fault(lost="reply", passed=40))
    with pytest.raises(RedisUnavailable) as raised:
        client.run(ECHO, KEY, ["x" * 100])
    assert raised.value.outcome_unknown


def test_a_late_reply_is_nobody_elses(connect: Connect, proxy: Proxy):
    client = connect(proxy.url, SHORT)
    client.run(ECHO, KEY)
    late = time.monotonic() + 3 * SHORT
    proxy.next(Fault(delay_seconds=2 * SHORT))  # a reply that is there when we look is in time
    with pytest.raises(RedisUnavailable):
        client.run(ECHO, KEY, ["late"])
    answered = 0
    while time.monotonic() < late or answered < 20:
        with contextlib.suppress(RedisUnavailable):
            assert client.run(ECHO, KEY, [answered]) == [KEY, str(answered).encode()]
            answered += 1


def test_a_connection_that_hangs_is_given_up_for_a_new_one(
    connect: Connect, proxy: Proxy, clock: Clock
):
    client = connect(proxy.url, SHORT, clock=clock)
    assert client.run(COUNT, KEY) == 1
    connection = proxy.exchanges[-1].connection
    proxy.follow(lambda each: Fault(lost="reply") if each.connection == connection else None)

    def works() -> bool:
        clock.pass_the_longest_wait()
        return failure_of(client) is None

    until(works)
    assert proxy.exchanges[-1].connection > connection


@contextlib.contextmanager
def a_server_that(answers: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server that treats its one client as it likes; the context is its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with listener.accept()[0] as one, contextlib.suppress(OSError):
                one.recv(1024)
                answers(one)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


@pytest.mark.parametrize("login", ["", ":password@"])
def test_a_server_that_does_not_speak_as_redis_does_is_unavailable(connect: Connect, login):
    def answers(one: socket.socket) -> None:
        one.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        one.recv(1024)

    with a_server_that(answers) as port:
        client = connect(f"redis://{login}127.0.0.1:{port}")
        unavailable(client, unknown=not login)
        client.close()


def test_a_name_with_several_addresses_is_tried_at_each(
    connect: Connect, redis_url: str, monkeypatch: pytest.MonkeyPatch
):
    """As `localhost` where there is no IPv6: its first address cannot even be asked."""
    where, resolved = urlsplit(redis_url), socket.getaddrinfo

    def two(host: str, *more: object, **named: object) -> list[Any]:
        places = ("255.255.255.255", "127.0.0.1") if host == "two.test" else (host,)
        return [each for place in places for each in resolved(place, *more, **named)]  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", two)
    client = connect(f"redis://two.test:{where.port}{where.path}")
    assert client.run(COUNT, KEY) == 1


def test_a_reply_that_trickles_in_is_late_all_the_same(connect: Connect):
    def answers(one: socket.socket) -> None:
        one.sendall(b"+")
        one.settimeout(SHORT / 10)
        while True:  # until the client hangs up
            one.sendall(b"x")
            with contextlib.suppress(TimeoutError):
                if not one.recv(1024):
                    return

    with a_server_that(answers) as port:
        client = connect(f"redis://127.0.0.1:{port}", SHORT)
        assert unavailable(client, unknown=True) < GENEROUS
        client.close()


def test_a_server_that_repeats_the_password_in_its_error_is_not_quoted(connect: Connect):
    def answers(one: socket.socket) -> None:
        one.sendall(b"-ERR unknown command `AUTH`, with args beginning with: `secret`\r\n")
        one.recv(1024)

    with a_server_that(answers) as port:
        client = connect(f"redis://:secret@127.0.0.1:{port}")
        error = failure_of(client)
        assert error
        assert "AUTH" in str(error)
        assert "secret" not in "".join(traceback.format_exception(error))
        client.close()


def test_a_name_that_nobody_knows_is_unavailable(connect: Connect):
    client = connect("redis://redis.invalid")
    unavailable(client, unknown=False, match="cannot be reached")


def test_many_calls_say_each_whether_it_may_have_been_applied(connect: Connect, proxy: Proxy):
    client = connect(proxy.url, SHORT)
    client.run(COUNT, KEY)
    # The first pipeline arrives, and of the second no reply comes. A sync client stops there, an
    # async one sends the third on another connection.
    silent: set[int] = set()

    def nothing_more(each: Exchange) -> Fault | None:
        if b"{64}" in each.request:
            silent.add(each.connection)
        return Fault(lost="reply") if each.connection in silent else None

    proxy.follow(nothing_more)
    replies = client.run_many(COUNT, [(b"{%d}" % number, []) for number in range(160)])
    assert replies[:64] == [1] * 64
    lost = [each for each in replies if isinstance(each, RedisUnavailable)]
    assert replies[64:128] == lost[:64]
    assert [each.outcome_unknown for each in lost] == [True] * 64 + [False] * (len(lost) - 64)


# --- the breaker --------------------------------------------------------------------------------


def test_where_nobody_listens_one_call_opens_the_breaker(
    connect: Connect, proxy: Proxy, clock: Clock
):
    client = connect(proxy.url, clock=clock)
    client.run(COUNT, KEY)
    proxy.refuse()
    with contextlib.suppress(RedisUnavailable):  # a connection that was open may notice first
        client.run(COUNT, KEY)
    with contextlib.suppress(RedisUnavailable):
        client.run(COUNT, KEY)
    assert client.states() == {"open"}
    unavailable(client, unknown=False, match="was away a moment ago")


def test_an_open_breaker_touches_no_network_and_then_lets_one_probe_through(
    connect: Connect, proxy: Proxy, clock: Clock
):
    client = connect(proxy.url, SHORT, clock=clock)
    client.run(COUNT, KEY)
    proxy.drop_replies(5, containing=b"EVALSHA")  # not of the handshake: SELECT
    for _ in range(5):
        assert client.states() == {"closed"}
        unavailable(client, unknown=True)
    assert client.states() == {"open"}
    exchanges = len(proxy.exchanges)
    for _ in range(100):
        unavailable(client, unknown=False, match="not asked")
    assert len(proxy.exchanges) == exchanges
    clock.pass_the_longest_wait()
    assert client.states() == {"half-open"}
    until(lambda: works_after_waiting(client, clock))
    assert client.states() == {"closed"}


def test_a_server_that_lets_in_and_then_says_nothing_opens_it_all_the_same(
    connect: Connect, lone_redis: RedisAt, clock: Clock
):
    with Proxy(f"{lone_redis.url}/1") as proxy:  # a SELECT goes first, and is answered
        client = connect(proxy.url, SHORT, clock=clock)
        client.run(COUNT, KEY)
        proxy.drop_replies(6, containing=b"EVALSHA")
        for _ in range(5):
            assert client.states() == {"closed"}
            unavailable(client, unknown=True)
        assert client.states() == {"open"}
        clock.pass_the_longest_wait()
        unavailable(client, unknown=True)
        assert client.states() == {"open"}
        until(lambda: works_after_waiting(client, clock))


def test_replies_that_all_come_too_late_open_it(connect: Connect, proxy: Proxy, clock: Clock):
    client = connect(proxy.url, 0.1, clock=clock)
    until(lambda: works_after_waiting(client, clock))
    # So late that a client which the machine has kept waiting meanwhile does not find both at once.
    proxy.delay_replies(10 * 0.1)
    for _ in range(10):
        assert failure_of(client)
    assert client.states() == {"open"}
    proxy.heal()
    late = time.monotonic() + 12 * 0.1
    until(lambda: works_after_waiting(client, clock) and time.monotonic() > late)
