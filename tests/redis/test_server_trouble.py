"""Servers that hang, die, come back, or cannot do what they are asked. Each test with both shells."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from quota.redis import RedisUnavailable, Script, SyncRedis
from tests.redis.conftest import Connect
from tests.redis.shells import COUNT, SHORT, Shell, opened
from tests.redis.trouble import KEY, Clock, failure_of, unavailable, until, works_after_waiting
from tests.servers import Redis, RedisAt
from tests.servers.proxy import Proxy


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


def cannot_save(server: RedisAt) -> None:
    server.run("CONFIG", "SET", "save", "3600 1")
    (Path(server.run("CONFIG", "GET", "dir")["dir"]) / "dump.rdb").mkdir()
    server.run("BGSAVE")
    until(lambda: server.run("INFO", "persistence")["rdb_last_bgsave_status"] == "err")


def lifted(server: RedisAt) -> None:
    server.run("CONFIG", "SET", "save", "")
    server.run("REPLICAOF", "NO", "ONE")
    server.run("CONFIG", "SET", "min-replicas-to-write", 0)
    server.run("CONFIG", "SET", "replica-serve-stale-data", "yes")
    server.run("CONFIG", "SET", "maxmemory", 0)


@pytest.mark.parametrize(
    ("trouble", "code"),
    [
        (refuses_writes_without_replicas, "NOREPLICAS"),
        (is_full, "OOM"),
        (cannot_save, "MISCONF"),
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
