"""The faults, each as a block: it begins where the block does, and at its end all is well again.

They are done to real servers and processes, at counts of operations that the scenario chooses.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

from quota.redis.breaker import FAILURES, FIRST_WAIT_SECONDS
from tests.faults.clock import DOOMED
from tests.faults.outcomes import Outcome
from tests.servers import Redis
from tests.servers.process import READY_SECONDS, until
from tests.servers.proxy import Exchange, Fault, Proxy

if TYPE_CHECKING:
    from tests.faults.arena import Arena

Block = Callable[["Arena"], AbstractContextManager[None]]

LATE_SECONDS: Final = 0.15
"""More than a client waits for Redis."""
SLOW_SECONDS: Final = 0.03
AWAY: Final = timedelta(minutes=1)
COMMITS_LOST: Final = 0.5
LOST: Final = Fault(lost="reply")
LOST_AND_CUT: Final = Fault(lost="reply", cut=True)
UNSENT_AND_CUT: Final = Fault(lost="request", cut=True)


# --- Redis --------------------------------------------------------------------------------------


@contextmanager
def redis_hangs(arena: Arena) -> Iterator[None]:
    """Connections stay open and no answer comes. Each client finds out once, and then asks it no more."""
    before, began = len(arena.redis_way.exchanges), time.monotonic()
    arena.redis.pause()
    try:
        yield
        silent = [one for one in arena.redis_way.exchanges[before:] if not one.replied]
    finally:
        arena.redis.resume()
    probes = 1 + (time.monotonic() - began) / (FIRST_WAIT_SECONDS / 2)
    most = sum(breakers * (FAILURES + lanes + probes) for breakers, lanes in arena.clients)
    if len(silent) > most:
        arena.wrong.append(f"a hung Redis was asked {len(silent)} times, and not at most {most}")


@contextmanager
def redis_is_killed(arena: Arena) -> Iterator[None]:
    """Nobody listens; then it is there again, and knows nothing."""
    arena.redis.kill()
    try:
        yield
    finally:
        arena.redis.start()
    arena.is_cold = True


@contextmanager
def redis_is_flushed(arena: Arena) -> Iterator[None]:
    arena.redis.run("FLUSHALL")
    arena.is_cold = True
    yield


@contextmanager
def scripts_are_forgotten(arena: Arena) -> Iterator[None]:
    arena.redis.run("SCRIPT", "FLUSH")
    yield


@contextmanager
def nobody_gets_through(arena: Arena) -> Iterator[None]:
    arena.redis_way.refuse()
    try:
        yield
    finally:
        arena.redis_way.accept()


@contextmanager
def exchanges_suffer(
    arena: Arena, way: Callable[[Arena], Proxy], fault: Fault, probability: float
) -> Iterator[None]:
    """The same happens to exchanges as chance will have it, and all connections are cut at the end.

    Where something was lost, so is all that follows on that connection: TCP leaves no holes.
    """
    proxy = way(arena)
    silent = set[int]()

    def rule(exchange: Exchange) -> Fault | None:
        if exchange.connection in silent:
            return fault
        if exchange.random.random() >= probability:
            return None
        if fault.lost != "nothing":
            silent.add(exchange.connection)
        return fault

    proxy.follow(rule)
    try:
        yield
    finally:
        proxy.heal()
        proxy.cut()


def _redis(fault: Fault, probability: float) -> Block:
    return partial(
        exchanges_suffer, way=lambda arena: arena.redis_way, fault=fault, probability=probability
    )


def _database(fault: Fault, probability: float) -> Block:
    return partial(
        exchanges_suffer, way=lambda arena: arena.database_way, fault=fault, probability=probability
    )


# --- a Cluster ----------------------------------------------------------------------------------


@contextmanager
def primary_is_killed(arena: Arena) -> Iterator[None]:
    """Its replica takes over by itself."""
    killed = arena.cluster.kill_primary(arena.a_slot())
    yield
    arena.cluster.wait_until_whole()
    killed.start()
    arena.cluster.wait_until_whole()


@contextmanager
def writes_are_lost(arena: Arena) -> Iterator[None]:
    """A replica that has not heard for a while takes over: what was written meanwhile never was."""
    slot = arena.a_slot()
    primary = arena.cluster.node(arena.cluster.primary_of(slot))
    replica = arena.cluster.node(_replica_of(arena, primary.port))
    replica.pause()
    # What the kernel has already taken for it cannot be lost any more; so nothing more is sent.
    primary.run("CLIENT", "KILL", "TYPE", "replica")
    before = _states(primary)
    yield
    arena.reached[Outcome.LOST_WRITES] += before != _states(primary)
    primary.kill()
    replica.resume()
    until("no takeover", READY_SECONDS, lambda: _took_over(arena, replica.port))
    arena.cluster.wait_until_whole()
    primary.start()
    arena.cluster.wait_until_whole()


def _states(node: Redis) -> dict[str, str]:
    """What it holds of each account, digested: it is no text."""
    return {key: str(node.run("DEBUG", "DIGEST-VALUE", key)) for key in node.run("KEYS", "*")}


def _replica_of(arena: Arena, primary: int) -> int:
    members = arena.cluster.members()
    identity = next(member.id for member in members if member.port == primary)
    return next(member.port for member in members if member.primary == identity)


def _took_over(arena: Arena, port: int) -> bool:
    node = arena.cluster.node(port)
    if node.run("ROLE")[0] == "master":
        return True
    node.run("CLUSTER", "FAILOVER", "TAKEOVER")
    return False


@contextmanager
def cluster_is_flushed(arena: Arena) -> Iterator[None]:
    arena.cluster.flush()
    arena.is_cold = True
    yield


# --- PostgreSQL ---------------------------------------------------------------------------------


@contextmanager
def database_is_killed(arena: Arena) -> Iterator[None]:
    """SIGQUIT in the middle of transactions, and a start with recovery right after."""
    arena.postgres.kill()
    arena.postgres.start()
    yield


@contextmanager
def database_is_away(arena: Arena) -> Iterator[None]:
    """It is gone for a minute of the workers' time, and they go on asking."""
    began = arena.clock()
    arena.postgres.kill()
    try:
        yield
        arena.clock.advance(max(timedelta(0), began + AWAY - arena.clock()))
    finally:
        arena.postgres.start()


@contextmanager
def commits_are_lost(arena: Arena) -> Iterator[None]:
    """The server has committed, and whoever asked it to never hears of it: the engine, or the host."""

    def rule(exchange: Exchange) -> Fault | None:
        lost = b"COMMIT" in exchange.request and exchange.random.random() < COMMITS_LOST
        return LOST_AND_CUT if lost else None

    arena.database_way.follow(rule)
    try:
        yield
    finally:
        arena.database_way.heal()
        arena.database_way.cut()


@contextmanager
def connections_are_reset(arena: Arena) -> Iterator[None]:
    arena.database_way.cut(reset=True)
    yield
    arena.database_way.cut(reset=True)


# --- the workers themselves ---------------------------------------------------------------------


@contextmanager
def worker_is_killed(arena: Arena) -> Iterator[None]:
    """SIGKILL, in the middle of whatever; another takes its place later."""
    worker = arena.rng.choice(arena.crew.workers)
    arena.crew.kill(worker)
    yield
    arena.crew.restart(worker)


@contextmanager
def worker_dies_after_a_commit(arena: Arena) -> Iterator[None]:
    """What it was granted is in the books, and nobody was told."""
    worker = arena.rng.choice(arena.crew.workers)
    arena.crew.expect_end(worker)
    arena.board[DOOMED] = worker.settings.number
    yield
    arena.board[DOOMED] = 0
    arena.crew.kill(worker)
    arena.crew.restart(worker)


@contextmanager
def all_workers_are_killed(arena: Arena) -> Iterator[None]:
    """All at once, as when the machine restarts; and others at once."""
    for worker in arena.crew.workers:
        arena.crew.kill(worker)
    for worker in arena.crew.workers:
        arena.crew.restart(worker)
    yield


REDIS: Final[dict[str, Block]] = {
    "redis hangs": redis_hangs,
    "redis killed, empty again": redis_is_killed,
    "redis flushed": redis_is_flushed,
    "scripts flushed": scripts_are_forgotten,
}
REDIS_WAY: Final[dict[str, Block]] = {
    "redis unreachable": nobody_gets_through,
    "redis replies lost": _redis(LOST, 0.15),
    "redis replies lost, connections cut": _redis(LOST_AND_CUT, 0.15),
    "redis requests lost": _redis(Fault(lost="request"), 0.15),
    "redis replies late": _redis(Fault(delay_seconds=LATE_SECONDS), 0.15),
}
DATABASE: Final[dict[str, Block]] = {
    "database killed": database_is_killed,
    "database away for a minute": database_is_away,
    "database connections reset": connections_are_reset,
}
DATABASE_WAY: Final[dict[str, Block]] = {
    "database replies lost, connections cut": _database(LOST_AND_CUT, 0.04),
    "database requests lost, connections cut": _database(UNSENT_AND_CUT, 0.04),
    "database commits lost": commits_are_lost,
    "database replies slow": _database(Fault(delay_seconds=SLOW_SECONDS), 0.2),
}
CLUSTER: Final[dict[str, Block]] = {
    "primary killed, failover": primary_is_killed,
    "failover with lost writes": writes_are_lost,
    "cluster flushed": cluster_is_flushed,
}
WORKERS: Final[dict[str, Block]] = {
    "worker killed": worker_is_killed,
    "worker dies after a commit": worker_dies_after_a_commit,
    "all workers killed": all_workers_are_killed,
}
BRINGS: Final[dict[Outcome, tuple[str, ...]]] = {
    Outcome.HOST_LOST: ("database commits lost",),
    Outcome.LOST_REPLY: ("database commits lost", "worker dies after a commit"),
    Outcome.UNAVAILABLE: ("database away for a minute",),
    Outcome.LOST_WRITES: ("failover with lost writes",),
    Outcome.LOCAL: ("redis unreachable",),
    Outcome.BREAKER_OPEN: ("redis unreachable", "primary killed, failover"),
    Outcome.REBUILT: ("redis flushed", "cluster flushed"),
}
"""Which faults come again where an outcome was not reached."""
EVERY: Final = REDIS | REDIS_WAY | DATABASE | DATABASE_WAY | CLUSTER | WORKERS
