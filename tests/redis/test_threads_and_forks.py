"""Threads share a bounded pool, and a forked child never touches its parent's connections."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Callable

import pytest

from quota.redis import RedisUnavailable, Script, SyncRedis, open_async, open_sync
from quota.redis.sync_node import CONNECTIONS
from tests.redis.shells import COUNT, ECHO, PATIENT, SHORT, Shell, opened
from tests.servers import RedisAt

KEY = b"{account}"


def in_threads(count: int, work: Callable[[int], None]) -> None:
    errors: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=[number]) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def connections(server: RedisAt) -> int:
    listed = str(server.run("CLIENT", "LIST"))
    return sum("cmd=evalsha" in line for line in listed.splitlines())


# --- threads ------------------------------------------------------------------------------------


def test_threads_get_their_own_replies(redis_url: str):
    client = open_sync(redis_url, timeout_seconds=PATIENT)
    client.run(ECHO, KEY, [])

    def echo(number: int) -> None:
        for turn in range(50):
            text = f"{number}/{turn}"
            assert client.run(ECHO, KEY, [text]) == [KEY, text.encode()]

    in_threads(12, echo)
    client.close()


def test_more_threads_than_connections_share_them(lone_redis: RedisAt):
    client = open_sync(lone_redis.url, timeout_seconds=PATIENT)
    client.run(COUNT, KEY, [])
    threads = CONNECTIONS + 8

    def count(_: int) -> None:
        for _ in range(20):
            client.run(COUNT, KEY, [])

    in_threads(threads, count)
    assert client.run(COUNT, KEY, []) == threads * 20 + 2
    assert connections(lone_redis) <= CONNECTIONS
    client.close()
    deadline = time.monotonic() + 20
    while connections(lone_redis):
        assert time.monotonic() < deadline, lone_redis.run("CLIENT", "LIST")


def test_every_connection_busy_is_no_failure_of_redis(redis_url: str):
    client = open_sync(redis_url, timeout_seconds=SHORT)
    client.run(COUNT, KEY, [])
    taken = [client._first._take() for _ in range(CONNECTIONS)]
    for _ in range(6):
        with pytest.raises(RedisUnavailable, match=f"all {CONNECTIONS} connections") as raised:
            client.run(COUNT, KEY, [])
        assert not raised.value.outcome_unknown
    assert set(client.states.values()) == {"closed"}
    for line in taken:
        client._first._give_back(line)
    assert client.run(COUNT, KEY, []) == 2
    client.close()


def test_after_closing_every_call_says_so(redis_url: str):
    client = open_sync(redis_url, timeout_seconds=PATIENT)
    client.run(COUNT, KEY, [])
    client.close()
    with pytest.raises(RedisUnavailable, match="closed"):
        client.run(COUNT, KEY, [])
    (reply,) = client.run_many(COUNT, [(KEY, [])])
    assert isinstance(reply, RedisUnavailable)


def test_an_interrupted_call_leaves_no_reply_to_the_next(lone_redis: RedisAt):
    """Ctrl-C while the reply is awaited: its connection is not used again."""

    class Interrupted(BaseException):
        pass

    def interrupt(*_: object) -> None:
        raise Interrupted

    def call_and_be_interrupted(client: SyncRedis) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        client.run(Script.of("for i = 1, 5e5 do redis.sha1hex('x') end return 'late'"), KEY, [])

    client = open_sync(lone_redis.url, timeout_seconds=PATIENT)
    client.run(ECHO, KEY, ["own"])
    client.run(Script.of("return 1"), KEY, [])
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with pytest.raises(Interrupted):
            call_and_be_interrupted(client)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert client.run(ECHO, KEY, ["own"]) == [KEY, b"own"]
    client.close()


# --- forks --------------------------------------------------------------------------------------


def in_a_child(work: Callable[[], None]) -> None:
    """Run it in a forked child, which must end well."""
    with warnings.catch_warnings():
        # Python 3.12 warns of forks in a process with threads: which is what is tested here.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if not pid:
        code = 1
        try:
            work()
            code = 0
        except BaseException:  # noqa: BLE001 - shown, and told by the exit code
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def own_id(client: Shell) -> int:
    identity: int = client.command("CLIENT", "ID")
    return identity


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_child_opens_its_own_connection_and_the_parent_keeps_its_own(redis_url: str, kind: str):
    shell = opened(kind, redis_url)
    shell.run(COUNT, KEY)
    parents = own_id(shell)

    def child() -> None:
        inherited = Shell(shell.client)  # an async client in the child's own loop
        assert own_id(inherited) != parents
        for _ in range(50):
            inherited.run(COUNT, KEY)
        inherited.close()

    for _ in range(3):
        in_a_child(child)
        assert own_id(shell) == parents
    assert shell.run(COUNT, KEY) == 152
    shell.close()


def test_children_and_parent_at_once_get_their_own_replies(redis_url: str):
    client = open_sync(redis_url, timeout_seconds=PATIENT)
    client.run(ECHO, KEY, [])
    stop = threading.Event()

    def keep_echoing() -> None:
        while not stop.is_set():
            assert client.run(ECHO, KEY, ["parent"]) == [KEY, b"parent"]

    def child() -> None:
        for _ in range(50):
            assert client.run(ECHO, KEY, ["child"]) == [KEY, b"child"]

    threads = [threading.Thread(target=keep_echoing) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5):
            in_a_child(child)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    client.close()


def test_a_child_forked_in_a_running_loop_may_run_a_loop_of_its_own(redis_url: str):
    client = open_async(redis_url, timeout_seconds=PATIENT)

    async def counted() -> None:
        await asyncio.gather(*(client.run(COUNT, KEY, []) for _ in range(10)))

    def child() -> None:
        asyncio._set_running_loop(None)  # as multiprocessing's children do
        asyncio.run(counted())

    async def parent() -> None:
        await counted()
        in_a_child(child)
        await counted()
        assert await client.run(COUNT, KEY, []) == 31

    asyncio.run(parent())


def test_a_child_forked_while_a_breaker_is_locked_is_not_locked(redis_url: str):
    client = open_sync(redis_url, timeout_seconds=PATIENT)
    client.run(COUNT, KEY, [])
    breaker = client._first.breaker
    breaker.failed()  # so that the next success needs the lock
    with breaker._lock, client._first._lock:
        in_a_child(lambda: client.run(COUNT, KEY, []))
    client.close()
