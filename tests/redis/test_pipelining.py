"""Calls of many tasks share a connection, and each gets its own reply, whatever becomes of others."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import Awaitable, Callable

import pytest

from quota.redis import AsyncRedis, RedisUnavailable, Script, open_async
from quota.redis.wire import Argument
from tests.redis.shells import COUNT, ECHO, PATIENT, SHORT, a_turn
from tests.redis.trouble import until
from tests.servers import Redis, RedisAt
from tests.servers.proxy import Fault, Proxy

KEY = b"{account}"
# For tests in which any call may find that there was no reply in time.
BRIEF = 0.3
SLOW_ECHO = Script.of(
    "for i = 1, tonumber(ARGV[2]) do redis.sha1hex('x') end return {KEYS[1], ARGV[1]}"
)


def in_a_loop(
    test: Callable[[AsyncRedis], Awaitable[None]], url: str, timeout_seconds: float = PATIENT
) -> None:
    """Run a test in a loop of its own; the client is never closed but by the loop's end."""

    async def tested() -> None:
        await test(open_async(url, timeout_seconds=timeout_seconds))

    asyncio.run(tested())


def test_few_calls_of_a_turn_go_out_in_one_write(redis_url: str):
    with Proxy(redis_url) as proxy:

        async def fifteen_at_once(client: AsyncRedis) -> None:
            await client.run(ECHO, KEY, [])
            before = len(proxy.exchanges)
            echoed = await asyncio.gather(*(client.run(ECHO, KEY, [n]) for n in range(15)))
            assert echoed == [[KEY, str(n).encode()] for n in range(15)]
            sent = proxy.exchanges[before:]
            assert [each.request.count(b"EVALSHA") for each in sent] == [15]

        in_a_loop(fifteen_at_once, proxy.url)
        assert {each.connection for each in proxy.exchanges} == {0}


def test_redis_gets_the_first_of_many_calls_before_their_turn_ends(redis_url: str):
    with Proxy(redis_url) as proxy:

        async def sixty_four_at_once(client: AsyncRedis) -> None:
            await client.run(ECHO, KEY, [])
            before = len(proxy.exchanges)

            async def keeps_the_turn() -> None:
                until(lambda: len(proxy.exchanges) > before)

            calls = [client.run(ECHO, KEY, [n]) for n in range(64)]
            replies = await asyncio.gather(*calls[:20], keeps_the_turn(), *calls[20:])
            assert proxy.exchanges[before].request.count(b"EVALSHA") == 16
            echoed = [reply for reply in replies if reply is not None]
            assert echoed == [[KEY, str(n).encode()] for n in range(64)]

        in_a_loop(sixty_four_at_once, proxy.url)
        assert {each.connection for each in proxy.exchanges} == {0}


def test_many_first_calls_at_once_open_one_connection(redis_url: str):
    with Proxy(redis_url) as proxy:

        async def at_once(client: AsyncRedis) -> None:
            counted = await asyncio.gather(*(client.run(COUNT, KEY, []) for _ in range(100)))
            assert sorted(counted) == list(range(1, 101))

        in_a_loop(at_once, proxy.url)
        assert {each.connection for each in proxy.exchanges} == {0}


@pytest.mark.parametrize("seed", range(8))
def test_cancelled_calls_shift_no_replies(redis_url: str, seed: int):
    """Random tasks, cancelled at random moments: before the write, in flight, and when answered."""
    source = random.Random(seed)

    async def survived(client: AsyncRedis) -> None:
        own = 0
        tasks: list[asyncio.Task[None]] = []

        async def call(name: str, work: int) -> None:
            nonlocal own
            assert await client.run(SLOW_ECHO, KEY, [name, work]) == [KEY, name.encode()]
            own += 1

        for number in range(600):
            tasks.append(asyncio.create_task(call(f"call {number}", source.randrange(200))))
            if source.random() < 0.4:
                source.choice(tasks[-20:]).cancel()
            if source.random() < 0.3:
                for _ in range(source.randrange(4)):
                    await a_turn()
            if source.random() < 0.05:
                await tasks[-1] if not tasks[-1].cancelling() else None
        results = await asyncio.gather(*tasks, return_exceptions=True)
        failures = [each for each in results if isinstance(each, Exception)]
        cancelled = sum(isinstance(each, asyncio.CancelledError) for each in results)
        assert failures == []
        assert own + cancelled == 600
        assert cancelled > 50
        assert await client.run(ECHO, KEY, ["last"]) == [KEY, b"last"]

    in_a_loop(survived, redis_url)


@pytest.mark.parametrize("seed", range(4))
def test_timeouts_and_cancellations_together_shift_no_replies(redis_url: str, seed: int):
    source = random.Random(seed)
    with Proxy(redis_url, seed=seed) as proxy:

        async def survived(client: AsyncRedis) -> None:
            proxy.sometimes(Fault(delay_seconds=2 * BRIEF), 0.05)
            outcomes: dict[str, int] = {"own": 0, "unavailable": 0}

            async def call(name: str) -> None:
                try:
                    assert await client.run(ECHO, KEY, [name]) == [KEY, name.encode()]
                    outcomes["own"] += 1
                except RedisUnavailable:
                    outcomes["unavailable"] += 1

            for batch in range(100):
                tasks = [asyncio.create_task(call(f"{batch}/{n}")) for n in range(10)]
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                source.choice(tasks).cancel()
                for result in await asyncio.gather(*tasks, return_exceptions=True):
                    assert result is None or isinstance(result, asyncio.CancelledError)
            proxy.heal()
            late = asyncio.get_running_loop().time() + 3 * BRIEF
            while asyncio.get_running_loop().time() < late:  # until the last late reply is in
                await call("late")
            assert min(outcomes.values()) > 0, outcomes

        in_a_loop(survived, proxy.url, timeout_seconds=BRIEF)


def test_a_call_that_is_cancelled_while_connecting_leaves_the_others_their_connection(
    redis_url: str,
):
    async def cancelled(client: AsyncRedis) -> None:
        calls = [asyncio.create_task(client.run(COUNT, KEY, [])) for _ in range(5)]
        await a_turn()
        calls[0].cancel()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError)
        assert results[1:] == [1, 2, 3, 4]

    in_a_loop(cancelled, redis_url)


def test_a_call_that_times_out_takes_no_other_with_it(redis_url: str):
    """A slow script makes those behind it wait; replies that come late go to nobody."""

    async def late(client: AsyncRedis) -> None:
        await answered(client, ECHO, [])
        await answered(client, SLOW_ECHO, ["", 0])
        calls = [client.run(SLOW_ECHO, KEY, [n, 400_000 if n == 3 else 1]) for n in range(6)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        # Redis sends replies when the loop of its own has read all that it was sent: so all wait.
        for number, result in enumerate(results):
            late = isinstance(result, RedisUnavailable) and result.outcome_unknown
            assert late or result == [KEY, str(number).encode()]
        assert isinstance(results[3], RedisUnavailable)
        for number in range(20):
            try:
                assert await client.run(ECHO, KEY, [number]) == [KEY, str(number).encode()]
            except RedisUnavailable:
                continue

    in_a_loop(late, redis_url, timeout_seconds=0.05)


async def answered(client: AsyncRedis, script: Script, args: list[Argument]) -> None:
    """Call until there is an answer: a busy machine may take longer than a short timeout."""
    while True:
        with contextlib.suppress(RedisUnavailable):
            await client.run(script, KEY, args)
            return
        await a_turn()


def test_a_loop_that_is_kept_busy_past_the_timeout_loses_no_call(redis_url: str):
    """The host computes for longer than a reply may take: that is no failure of Redis."""

    async def busy(client: AsyncRedis) -> None:
        await client.run(COUNT, KEY, [])
        loop = asyncio.get_running_loop()
        for turn in (2, 3):
            call = asyncio.create_task(client.run(COUNT, KEY, []))
            await a_turn()  # the call is made; its write is due
            if turn % 2:
                await a_turn()  # its write has gone out
            end = loop.time() + SHORT + 0.1
            while loop.time() < end:
                pass
            assert await call == turn

    in_a_loop(busy, redis_url, timeout_seconds=SHORT)


def test_a_connection_that_hangs_is_closed_though_nobody_calls():
    with Redis() as server:

        async def hung(client: AsyncRedis) -> None:
            await client.run(COUNT, KEY, [])
            (pipe,) = client._node(client._target.addresses[0])._pipes
            server.pause()
            with pytest.raises(RedisUnavailable):
                await client.run(COUNT, KEY, [])
            assert not pipe.closed.done()
            async with asyncio.timeout(PATIENT):
                await pipe.closed

        in_a_loop(hung, server.url, timeout_seconds=SHORT)


def test_too_many_waiting_calls_are_refused_rather_than_piled_up(redis_url: str):
    async def flooded(client: AsyncRedis) -> None:
        await client.run(COUNT, KEY, [])
        calls = [asyncio.create_task(client.run(COUNT, KEY, [])) for _ in range(17_000)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        refused = [each for each in results if isinstance(each, RedisUnavailable)]
        assert len(refused) == 17_000 - 16_384
        assert not any(each.outcome_unknown for each in refused)

    in_a_loop(flooded, redis_url)


# --- event loops --------------------------------------------------------------------------------


def test_one_client_serves_one_loop_after_the_other(redis_url: str):
    client = open_async(redis_url, timeout_seconds=PATIENT)

    async def counted() -> list[int]:
        return list(await asyncio.gather(*(client.run(COUNT, KEY, []) for _ in range(10))))

    for loop in range(5):
        assert sorted(asyncio.run(counted())) == list(range(10 * loop + 1, 10 * loop + 11))


def test_one_client_serves_loops_in_several_threads_at_once(redis_url: str):
    client = open_async(redis_url, timeout_seconds=PATIENT)
    replies: list[int] = []

    async def counted() -> None:
        for _ in range(20):
            replies.extend(await asyncio.gather(*(client.run(COUNT, KEY, []) for _ in range(10))))

    threads = [threading.Thread(target=asyncio.run, args=[counted()]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(replies) == list(range(1, 801))


def test_closing_in_one_loop_closes_the_connections_of_others(lone_redis: RedisAt):
    client = open_async(lone_redis.url, timeout_seconds=PATIENT)
    is_open, is_over = threading.Event(), threading.Event()

    async def elsewhere() -> None:
        await client.run(COUNT, KEY, [])
        is_open.set()
        await asyncio.to_thread(is_over.wait)

    async def here() -> None:
        await client.run(COUNT, KEY, [])
        assert connections(lone_redis) == 2
        await client.close()
        await client.close()

    thread = threading.Thread(target=asyncio.run, args=[elsewhere()])
    thread.start()
    is_open.wait()
    asyncio.run(here())
    while connections(lone_redis):
        pass
    is_over.set()
    thread.join()


def connections(server: RedisAt) -> int:
    listed = str(server.run("CLIENT", "LIST"))
    return sum("cmd=evalsha" in line or "cmd=eval" in line for line in listed.splitlines())


def test_after_closing_every_call_says_so(redis_url: str):
    async def closed(client: AsyncRedis) -> None:
        await client.run(COUNT, KEY, [])
        await client.close()
        with pytest.raises(RedisUnavailable, match="closed") as raised:
            await client.run(COUNT, KEY, [])
        assert not raised.value.outcome_unknown
        (reply,) = await client.run_many(COUNT, [(KEY, [])])
        assert isinstance(reply, RedisUnavailable)

    in_a_loop(closed, redis_url)


def test_closing_fails_the_calls_under_way(redis_url: str):
    with Redis() as server:

        async def closing(client: AsyncRedis) -> None:
            await client.run(COUNT, KEY, [])
            server.pause()
            sent = asyncio.create_task(client.run(COUNT, KEY, []))
            for _ in range(5):
                await a_turn()
            await client.close()
            with pytest.raises(RedisUnavailable, match="closed") as raised:
                await sent
            assert raised.value.outcome_unknown

        in_a_loop(closing, server.url)


def test_closing_in_the_middle_of_many_calls_opens_nothing_for_the_rest(lone_redis: RedisAt):
    async def closing(client: AsyncRedis) -> None:
        await client.run(COUNT, KEY, [])
        many = asyncio.create_task(client.run_many(COUNT, [(KEY, [])] * 500))
        await a_turn()
        await client.close()
        replies = await many
        assert len(replies) == 500
        assert all(isinstance(each, RedisUnavailable) for each in replies[64:])

    in_a_loop(closing, lone_redis.url)
    while connections(lone_redis):  # it hears of the end a little later
        pass


def test_a_connection_lost_in_the_turn_of_a_call_has_not_sent_it(redis_url: str):
    async def lost(client: AsyncRedis) -> None:
        await client.run(COUNT, KEY, [])
        (pipe,) = client._node(client._target.addresses[0])._pipes
        calls = [asyncio.create_task(client.run(COUNT, KEY, [])) for _ in range(3)]
        await a_turn()
        pipe.abort("lost")
        for call in calls:
            with pytest.raises(RedisUnavailable, match="lost") as raised:
                await call
            assert not raised.value.outcome_unknown
        assert await client.run(COUNT, KEY, []) == 2

    in_a_loop(lost, redis_url)


def test_a_loop_may_end_while_calls_and_a_connect_are_under_way(redis_url: str):
    with Redis() as server:

        async def abandoned(client: AsyncRedis) -> None:
            await client.run(COUNT, KEY, [])
            server.pause()
            calls = [asyncio.create_task(client.run(COUNT, KEY, [])) for _ in range(5)]
            for _ in range(5):
                await a_turn()
            assert not any(call.done() for call in calls)

        in_a_loop(abandoned, server.url)
        in_a_loop(abandoned_while_connecting, "redis://10.255.255.1:1")


async def abandoned_while_connecting(client: AsyncRedis) -> None:
    call = asyncio.create_task(client.run(COUNT, KEY, []))
    for _ in range(5):
        await a_turn()
    del call
