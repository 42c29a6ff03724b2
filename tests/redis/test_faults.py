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

import pytest

from quota.redis import RedisUnavailable, Script, SyncRedis
from tests.redis.conftest import Connect
from tests.redis.shells import COUNT, ECHO, SHORT, Shell, opened
from tests.servers import Redis, RedisAt
from tests.servers.proxy import Fault, Proxy

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


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def proxy(redis_url: str) -> Iterator[Proxy]:
    with Proxy(redis_url) as one:
        yield one


def unavailable(client: Shell, *, unknown: bool, match: str | None = None) -> float:
    """Make a call that fails; the answer is how many seconds it took."""
    begin = time.monotonic()
    with pytest.raises(RedisUnavailable, match=match) as raised:
        client.run(COUNT, KEY)
    assert raised.value.outcome_unknown is unknown
    assert "\n" not in str(raised.value)
    return time.monotonic() - begin


# --- on the way ---------------------------------------------------------------------------------


def test_a_lost_reply_leaves_the_outcome_unknown_and_is_not_asked_for_again(
    connect: Connect, proxy: Proxy
):
    client = connect(proxy.url, SHORT)
    assert client.run(COUNT, KEY) == 1
    proxy.drop_replies()
    assert unavailable(client, unknown=True, match="nothing within 0.3 seconds") < GENEROUS
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
    proxy.next(Fault(delay_seconds=2 * SHORT))
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


def test_a_server_that_does_not_speak_as_redis_does_is_unavailable(connect: Connect):
    def answers(one: socket.socket) -> None:
        one.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        one.recv(1024)

    with a_server_that(answers) as port:
        client = connect(f"redis://127.0.0.1:{port}")
        unavailable(client, unknown=True)
        client.close()


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
    proxy.follow(lambda each: Fault(lost="reply") if b"{64}" in each.request else None)
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
    proxy.drop_replies(5)
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


def test_replies_that_all_come_too_late_open_it(connect: Connect, proxy: Proxy, clock: Clock):
    client = connect(proxy.url, 0.1, clock=clock)
    until(lambda: failure_of(client) is None)
    proxy.delay_replies(0.15)
    for _ in range(10):
        assert failure_of(client)
    assert client.states() == {"open"}
    proxy.heal()
    late = time.monotonic() + 0.5
    until(lambda: works_after_waiting(client, clock) and time.monotonic() > late)


def works_after_waiting(client: Shell, clock: Clock) -> bool:
    clock.pass_the_longest_wait()
    return failure_of(client) is None


def failure_of(client: Shell, script: Script = COUNT) -> RedisUnavailable | None:
    try:
        client.run(script, KEY)
    except RedisUnavailable as error:
        return error
    return None


# --- the server ---------------------------------------------------------------------------------


@pytest.fixture
def own_server() -> Iterator[Redis]:
    with Redis() as server:
        yield server


def test_a_server_that_hangs_costs_a_timeout_each_and_then_nothing(
    connect: Connect, own_server: Redis, clock: Clock
):
    client = connect(own_server.url, SHORT, clock=clock)
    assert client.run(COUNT, KEY) == 1
    own_server.pause()
    failures = 0
    while client.states() == {"closed"}:
        with pytest.raises(RedisUnavailable):
            client.run(COUNT, KEY)
        failures += 1
    assert failures == 5
    unavailable(client, unknown=False, match="not asked")
    own_server.resume()
    until(lambda: works_after_waiting(client, clock))
    # What it was asked while it hung may have been applied afterwards, but each once at most.
    assert client.run(COUNT, KEY) <= 1 + failures + 2 + 10


def test_a_server_that_is_killed_and_comes_back_is_used_again(
    connect: Connect, own_server: Redis, clock: Clock
):
    client = connect(own_server.url, clock=clock)
    for _ in range(3):
        assert client.run(COUNT, KEY) == 1
        own_server.kill()
        with pytest.raises(RedisUnavailable):
            client.run(COUNT, KEY)
        own_server.start()  # empty: scripts and keys are gone
        until(lambda: says_pong(client, clock))


def says_pong(client: Shell, clock: Clock) -> bool:
    clock.pass_the_longest_wait()
    try:
        return bool(client.command("PING") == b"PONG")
    except RedisUnavailable:
        return False


def test_a_restart_costs_one_call_at_most(connect: Connect, own_server: Redis, clock: Clock):
    client = connect(own_server.url, clock=clock)
    client.run(COUNT, KEY)
    if isinstance(client.client, SyncRedis):  # leave several connections idle
        node = client.client._first
        for line in [node._take() for _ in range(5)]:
            node._give_back(line)
    own_server.restart()
    failure = failure_of(client)
    assert failure is None or failure.outcome_unknown
    assert failure_of(client) is None
    assert client.states() == {"closed"}


def test_a_connection_that_was_closed_while_idle_costs_no_call(own_server: Redis, clock: Clock):
    """An event loop hears of it at once; a thread looks before it uses such a connection again."""
    client = opened("sync", own_server.url, clock=clock)
    client.run(COUNT, KEY)
    own_server.restart()
    clock.now += 1.5
    assert client.run(COUNT, KEY) == 1
    client.close()


def refuses_writes_without_replicas(server: RedisAt) -> None:
    server.run("CONFIG", "SET", "min-replicas-to-write", 1)


def is_full(server: RedisAt) -> None:
    server.run("CONFIG", "SET", "maxmemory", 1)


def is_a_replica(server: RedisAt) -> None:
    server.run("REPLICAOF", "127.0.0.1", 1)


def is_a_replica_without_its_primary(server: RedisAt) -> None:
    server.run("CONFIG", "SET", "replica-serve-stale-data", "no")
    server.run("REPLICAOF", "127.0.0.1", 1)


def lifted(server: RedisAt) -> None:
    server.run("REPLICAOF", "NO", "ONE")
    server.run("CONFIG", "SET", "min-replicas-to-write", 0)
    server.run("CONFIG", "SET", "replica-serve-stale-data", "yes")
    server.run("CONFIG", "SET", "maxmemory", 0)


@pytest.mark.parametrize(
    ("trouble", "code"),
    [
        (refuses_writes_without_replicas, "NOREPLICAS"),
        (is_full, "OOM"),
        (is_a_replica, "READONLY"),
        (is_a_replica_without_its_primary, "MASTERDOWN"),
    ],
)
def test_a_server_that_cannot_write_now_is_unavailable_and_has_applied_nothing(
    connect: Connect, own_server: Redis, clock: Clock, trouble: Callable[[RedisAt], None], code
):
    client = connect(own_server.url, clock=clock)
    client.run(COUNT, KEY)
    trouble(own_server)
    for _ in range(5):
        unavailable(client, unknown=False, match=code)
    assert client.states() == {"open"}
    lifted(own_server)
    clock.pass_the_longest_wait()
    assert client.run(COUNT, KEY) == 2


def test_after_readonly_the_next_call_goes_over_a_new_connection(
    connect: Connect, own_server: Redis
):
    """The name in the URL may point to the new primary by now; an open connection never will."""
    with Proxy(own_server.url) as proxy:
        client = connect(proxy.url)
        client.run(COUNT, KEY)
        is_a_replica(own_server)
        unavailable(client, unknown=False, match="READONLY")
        lifted(own_server)
        assert client.run(COUNT, KEY) == 2
        assert proxy.exchanges[-1].connection == 1
        client.close()


def test_a_server_that_is_busy_with_a_script_is_unavailable(
    connect: Connect, own_server: Redis, clock: Clock
):
    own_server.run("CONFIG", "SET", "busy-reply-threshold", 1)
    client = connect(own_server.url, clock=clock)
    client.run(COUNT, KEY)
    endless = connect(own_server.url)
    killed: list[RedisUnavailable | None] = []
    thread = threading.Thread(
        target=lambda: killed.append(failure_of(endless, Script.of("while true do end")))
    )
    thread.start()
    failures: list[RedisUnavailable] = []

    def is_busy() -> bool:
        if failure := failure_of(client):
            failures.append(failure)
        return bool(failures)

    until(is_busy)
    assert "BUSY" in str(failures[0])
    assert not failures[0].outcome_unknown
    own_server.run("SCRIPT", "KILL")
    thread.join()
    assert "SCRIPT KILL" in str(killed[0])
    until(lambda: works_after_waiting(client, clock))


def test_a_server_with_no_place_for_a_client_is_unavailable(
    connect: Connect, own_server: Redis, clock: Clock
):
    own_server.run("CONFIG", "SET", "maxclients", 1)
    first = connect(own_server.url)
    first.run(COUNT, KEY)
    second = connect(own_server.url, clock=clock)
    with pytest.raises(RedisUnavailable):
        second.run(COUNT, KEY)
    first.command("CONFIG", "SET", "maxclients", 100)
    until(lambda: works_after_waiting(second, clock))


def until(condition: Callable[[], bool]) -> None:
    """Try again until it is so, for some seconds."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
