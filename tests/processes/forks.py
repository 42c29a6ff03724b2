"""A pre-forking server: `python -m tests.processes.forks DATABASE [REDIS]`.

The parent opens the books, uses them from several threads, and forks. Then parent and children ask at the same
time, for the same account, and some of it is denied. One line of JSON says what came of it.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from policies.policy_set import PolicySet
from quota import AsyncComptroller, Comptroller, Decision
from tests.world import POLICIES, START, discrepancies

CHILDREN: Final = 3
ASKED: Final = 20
"""By each face of each process, of 30 that there are."""
PATIENCE_SECONDS: Final = 60.0


def ask(comptroller: Comptroller, who: str, threads: int = 4) -> Counter[str]:
    def one(number: int) -> str:
        return counted(comptroller.admit(account="u", operation="clip", key=f"{who}-{number}"))

    with ThreadPoolExecutor(threads) as pool:
        return Counter(pool.map(one, range(ASKED)))


async def ask_async(comptroller: AsyncComptroller, who: str) -> Counter[str]:
    asked = (
        comptroller.admit(account="u", operation="clip", key=f"{who}-{number}")
        for number in range(ASKED)
    )
    return Counter(map(counted, await asyncio.gather(*asked)))


def ask_until_redis_denies(comptroller: Comptroller, who: str) -> Counter[str]:
    """Ask for what is used up: a machine under load may have left every question so far to SQL."""
    answers: Counter[str] = Counter()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not answers["denied by redis"] and time.monotonic() < deadline:
        key = f"{who}-again-{answers.total()}"
        answers[counted(comptroller.admit(account="u", operation="clip", key=key))] += 1
    return answers


def counted(decision: Decision) -> str:
    return "granted" if decision else f"denied by {decision.decided_by}"


def use_before_forking(comptroller: Comptroller, awaited: AsyncComptroller) -> None:
    """Leave behind pooled connections, a thread that writes denials, and threads of the async face."""
    comptroller.set_plan("u", "standard")
    comptroller.admit(account="before", operation="clip", attributes={"n": 30}, key="all")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: comptroller.balance(f"a{n}"), range(8)))

    async def some() -> None:
        await asyncio.gather(*(awaited.balance(f"a{number}") for number in range(8)))
        assert await awaited.admit(account="a0", operation="clip", key="awaited")

    asyncio.run(some())
    assert not comptroller.admit(account="before", operation="clip", key="one more")


def main(database: str, redis: str | None = None) -> None:
    policies = PolicySet.parse(POLICIES)
    comptroller = Comptroller.open(policies, database, redis, clock=lambda: START)
    awaited = AsyncComptroller(comptroller)
    use_before_forking(comptroller, awaited)
    children = []
    for number in range(CHILDREN):
        reading, writing = os.pipe()
        if os.fork() == 0:
            answers = ask(comptroller, f"child-{number}")
            answers += asyncio.run(ask_async(awaited, f"async-{number}"))
            if redis:
                answers += ask_until_redis_denies(comptroller, f"child-{number}")
            comptroller.close()
            os.write(writing, json.dumps(answers).encode())
            sys.exit(0)  # not os._exit: what it has inherited is taken down as in any process
        os.close(writing)
        children.append(reading)
    answers = ask(comptroller, "parent")
    if redis:
        answers += ask_until_redis_denies(comptroller, "parent")
    by_redis = [answers["denied by redis"]]
    for reading in children:
        with os.fdopen(reading) as answer:
            theirs = Counter(json.load(answer))
        by_redis.append(theirs["denied by redis"])
        answers += theirs
    ended = [os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(CHILDREN)]
    after = comptroller.admit(account="after", operation="clip", key="k").granted
    denials = sum(record.count for record in comptroller.denials("u"))
    wrong = [str(each) for each in discrepancies(comptroller)]
    comptroller.close()
    told = {
        "ended": ended,
        "after": after,
        "recorded": denials,
        "by redis": by_redis,
        "wrong": wrong,
    }
    print(json.dumps({**answers, **told}))


if __name__ == "__main__":
    main(*sys.argv[1:])
