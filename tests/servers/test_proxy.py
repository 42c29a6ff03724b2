"""The proxy does what it is told, to the exchange that it was told about, and nothing else."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest
import redis

from tests.servers import RedisAt
from tests.servers.proxy import Exchange, Fault, Proxy

SILENCE_SECONDS = 0.5


@pytest.fixture
def proxy(redis_url: str) -> Iterator[Proxy]:
    with Proxy(redis_url, seed=1) as proxy:
        yield proxy


def client(proxy: Proxy, timeout: float = 10) -> closing[redis.Redis]:
    """A client that does not try again: what happens on the way is what the test sees."""
    return closing(
        redis.Redis.from_url(
            proxy.url, retry=None, socket_timeout=timeout, decode_responses=True, protocol=2
        )
    )


def incremented(each: redis.Redis) -> str:
    try:
        return str(each.incr("n"))
    except redis.TimeoutError:
        return "silence"
    except redis.ConnectionError:
        return "cut"


def test_without_faults_everything_passes(proxy: Proxy):
    with client(proxy) as one, client(proxy) as other:
        big = "x" * 3_000_000
        one.set("key", big)
        assert other.get("key") == big
    assert not proxy.faults


@pytest.mark.parametrize(("cut", "seen"), [(False, "silence"), (True, "cut")])
def test_a_dropped_reply_leaves_the_work_done(
    proxy: Proxy, redis_server: RedisAt, cut: bool, seen: str
):
    with client(proxy, SILENCE_SECONDS) as each:
        proxy.drop_replies(2, containing=b"INCR", cut=cut)
        assert each.ping()
        assert [incremented(each) for _ in range(4)] == [seen, seen, "3", "4"]
    assert redis_server.run("GET", "n") == "4"
    assert [b"INCR" in exchange.request for exchange in proxy.faults] == [True, True]


@pytest.mark.parametrize(("cut", "seen"), [(False, "silence"), (True, "cut")])
def test_a_dropped_request_leaves_the_work_undone(proxy: Proxy, cut: bool, seen: str):
    with client(proxy, SILENCE_SECONDS) as each:
        proxy.drop_requests(containing=b"INCR", cut=cut)
        assert [incremented(each) for _ in range(2)] == [seen, "1"]


def test_a_reply_may_end_in_the_middle(proxy: Proxy):
    with client(proxy) as each:
        each.set("key", "0123456789")
        proxy.next(Fault(lost="reply", passed=8, cut=True), containing=b"GET")
        with pytest.raises(redis.ConnectionError):
            each.get("key")
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as connection:
        proxy.next(Fault(lost="reply", passed=8, cut=True))
        connection.sendall(b"ECHO 0123456789\r\n")
        assert connection.recv(100) == b"$10\r\n012"
        assert connection.recv(100) == b""


def test_a_delayed_reply_comes_late_and_whole(proxy: Proxy):
    with client(proxy) as each:
        each.ping()
        proxy.delay_replies(SILENCE_SECONDS)
        began = time.monotonic()
        assert incremented(each) == "1"
        assert time.monotonic() - began >= SILENCE_SECONDS
        proxy.heal()
        assert incremented(each) == "2"


@pytest.mark.parametrize("reset", [False, True])
def test_connections_are_cut(proxy: Proxy, reset: bool):
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as connection:
        connection.sendall(b"PING\r\n")
        assert connection.recv(100) == b"+PONG\r\n"
        assert proxy.cut(reset=reset) == 1
        if reset:
            with pytest.raises(ConnectionResetError):
                connection.recv(100)
        else:
            assert connection.recv(100) == b""
    with client(proxy) as each:
        assert incremented(each) == "1"


def test_connections_are_refused_until_they_are_accepted_again(proxy: Proxy):
    with client(proxy) as each:
        assert incremented(each) == "1"
        proxy.refuse()
        assert incremented(each) == "cut"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", proxy.port), timeout=10)
        proxy.accept()
        assert incremented(each) == "2"


def test_what_is_connected_to_a_server_that_is_down_is_cut():
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"redis://127.0.0.1:{nobody.getsockname()[1]}"
        with Proxy(url) as proxy, client(proxy) as each:
            assert incremented(each) == "cut"


def test_a_seed_decides_what_happens(redis_url: str):
    def course(seed: int) -> list[str]:
        with Proxy(redis_url, seed=seed) as proxy, client(proxy) as each:
            each.ping()
            proxy.sometimes(Fault(lost="reply", cut=True), probability=0.4)
            return ["cut" if incremented(each) == "cut" else "passed" for _ in range(30)]

    assert course(7) == course(7) != course(8)
    assert {"cut", "passed"} == set(course(7))


def test_a_rule_may_lose_the_reply_to_a_commit(database_url: str):
    def rule(exchange: Exchange) -> Fault | None:
        return Fault(lost="reply", cut=True) if b"COMMIT" in exchange.request else None

    with Proxy(database_url) as proxy, closing(psycopg.connect(proxy.url)) as connection:
        connection.execute("CREATE TABLE t (id int)")
        proxy.follow(rule)
        with pytest.raises(psycopg.OperationalError):
            connection.commit()
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (0,)
    assert [exchange.fault.cut for exchange in proxy.faults] == [True]
