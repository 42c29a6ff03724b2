"""Real processes on one database: each runs a function of this module, with threads inside where it says so."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

from policies.policy_set import PolicySet
from quota import AccountBusy, Comptroller, ComptrollerError, Grant
from tests.world import POLICIES, START

PROJECT = Path(__file__).resolve().parent.parent.parent


def opened(database: str, at: datetime = START) -> Comptroller:
    return Comptroller.open(PolicySet.parse(POLICIES), database, clock=lambda: at)


def together(function: Callable[..., Any], arguments: Sequence[Sequence[Any]]) -> list[Any]:
    """Run a function of this module in one process for each tuple of arguments, all at once."""
    program = (
        "import json, sys; from tests.processes import workers;"
        "name, text = sys.argv[1:]; print('ready', flush=True); sys.stdin.readline();"
        "print(json.dumps(getattr(workers, name)(*json.loads(text))), flush=True)"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, function.__name__, json.dumps(list(each))],
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for each in arguments
    ]
    for process in started:  # a barrier: nobody begins before all are there
        assert process.stdout is not None
        ready = process.stdout.readline()
        assert ready == "ready\n", process.communicate()[1]
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return [_answer(process) for process in started]


def _answer(process: subprocess.Popen[str]) -> Any:
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return json.loads(output)


def admit_many(database: str, prefix: str, count: int, threads: int) -> dict[str, int]:
    """Ask for one unit so many times, under keys of one's own; retry what the contract says to retry."""
    with opened(database) as comptroller, ThreadPoolExecutor(threads) as pool:
        answers = pool.map(
            lambda number: _admitted(comptroller, f"{prefix}-{number}", "u"), range(count)
        )
        return dict(Counter(answers))


def admit_same(database: str, key: str, accounts: Sequence[str]) -> list[list[str]]:
    """Ask each account for the same thing under the same key."""
    with opened(database) as comptroller:
        return [_asked(comptroller, key, account) for account in accounts]


def _asked(comptroller: Comptroller, key: str, account: str) -> list[str]:
    decision = comptroller.admit(account=account, operation="clip", key=key)
    if isinstance(decision, Grant):
        return [decision.id, "replayed" if decision.replayed else "granted"]
    return ["", str(decision.reason)]


def _admitted(comptroller: Comptroller, key: str, account: str) -> str:
    for _ in range(5):
        try:
            return _asked(comptroller, key, account)[1]
        except AccountBusy:
            continue
        except ComptrollerError as error:
            return type(error).__name__
    return "AccountBusy"


def end_all(database: str, how: str, grants: Sequence[str], at: str) -> list[list[Any]]:
    """End each grant in one way, at an instant: settle, release, or sweep it once it has expired."""
    with opened(database, datetime.fromisoformat(at)) as comptroller:
        answers = []
        for grant in grants:
            if how == "sweep":
                comptroller.sweep()
                continue
            ending = (
                comptroller.settle(grant, gpu_seconds=3)
                if how == "settle"
                else comptroller.release(grant, reason="cancelled")
            )
            answers.append([ending.status, ending.by_this_call])
        return answers


def buy_same(database: str, reference: str, count: int) -> list[list[Any]]:
    """Record the same purchases, each under a reference that the others use too."""
    with opened(database) as comptroller:
        return [
            [issued.id, issued.replayed]
            for number in range(count)
            for issued in (
                comptroller.record_purchase("u", pack="ten", reference=f"{reference}-{number}"),
            )
        ]


def open_and_close(database: str) -> str:
    """Open a database that does not exist yet, as several processes of a host do when they start."""
    with opened(database) as comptroller:
        return str(comptroller.health().schema_version)
