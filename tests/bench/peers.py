"""Other limiters on the same Redis: how fast they are for four limits, and what they do where things go wrong.

Two questions to each. Ten requests under 2 a minute and 30 a day: how many of the day are gone? And one request whose
reply is lost on the way: how often was it counted, and what does asking again do?
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final, NamedTuple, Protocol

import redis
from limits import parse
from limits.storage import RedisStorage
from limits.strategies import FixedWindowRateLimiter
from pyrate_limiter import Duration, Limiter, Rate, RedisBucket
from throttled import RedisStore, Throttled, rate_limiter

from policies import PolicySet
from quota import Comptroller
from tests.bench.rounds import Ratio
from tests.servers import Redis
from tests.servers.proxy import Proxy

BLOCK, ROUNDS = 40, 15
WIDE: Final = ((100_000, "minute"), (1_000_000, "hour"), (10_000_000, "day"), (60_000_000, "month"))
NARROW: Final = ((2, "minute"), (30, "day"))
ROOMY: Final = ((100, "minute"), (1000, "day"))
LENGTHS: Final = {"minute": "1m", "hour": "1h", "day": "24h", "month": "720h"}
Limits = tuple[tuple[int, str], ...]


class Peer(Protocol):
    """A limiter with some limits for each account."""

    def admits(self, account: str, key: str) -> bool:
        """Ask for one request."""

    def used_today(self, account: str) -> int:
        """Return how many of the day's requests are gone."""

    def close(self) -> None:
        """Close its connections."""


class Ours:
    """An operation that is limits only: decided in Redis alone."""

    def __init__(self, url: str, limits: Limits) -> None:
        rules = ", ".join(
            f"{{kind: rate, name: {length}, limit: {limit}, per: {LENGTHS[length]}}}"
            for limit, length in limits
        )
        text = (
            "schema: 1\noperations: {ping: {limits_only: true, hold_for: 1m}}\n"
            f"plans: {{p: {{limits: [{rules}], sources: []}}}}\ndefault_plan: p\n"
        )
        self._comptroller = Comptroller.open(PolicySet.parse(text), "sqlite://", redis=url)

    def admits(self, account: str, key: str) -> bool:
        decision = self._comptroller.admit(account=account, operation="ping", key=key)
        return decision.granted and not getattr(decision, "replayed", False)

    def used_today(self, account: str) -> int:
        # What a request that is not granted says it found, besides the granted ones before it.
        decision = self._comptroller.admit(account=account, operation="ping", key="how many")
        return next(found.used for found in decision.findings if found.policy == "day")

    def close(self) -> None:
        self._comptroller.close()


class LimitsPeer:
    """`limits`, fixed windows: each limit is a command of its own."""

    def __init__(self, url: str, limits: Limits) -> None:
        self._limiter = FixedWindowRateLimiter(RedisStorage(url))
        self._items = [parse(f"{limit}/{length}") for limit, length in limits]

    def admits(self, account: str, key: str) -> bool:
        # The widest first, as a list of limits is usually written down.
        return all(self._limiter.hit(item, account) for item in reversed(self._items))

    def used_today(self, account: str) -> int:
        (day,) = [item for item in self._items if item.GRANULARITY.name == "day"]
        return day.amount - self._limiter.get_window_stats(day, account).remaining

    def close(self) -> None:
        self._limiter.storage.storage.close()  # type: ignore[attr-defined]


class PyratePeer:
    """`pyrate-limiter`: its script holds several rates of one key; a limit of another scope is another command."""

    def __init__(self, url: str, limits: Limits) -> None:
        self._redis, self._limits = redis.Redis.from_url(url), limits
        self._buckets: dict[str, list[Limiter]] = {}

    def _of(self, account: str) -> list[Limiter]:
        if account not in self._buckets:
            spans = {"minute": Duration.MINUTE, "hour": Duration.HOUR, "day": Duration.DAY}
            rates = [
                Rate(limit, spans.get(length, Duration.DAY * 30)) for limit, length in self._limits
            ]
            # The account's own rates are one bucket; the widest is that of everybody.
            groups = [(account, rates[:-1]), ("everybody", rates[-1:])]
            self._buckets[account] = [
                Limiter(RedisBucket.init(group, self._redis, f"{name}:{account}"))
                for name, group in reversed(groups)
            ]
        return self._buckets[account]

    def admits(self, account: str, key: str) -> bool:
        return all(limiter.try_acquire(account, blocking=False) for limiter in self._of(account))

    def used_today(self, account: str) -> int:
        return int(self._redis.zcard(f"everybody:{account}"))

    def close(self) -> None:
        for limiter in itertools.chain(*self._buckets.values()):
            limiter.close()
        self._redis.close()


class ThrottledPeer:
    """`throttled-py`, fixed windows: each limit is a command of its own."""

    def __init__(self, url: str, limits: Limits) -> None:
        per = {
            "minute": rate_limiter.per_min,
            "hour": rate_limiter.per_hour,
            "day": rate_limiter.per_day,
        }
        store = RedisStore(server=url)
        self._limiters = {
            length: Throttled(
                using="fixed_window",
                quota=per.get(length, rate_limiter.per_week)(limit),
                store=store,
            )
            for limit, length in reversed(limits)
        }

    def admits(self, account: str, key: str) -> bool:
        return all(
            not limiter.limit(f"{length}:{account}").limited
            for length, limiter in self._limiters.items()
        )

    def used_today(self, account: str) -> int:
        state = self._limiters["day"].peek(f"day:{account}")
        return state.limit - state.remaining

    def close(self) -> None:
        """Its store closes its connections with itself."""


PEERS: Final[dict[str, Callable[[str, Limits], Peer]]] = {
    "Comptroller": Ours,
    "limits": LimitsPeer,
    "pyrate-limiter": PyratePeer,
    "throttled-py": ThrottledPeer,
}


class Behaviour(NamedTuple):
    """What a limiter did: admitted and used up by ten requests; counted for one request whose reply was lost."""

    name: str
    admitted: int
    used: int
    lost: str
    counted: int


def run() -> Iterator[Ratio]:
    """Time a decision on four limits by each, in blocks that take turns."""
    with Redis() as server:
        peers = {name: peer(server.url, WIDE) for name, peer in PEERS.items()}
        times: dict[str, list[float]] = {name: [] for name in peers}
        numbers = itertools.count()
        for number in range(ROUNDS + 1):
            for name, peer in peers.items():
                taken = _p50(peer, numbers)
                if number:  # the first round warms up
                    times[name].append(taken)
        for name in peers:
            if name != "Comptroller":
                yield _ratio(name, times["Comptroller"], times[name])
        for peer in peers.values():
            peer.close()


def behaviours() -> Iterator[Behaviour]:
    """See what each does with a limit that refuses, and with a reply that is lost."""
    for name, peer in PEERS.items():
        with Redis() as server:
            limiter = peer(server.url, NARROW)
            admitted = sum(limiter.admits("u", f"k{number}") for number in range(10))
            used = limiter.used_today("u")
            limiter.close()
            lost, counted = _lost_reply(server, peer)
        yield Behaviour(name, admitted, used, lost, counted)


def _lost_reply(server: Redis, peer: Callable[[str, Limits], Peer]) -> tuple[str, int]:
    """Ask for one request after another; the reply to the second is lost, and it is asked for once more."""
    server.flush()
    with Proxy(server.url) as proxy:
        limiter = peer(proxy.url, ROOMY)
        limiter.admits("u", "first")
        proxy.drop_replies(1, cut=True)
        try:
            said = "admitted" if limiter.admits("u", "second") else "refused"
        except Exception as error:  # noqa: BLE001 - whatever a peer raises
            said = f"raises {type(error).__name__}"
        again = "refused"
        with suppress(Exception):
            again = "admitted" if limiter.admits("u", "second") else "known"
        with suppress(Exception):
            limiter.close()
    straight = peer(server.url, ROOMY)
    counted = straight.used_today("u")
    straight.close()
    return f"{said}, then {again}", counted


def _p50(peer: Peer, numbers: Iterator[int]) -> float:
    times = []
    for _ in range(BLOCK):
        number = next(numbers)
        began = time.perf_counter()
        admitted = peer.admits(f"u{number % 20}", f"k{number}")
        times.append(time.perf_counter() - began)
        if not admitted:
            raise AssertionError("the benchmark must measure requests that are admitted")
    return statistics.median(times) * 1_000_000


def _ratio(name: str, ours: list[float], theirs: list[float]) -> Ratio:
    ratios = [other / mine for mine, other in zip(ours, theirs, strict=True)]
    return Ratio(
        name="four limits, p50, sync",
        ours="Comptroller, limits only, with a key",
        other=name,
        ours_us=statistics.median(ours),
        other_us=statistics.median(theirs),
        median=statistics.median(ratios),
        least=min(ratios),
        greatest=max(ratios),
        wanted="for comparison",
    )
