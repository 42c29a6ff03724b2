"""Redis in front: what a decision costs there, against a trivial script on the same server in the same minute.

The request has four limits, a concurrency limit, an allowance and a key, and is noted: the way of a grant. What is
timed is the whole of our side, from the checked request to the outcome, against redis-py running `return 1`.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import redis
from limits import parse
from limits.aio.storage import RedisStorage
from limits.aio.strategies import FixedWindowRateLimiter

from policies import PolicySet
from quota import AsyncComptroller, Comptroller
from quota.ask import Ask, checked_ask
from quota.prefilter.front import Front
from quota.prefilter.prefilter import Passed
from quota.prefilter.prints import redis_key
from tests.bench.rounds import Ratio
from tests.servers import Redis

POLICIES: Final = PolicySet.parse("""
schema: 1
operations:
  make: {gpu_cost: {usd: 0.01}, hold_for: 1h}
  ping: {limits_only: true, hold_for: 1m}
plans:
  standard:
    limits:
      - {kind: rate, name: second, limit: 1000, per: 1s}
      - {kind: rate, name: minute, limit: 10000, per: 1m}
      - {kind: usage, name: daily, units: 3000, per: 24h}
      - {kind: usage, name: weekly, units: 20000, per: 7d}
      - {kind: concurrency, limit: 400}
    sources: [{kind: daily_allowance, units: 1000}]
  limiter:
    limits:
      - {kind: rate, name: minute, limit: 100000, per: 1m}
      - {kind: rate, name: hour, limit: 100000, per: 1h}
      - {kind: rate, name: day, limit: 1000000, per: 24h}
      - {kind: rate, name: month, limit: 10000000, per: 720h}
    sources: [{kind: daily_allowance, units: 1}]
default_plan: standard
""")
PEER_LIMITS: Final = ("100000/minute", "100000/hour", "1000000/day", "10000000/month")
TRIVIAL: Final = "return 1"
ACCOUNTS, ROUNDS, BLOCK = 1000, 40, 50
SATURATED, PIPELINED = 4000, 100
TASKS, DECISIONS, ASYNC_ROUNDS = 64, 4000, 7


def run() -> Iterator[Ratio]:
    """Take the five figures of Redis in front."""
    with Redis() as server:
        client = redis.Redis.from_url(server.url)
        with client, _front(server.url) as front:
            yield _p50(client, front)
            yield _commands(client, front)
            yield _server(client, front)
            yield _bytes(client, server.url)
        yield _async(server.url)


def _p50(client: Any, front: Front) -> Ratio:
    """Median time of one call, sync, in blocks that take turns."""
    asks, trivial = _asks(), client.script_load(TRIVIAL)
    _known(front)
    ours, theirs, ratios = [], [], []
    for _ in range(ROUNDS):
        other = _timed(lambda: client.evalsha(trivial, 1, "k"))
        mine = _timed(lambda: _passed(front, next(asks)))
        ours.append(mine)
        theirs.append(other)
        ratios.append(mine / other)
    name = "Redis decision, p50, sync"
    return _ratio(
        name, ("a decision, noted", ours), ("a trivial EVALSHA", theirs), ratios, "at most 1.6"
    )


def _commands(client: Any, front: Front) -> Ratio:
    """Commands that the server counted per decision."""
    asks = _asks("counted")
    client.config_resetstat()
    for _ in range(BLOCK):
        _passed(front, next(asks))
    counted = {
        name: figures["calls"]
        for name, figures in client.info("commandstats").items()
        if name not in ("cmdstat_config|resetstat", "cmdstat_info")
    }
    # What the script itself calls inside the server is counted too; it crosses no network.
    inside = {"cmdstat_get", "cmdstat_set", "cmdstat_time"}
    sent = sum(calls for name, calls in counted.items() if name not in inside)
    each = [sent / BLOCK]
    return _ratio(
        "commands per decision", ("commands", each), ("decisions", [1.0]), each, "exactly 1"
    )


def _server(client: Any, front: Front) -> Ratio:
    """Microseconds of the server per decision, while it has nothing to wait for."""
    trivial, script = client.script_load(TRIVIAL), client.script_load(front.script.text)
    asks, ours, theirs = _asks("saturated"), [], []
    calls = [next(front.steps(POLICIES, next(asks))) for _ in range(SATURATED)]
    for at in range(0, SATURATED, SATURATED // 8):
        part = calls[at : at + SATURATED // 8]
        ours.append(_server_us(client, [(script, 1, key, *args) for key, args in part]))
        theirs.append(_server_us(client, [(trivial, 1, "k") for _ in part]))
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    name = "server time per decision, saturated"
    return _ratio(
        name, ("a decision, noted", ours), ("a trivial EVALSHA", theirs), ratios, "at most 20"
    )


def _server_us(client: Any, calls: list[tuple[Any, ...]]) -> float:
    client.config_resetstat()
    for at in range(0, len(calls), PIPELINED):
        with client.pipeline(transaction=False) as pipeline:
            for call in calls[at : at + PIPELINED]:
                pipeline.evalsha(*call)
            pipeline.execute()
    return float(client.info("commandstats")["cmdstat_evalsha"]["usec_per_call"])


def _bytes(client: Any, url: str) -> Ratio:
    """Bytes that the server keeps for an account that has made three grants, all of them ended."""
    client.flushall()
    with Comptroller.open(POLICIES, "sqlite://", redis=url) as comptroller:
        accounts = [f"account-{number}" for number in range(100)]
        for account in accounts:
            for key in range(3):
                grant = comptroller.admit(account=account, operation="make", key=f"{key}")
                comptroller.settle(grant.id)
            front_of(comptroller).news.unknown(account)
        front_of(comptroller).news.flush()
    each = [float(client.memory_usage(redis_key(account))) for account in accounts]
    name = "Redis bytes per idle account"
    return _ratio(name, ("bytes", each), ("one", [1.0]), each, "at most 300")


def _async(url: str) -> Ratio:
    """Decisions per second at 64 tasks, through the whole of AsyncComptroller, against `limits`."""
    ours, theirs = [], []
    for _ in range(ASYNC_ROUNDS):
        theirs.append(asyncio.run(_peer_us(url)))
        ours.append(asyncio.run(_our_us(url)))
    ratios = [other / mine for mine, other in zip(ours, theirs, strict=True)]
    name = f"async decisions, {TASKS} tasks"
    other = ("`limits` on redis.asyncio, the same four limits", theirs)
    return _ratio(
        name, ("AsyncComptroller, four limits and a key", ours), other, ratios, "at least 10"
    )


async def _our_us(url: str) -> float:
    async with AsyncComptroller.open(POLICIES, "sqlite://", redis=url) as comptroller:
        numbers, run_key = iter(range(DECISIONS)), time.monotonic_ns()

        async def work() -> None:
            for number in numbers:
                decision = await comptroller.admit(
                    account=f"u{number % ACCOUNTS}",
                    operation="ping",
                    plan="limiter",
                    key=f"{run_key}-{number}",
                )
                if decision.decided_by != "redis" or not decision:
                    raise AssertionError(f"the benchmark must measure grants by Redis: {decision}")

        await comptroller.admit(account="warm", operation="ping", plan="limiter", key="up")
        return await _together(work)


async def _peer_us(url: str) -> float:
    storage = RedisStorage(f"async+{url}", implementation="redispy")
    limiter, items = FixedWindowRateLimiter(storage), [parse(text) for text in PEER_LIMITS]
    numbers = iter(range(DECISIONS // 4))

    async def work() -> None:
        for number in numbers:
            for item in items:
                if not await limiter.hit(item, f"u{number % ACCOUNTS}"):
                    raise AssertionError("the benchmark must measure requests that are admitted")

    try:
        return await _together(work) * 4
    finally:
        await storage.reset()


async def _together(work: Callable[[], Any]) -> float:
    """Run 64 tasks, and return microseconds per decision of ours."""
    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(TASKS)))
    return (time.perf_counter() - began) / DECISIONS * 1_000_000


@contextmanager
def _front(url: str) -> Iterator[Front]:
    with Comptroller.open(POLICIES, "sqlite://", redis=url) as comptroller:
        yield front_of(comptroller)


def front_of(comptroller: Comptroller) -> Front:
    """Return the Redis that a Comptroller asks."""
    assert comptroller._front is not None
    return comptroller._front


def _asks(run_key: str = "timed") -> Iterator[Ask]:
    for number in itertools.count():
        yield checked_ask(
            account=f"u{number % ACCOUNTS}",
            operation="make",
            attributes=None,
            key=f"{run_key}-{number}",
            plan=None,
            member=None,
            consent=False,
            not_after=None,
        )


def _known(front: Front) -> None:
    """Tell Redis of all accounts, so that none of them is cold."""
    for number in range(ACCOUNTS):
        front.news.unknown(f"u{number}")
    front.news.flush()


def _passed(front: Front, ask: Ask) -> bool:
    """Ask for one decision. One in a hundred keys looks to the filter as if it had been seen: SQL would know."""
    return isinstance(front.decide(POLICIES, ask), Passed)


def _timed(call: Callable[[], Any]) -> float:
    """Return the median of a block of calls, in microseconds."""
    times, done = [], 0
    for _ in range(BLOCK):
        began = time.perf_counter()
        done += bool(call())
        times.append(time.perf_counter() - began)
    if done < 0.9 * BLOCK:
        raise AssertionError(f"the benchmark must measure what passes: {done} of {BLOCK} did")
    return statistics.median(times) * 1_000_000


def _ratio(
    name: str,
    ours: tuple[str, list[float]],
    other: tuple[str, list[float]],
    ratios: list[float],
    wanted: str,
) -> Ratio:
    return Ratio(
        name=name,
        ours=ours[0],
        other=other[0],
        ours_us=statistics.median(ours[1]),
        other_us=statistics.median(other[1]),
        median=statistics.median(ratios),
        least=min(ratios),
        greatest=max(ratios),
        wanted=wanted,
    )
