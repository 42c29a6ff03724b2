"""Where a scenario takes place: its servers, the ways to them, the clock, the workers; and what has come of it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from quota import Comptroller
from tests.databases import migrate
from tests.faults.clock import Board, SharedClock
from tests.faults.journal import Entry
from tests.faults.load import Crew
from tests.faults.outcomes import Outcome
from tests.faults.plan import LIMITS, policies
from tests.faults.worker import Settings
from tests.servers import Cluster, Postgres, Redis
from tests.servers.proxy import Proxy
from tests.world import START

T = TypeVar("T")
LANES: Final = ((3, False), (2, False), (3, True))
"""The workers: how many lanes each has, and whether they are tasks on an AsyncComptroller."""
CRASH_SAFE: Final = {"synchronous_commit": "on"}
"""What was committed survives the server's end by SIGQUIT; a power cut is no fault of these."""


@dataclass
class Arena:
    """One scenario's world. Only what it is made of can be asked for."""

    seed: int
    folder: Path
    board: Board
    clock: SharedClock
    rng: random.Random
    database: str
    """The database by the direct way, for whoever counts."""
    crew: Crew = field(init=False)
    servers: dict[str, Any] = field(default_factory=dict)
    faults: Counter[str] = field(default_factory=Counter)
    reached: Counter[Outcome] = field(default_factory=Counter)
    asked: list[Entry] = field(default_factory=list)
    """What the conductor has asked itself."""
    wrong: list[str] = field(default_factory=list)
    budget: bool = False
    """Whether grants are charged to a budget."""
    is_cold: bool = False
    """Whether Redis has forgotten everything since the last look."""

    @property
    def redis(self) -> Redis:
        return self._server("redis", Redis)

    @property
    def redis_way(self) -> Proxy:
        return self._server("redis way", Proxy)

    @property
    def cluster(self) -> Cluster:
        return self._server("cluster", Cluster)

    @property
    def postgres(self) -> Postgres:
        return self._server("postgres", Postgres)

    @property
    def database_way(self) -> Proxy:
        return self._server("database way", Proxy)

    @property
    def redis_url(self) -> str:
        """Redis by the direct way."""
        return self.redis.url if "redis" in self.servers else self.cluster.url

    @property
    def clients(self) -> list[tuple[int, int]]:
        """For each worker: how many circuit breakers it has, and how many calls may be under way at each."""
        return [(2 if awaited else 1, lanes + 1) for lanes, awaited in LANES]

    def a_slot(self) -> int:
        """The Cluster's slot of one of the accounts."""
        return self.cluster.slot_of(redis_key(self.rng.choice(list(LIMITS))))

    def opened(self, *, redis: bool) -> Comptroller:
        """Open the books by the direct way, with Redis in front or without."""
        url = self.redis_url if redis else None
        rules = policies(budget=self.budget)
        return Comptroller.open(rules, self.database, url, self.clock, "check")

    def entries(self) -> list[Entry]:
        return [*self.crew.entries(), *self.asked]

    def _server(self, name: str, kind: type[T]) -> T:
        server = self.servers[name]
        assert isinstance(server, kind)
        return server


def redis_key(account: str) -> str:
    return f"comptroller:{{{account}}}"


@contextmanager
def an_arena(
    folder: Path,
    *,
    seed: int,
    database: Literal["sqlite", "postgresql"],
    cluster: bool = False,
    budget: bool = False,
) -> Iterator[Arena]:
    """Start everything, and end it for sure."""
    with ExitStack() as ending:
        servers: dict[str, Any] = {}
        direct = f"sqlite:///{folder}/books.db"
        if database == "postgresql":
            postgres = ending.enter_context(Postgres(settings=CRASH_SAFE))
            direct = postgres.fresh_database()
            way = ending.enter_context(Proxy(direct, seed=seed))
            servers |= {"postgres": postgres, "database way": way}
        if cluster:
            servers["cluster"] = ending.enter_context(Cluster(replicas=1))
        else:
            redis = ending.enter_context(Redis())
            redis_way = ending.enter_context(Proxy(redis.url, seed=seed))
            servers |= {"redis": redis, "redis way": redis_way}
        migrate(direct)
        board = Board(folder / "board")
        ending.callback(board.close)
        clock = SharedClock(board)
        clock.set(START)
        rng = random.Random(f"{seed}/conductor")
        arena = Arena(seed, folder, board, clock, rng, direct, servers=servers, budget=budget)
        arena.crew = Crew(_settings(arena), board)
        ending.callback(arena.crew.end)
        yield arena


def _settings(arena: Arena) -> list[Settings]:
    database = arena.servers.get("database way")
    redis = arena.servers.get("redis way") or arena.servers["cluster"]
    found: list[Settings] = []
    slot = 1
    for number, (lanes, awaited) in enumerate(LANES):
        names = tuple(f"w{number}{'abc'[lane]}" for lane in range(lanes))
        url = database.url if database else arena.database
        settings = Settings(
            arena.seed,
            str(arena.folder),
            url,
            redis.url,
            names,
            slot,
            number + 1,
            awaited,
            arena.budget,
        )
        found.append(settings)
        slot += lanes
    return found
