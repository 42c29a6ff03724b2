"""Grants of four processes under one budget on PostgreSQL: leased in blocks, against the plain row that all share.

The server writes to the disk, and once more as if its disk or its standby were some milliseconds away: the server's
own `commit_delay`. The plain row is charged as SQLite charges it, within the account's transaction, so that
every grant waits for the commits of all before it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from quota import Comptroller
from quota.stores import postgres
from quota.testing import FakeClock
from tests.bench.rounds import Block, Ratio, Side, compare
from tests.servers import Postgres
from tests.world import plan

PROCESSES = 4
THREADS = 8
EACH = 12
ROUNDS = 7
PROJECT = Path(__file__).resolve().parent.parent.parent
POLICIES = plan(
    "{sources: [{kind: daily_allowance, units: 1000000}]}",
    more="budgets: {all: {usd_per_day: 1000000}}",
)


def worker(database: str, name: str, how: str) -> None:
    """Grant so many requests in each thread for each line that is read."""
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        if how == "plain":
            patch.setattr(postgres, "Charging", lambda holder: None)
        opened = Comptroller.open(POLICIES, database, clock=FakeClock())
        comptroller = stack.enter_context(opened)
        pool = stack.enter_context(ThreadPoolExecutor(THREADS))

        def grants(round_and_thread: tuple[int, int]) -> None:
            number, thread = round_and_thread
            for each in range(EACH):
                account = f"{name} {thread}"
                key = f"{number} {each}"
                assert comptroller.admit(account=account, operation="clip", key=key)

        for number, _ in enumerate(sys.stdin):
            list(pool.map(grants, ((number, thread) for thread in range(THREADS))))
            print("done", flush=True)


@contextmanager
def _processes(database: str, how: str) -> Iterator[Side]:
    """Start processes that grant in one way, and yield what has each grant a number of requests."""
    with ExitStack() as stack:
        started: list[subprocess.Popen[str]] = []
        for number in range(PROCESSES):
            command = [sys.executable, "-m", "tests.bench.budgets", database, f"{how}{number}", how]
            process = subprocess.Popen(
                command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            started.append(stack.enter_context(process))

        def block() -> int:
            for process in started:
                assert process.stdin is not None
                process.stdin.write("go\n")
                process.stdin.flush()
            for process in started:
                assert process.stdout is not None
                assert process.stdout.readline() == "done\n"
            return PROCESSES * THREADS * EACH

        def prepare() -> Block:
            return block

        yield prepare


def run() -> Iterator[Ratio]:
    """Compare both ways on one server each, both on a database of its own."""
    for where, milliseconds in (("this disk", 0), ("a disk 5 ms away", 5)):
        delay = {"commit_delay": str(1000 * milliseconds), "commit_siblings": "0"}
        with Postgres(durable=True, settings=delay) as server, ExitStack() as stack:
            sides = {}
            for how in ("leased", "plain"):
                database = stack.enter_context(server.database())
                Comptroller.open(POLICIES, database, clock=FakeClock()).close()
                sides[how] = stack.enter_context(_processes(database, how))
            yield compare(
                f"grants of {PROCESSES} processes under one budget, {where}",
                "",
                ("leased in blocks", sides["leased"]),
                ("one row for all", sides["plain"]),
                rounds=ROUNDS,
            )


if __name__ == "__main__":
    worker(*sys.argv[1:])
