"""A real Cluster that loses nodes: callers are told, and find the new primary."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Self

import pytest
from redis.crc import key_slot

from quota.redis import RedisUnavailable, open_async, open_sync
from tests.redis.conftest import Connect
from tests.redis.counting import KEYS, calls_of, reset_statistics
from tests.redis.shells import COUNT, ECHO, Shell, a_turn
from tests.redis.trouble import Clock, until
from tests.servers import Cluster, ClusterAt


@pytest.fixture
def replicated() -> Iterator[Cluster]:
    """A cluster of the test's own: one node must not be elected twice, see `Cluster`."""
    with Cluster(replicas=1) as cluster:
        yield cluster


def keys_of(cluster: ClusterAt, port: int) -> list[bytes]:
    return [key for key in KEYS if cluster.primary_of(key_slot(key)) == port]


def test_a_failover_in_the_middle_of_load_is_followed(connect: Connect, replicated: Cluster):
    replicated.wait_until_whole()
    clock = Clock()
    client = connect(replicated.url, 1.0, clock=clock)
    for key in KEYS:
        client.run(COUNT, key)
    old = replicated.primary_of(key_slot(KEYS[0]))
    lost, kept = keys_of(replicated, old), KEYS
    new = replicated.fail_over(key_slot(KEYS[0]))
    assert new != old
    # The old primary is there, as a replica, and sends us to the new one: no call fails.
    assert all(client.run(COUNT, key) >= 1 for key in kept)
    reset_statistics(replicated)
    assert all(client.run(COUNT, key) for key in lost)
    assert sum(calls_of(replicated, "evalsha").values()) == len(lost)


def test_a_killed_primary_costs_its_own_keys_alone_until_its_replica_takes_over(
    connect: Connect, replicated: Cluster
):
    replicated.wait_until_whole()
    replicated.flush()
    clock = Clock()
    client = connect(replicated.url, 1.0, clock=clock)
    slot = key_slot(KEYS[0])
    lost = keys_of(replicated, replicated.primary_of(slot))
    kept = [key for key in KEYS if key not in lost]
    for key in KEYS:
        client.run(COUNT, key)
    killed = replicated.kill_primary(slot)
    for key in lost:
        with pytest.raises(RedisUnavailable):
            client.run(COUNT, key)
    assert "open" in client.states()
    served = [key for key in kept if works(client, key)]
    assert served or not kept  # unless the whole cluster is down until the failover
    replicated.wait_until_whole()

    def all_work() -> bool:
        clock.now += 1  # the map may be asked for again, and breakers may let a probe through
        return sum(works(client, key) for key in KEYS) == len(KEYS)

    until(all_work)
    killed.start()
    replicated.wait_until_whole()
    assert all_work()


class Load:
    """Callers that never stop: threads, or tasks. Each checks that its replies are its own."""

    def __init__(self, kind: str, url: str) -> None:
        self.url = url
        self.outcomes: Counter[str] = Counter()
        self.wrong: list[object] = []
        self._over = threading.Event()
        self._sync = open_sync(url, timeout_seconds=0.5)
        targets = [self._in_tasks] if kind == "async" else [self._in_a_thread] * 4
        self._threads = [threading.Thread(target=target) for target in targets]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        self._sync.close()

    def wait_for(self, outcome: str, more: int) -> None:
        wanted = self.outcomes[outcome] + more
        until(lambda: self.outcomes[outcome] >= wanted)

    def _in_a_thread(self) -> None:
        turn = 0
        while not self._over.is_set():
            key, text, turn = KEYS[turn % len(KEYS)], f"{threading.get_ident()}/{turn}", turn + 1
            try:
                self._check(self._sync.run(ECHO, key, [text]), [key, text.encode()])
            except RedisUnavailable as error:
                self._failed(error)

    def _in_tasks(self) -> None:
        asyncio.run(self._tasks())

    async def _tasks(self) -> None:
        client = open_async(self.url, timeout_seconds=0.5)

        async def keep_calling(number: int) -> None:
            turn = 0
            while not self._over.is_set():
                key, text, turn = KEYS[turn % len(KEYS)], f"{number}/{turn}", turn + 1
                try:
                    self._check(await client.run(ECHO, key, [text]), [key, text.encode()])
                except RedisUnavailable as error:
                    self._failed(error)
                    await a_turn()  # an open breaker answers without giving way to others

        await asyncio.gather(*(keep_calling(number) for number in range(16)))

    def _check(self, reply: object, own: object) -> None:
        self.outcomes["answered"] += 1
        if reply != own:
            self.wrong.append((reply, own))

    def _failed(self, error: RedisUnavailable) -> None:
        self.outcomes["unknown" if error.outcome_unknown else "unavailable"] += 1


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_failovers_under_load_mix_up_no_replies_and_come_to_an_end(replicated: Cluster, kind: str):
    replicated.wait_until_whole()
    slot = key_slot(KEYS[0])
    with Load(kind, replicated.url) as load:
        load.wait_for("answered", 200)
        replicated.fail_over(slot)
        load.wait_for("answered", 200)
        killed = replicated.kill_primary(slot)
        load.wait_for("unavailable", 1)
        replicated.wait_until_whole()
        load.wait_for("answered", 200)
        killed.start()
        replicated.wait_until_whole()
        hanging = replicated.node(replicated.primary_of(slot))
        hanging.pause()
        load.wait_for("unknown", 1)
        hanging.resume()
        replicated.wait_until_whole()
        load.wait_for("answered", 200)
    assert load.wrong == []


def works(client: Shell, key: bytes) -> bool:
    try:
        client.run(COUNT, key)
    except RedisUnavailable:
        return False
    return True


def test_without_any_node_every_call_says_so_at_once_in_the_end(connect: Connect):
    client = connect("redis+cluster://127.0.0.1:1,127.0.0.1:2", 1.0, clock=Clock())
    for _ in range(20):
        with pytest.raises(RedisUnavailable, match="no node"):
            client.run(COUNT, KEYS[0])
        (reply,) = client.run_many(COUNT, [(KEYS[0], [])])
        assert isinstance(reply, RedisUnavailable)
    assert client.states() == {"open"}
