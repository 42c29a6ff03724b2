"""A process that grants under a budget until it is killed.

Run as `python -m tests.processes.budgets DATABASE NAME USD_PER_DAY [MOST]`.

It writes a line for each grant, so that whoever kills it knows that it has begun. With MOST it stops after so many
grants, or at its first denial, and says how many it was granted and what it was denied for.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from policies.policy_set import PolicySet
from quota import Comptroller, Grant
from quota.testing import FakeClock
from tests.world import START, plan

PROJECT: Final = Path(__file__).resolve().parent.parent.parent
THREADS: Final = 3
FREE: Final = "{sources: [{kind: daily_allowance, units: 1000000}]}"


def capped(usd_per_day: object) -> PolicySet:
    return plan(FREE, more=f"budgets: {{all: {{usd_per_day: {usd_per_day}}}}}")


def started(*arguments: object) -> subprocess.Popen[str]:
    """Start such a process."""
    command = [sys.executable, "-m", "tests.processes.budgets", *map(str, arguments)]
    return subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True)


def grants(comptroller: Comptroller, account: str, most: int) -> tuple[int, str]:
    """Ask for one unit, again and again, and return how often it was granted, and why not any more."""
    for number in range(most):
        decision = comptroller.admit(account=account, operation="clip", key=f"{account}-{number}")
        if not isinstance(decision, Grant):
            return number, str(decision.reason)
        os.write(1, b".\n")
    return most, ""


def main(database: str, name: str, usd_per_day: str, most: str = "1000000000") -> None:
    policies = capped(usd_per_day)
    with (
        Comptroller.open(policies, database, clock=FakeClock(START)) as comptroller,
        ThreadPoolExecutor(THREADS) as pool,
    ):
        threads = [
            pool.submit(grants, comptroller, f"{name} {number}", int(most))
            for number in range(THREADS)
        ]
        told = [thread.result() for thread in threads]
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
