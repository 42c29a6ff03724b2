"""A worker process: threads on a Comptroller, or tasks on an AsyncComptroller.

Each line on its standard input is a number: every lane goes on to that operation, and a line of JSON says that all have
got there. It ends with its input, which its last line says, or is killed. Whatever it writes to its standard error is
a failure.
"""

from __future__ import annotations

import asyncio
import faulthandler
import json
import logging
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, NullPool, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from policies.errors import StoreUnavailable
from quota import AsyncComptroller, Comptroller, Grant
from quota.prefilter.front import Front
from quota.redis import Script
from tests.faults.clock import DOOMED, Board, SharedClock
from tests.faults.lanes import Call, Hosted, Lane
from tests.faults.plan import Plan, policies
from tests.servers.process import READY_SECONDS, until


@dataclass(frozen=True)
class Settings:
    """What a worker is. `lanes`: their names; each has the place on the board that follows `first_slot`."""

    seed: int
    folder: str
    database: str
    redis: str
    lanes: tuple[str, ...]
    first_slot: int
    number: int
    """From 1 on."""
    awaited: bool = False
    budget: bool = False

    def text(self) -> str:
        return json.dumps(asdict(self))


def counted(front: Front) -> Counter[str]:
    """Count from now on what Redis is told of what SQL said: which messages it takes."""
    told, redis = Counter[str](), front.redis
    tell = redis.run_many

    def run_many(script: Script, calls: Sequence[Any]) -> list[Any]:
        replies = tell(script, calls)
        for (_, args), reply in zip(calls, replies, strict=True):
            told[args[0]] += reply == 1
        return replies

    vars(redis)["run_many"] = run_many
    return told


class Worker:
    """The lanes of one process, their Comptroller and the host's engine."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.board = Board(Path(settings.folder) / "board")
        self.comptroller = self._opened()
        assert self.comptroller._front is not None
        self.told = counted(self.comptroller._front)
        self.awaited = AsyncComptroller(self.comptroller) if settings.awaited else None
        self.host = _host(settings.database)
        self.awaited_host = _awaited_host(settings.database)
        self.lanes = [self._lane(place, name) for place, name in enumerate(settings.lanes)]

    def _opened(self) -> Comptroller:
        clock, rules = SharedClock(self.board), policies(budget=self.settings.budget)
        opened: list[Comptroller] = []

        def is_open() -> bool:
            with suppress(StoreUnavailable):  # it may be down when a worker is started again
                database, redis = self.settings.database, self.settings.redis
                opened.append(Comptroller.open(rules, database, redis, clock, "check"))
            return bool(opened)

        until("the database does not come back", READY_SECONDS, is_open)
        return opened[0]

    def _lane(self, place: int, name: str) -> Lane:
        def done(number: int) -> None:
            self.board[self.settings.first_slot + place] = number

        plan = Plan(self.settings.seed, name)
        path = Path(self.settings.folder) / f"{name}.jsonl"
        return Lane(name, plan, path, self._is_open, done)

    def _is_open(self) -> bool:
        front = self.comptroller._front
        assert front is not None
        states = set(front.redis.states.values())
        if self.awaited is not None and self.awaited._redis is not None:
            states |= set(self.awaited._redis._redis.states.values())
        return "open" in states

    def run(self, target: int) -> None:
        """Let every lane go on to operation `target`."""
        if self.awaited is None:
            with ThreadPoolExecutor(len(self.lanes)) as pool:
                list(pool.map(lambda lane: self._drive(lane, target), self.lanes))

    async def run_awaited(self, target: int) -> None:
        await asyncio.gather(*(self._drive_awaited(lane, target) for lane in self.lanes))

    def _drive(self, lane: Lane, target: int) -> None:
        for call in lane.calls(target):
            try:
                answer = call.on(self.comptroller) if call.hosted is None else self._hosted(call)
            except Exception as error:  # noqa: BLE001 - whatever it is, the lane writes it down
                answer = error
            self._perhaps_die(call, answer)
            lane.heard(answer)

    async def _drive_awaited(self, lane: Lane, target: int) -> None:
        for call in lane.calls(target):
            try:
                hosted = call.hosted is not None
                answer = await (self._hosted_awaited(call) if hosted else call.on(self.awaited))
            except Exception as error:  # noqa: BLE001 - the same
                answer = error
            self._perhaps_die(call, answer)
            lane.heard(answer)

    def _perhaps_die(self, call: Call, answer: object) -> None:
        """End as a crash does, after a commit and before anybody hears of it, where the conductor wants that."""
        if self.board[DOOMED] != self.settings.number or not isinstance(answer, Grant):
            return
        ours = call.method == "admit" and not str(call.kwargs["key"]).startswith("shared")
        if ours and answer.decided_by == "sql" and not answer.replayed:
            os.kill(os.getpid(), signal.SIGKILL)

    def _hosted(self, call: Call) -> Any:
        """Admit in a host's session, which then commits or rolls back: what goes wrong there is the host's own."""
        with _session(self.host) as session:
            answer = self.comptroller.admit(**call.kwargs, session=session)
            try:
                if call.hosted == "rollback":
                    session.rollback()
                    return Hosted(answer, "rolled back")
                session.commit()
            except DBAPIError:  # its server is gone, or its reply is
                return Hosted(answer, "rolled back" if call.hosted == "rollback" else "lost")
            return Hosted(answer, "committed")

    async def _hosted_awaited(self, call: Call) -> Any:
        """Do the same in a host's AsyncSession."""
        assert self.awaited is not None
        async with _awaited_session(self.awaited_host) as session:
            answer = await self.awaited.admit(**call.kwargs, session=session)
            try:
                if call.hosted == "rollback":
                    await session.rollback()
                    return Hosted(answer, "rolled back")
                await session.commit()
            except DBAPIError:
                return Hosted(answer, "rolled back" if call.hosted == "rollback" else "lost")
            return Hosted(answer, "committed")

    def report(self, target: int) -> None:
        print(json.dumps({"reached": target, "told": self.told}), flush=True)

    def close(self) -> None:
        self.host.dispose()
        self.board.close()


@contextmanager
def _session(engine: Engine) -> Iterator[Session]:
    session = Session(engine)
    try:
        yield session
    finally:
        try:
            session.close()
        except DBAPIError:  # on a connection that is gone
            session.invalidate()


@asynccontextmanager
async def _awaited_session(engine: AsyncEngine) -> AsyncIterator[AsyncSession]:
    session = AsyncSession(engine)
    try:
        yield session
    finally:
        try:
            await session.close()
        except DBAPIError:
            await session.invalidate()


def _awaited_host(database: str) -> AsyncEngine:
    if database.startswith("postgresql:"):
        return create_async_engine(database.replace(":", "+psycopg:", 1), poolclass=NullPool)
    url = database.replace(":", "+aiosqlite:", 1)
    return create_async_engine(url, poolclass=NullPool, connect_args={"timeout": 10})


def _host(database: str) -> Engine:
    if database.startswith("postgresql:"):
        return create_engine(database.replace(":", "+psycopg:", 1), poolclass=NullPool)
    return create_engine(database, poolclass=NullPool, connect_args={"timeout": 10})


def targets() -> Iterator[int]:
    while line := sys.stdin.readline():
        yield int(line)


async def work_awaited(worker: Worker) -> None:
    assert worker.awaited is not None
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        await worker.run_awaited(int(line))
        worker.report(int(line))
    await worker.awaited_host.dispose()
    await worker.awaited.close()


def main(settings: dict[str, Any]) -> None:
    faulthandler.register(signal.SIGUSR1)  # the conductor asks where it hangs
    said = logging.StreamHandler()
    said.setLevel(logging.ERROR)  # that a server is away may be warned of
    logging.basicConfig(handlers=[said])
    worker = Worker(Settings(**settings))
    if worker.awaited is not None:
        asyncio.run(work_awaited(worker))
    else:
        for target in targets():
            worker.run(target)
            worker.report(target)
        worker.comptroller.close()
    worker.close()
    print(json.dumps({"ended": "well"}), flush=True)
