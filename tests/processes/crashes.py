"""Crash at SQL statement n: `python -m tests.processes.crashes OPERATION FOLDER`.

For each n a forked child does the operation on a copy of the same database and dies, by `os._exit`, as statement n
begins (BEGIN and COMMIT are statements too); the last n is the one after the last statement: committed, but the reply
is lost. A second child opens the books again, tells whether they hold all or nothing of the operation, does it again
under the same key, and tells what they hold then. One line of JSON for each n.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from sqlalchemy import event

from policies.policy_set import PolicySet
from quota import Comptroller
from quota.testing import FakeClock
from tests.world import HOUR, START, discrepancies, plan

POLICIES: Final[PolicySet] = plan(
    "{paid_use: auto, sources: [{kind: daily_allowance, units: 3, split: true}, {kind: credits}]}",
    more="budgets: {all: {usd_per_day: 1000}}",
)
CRASHED: Final = 7
STATEMENTS_MAX: Final = 300
NOW: Final = START + timedelta(minutes=50)

State = list[list[Any]]


def prepare(database: str) -> None:
    """Make books with two lots, one of them held, a grant to end and a grant whose hold expires soon."""
    clock = FakeClock(START)
    with Comptroller.open(POLICIES, database, clock=clock) as comptroller:
        for account in ("u", "due"):
            comptroller.record_purchase(account, pack="three", reference=f"first-{account}")
            comptroller.record_purchase(account, pack="ten", reference=f"second-{account}")
        comptroller.admit(account="due", operation="clip", attributes={"n": 5}, key="expires")
        clock.set(NOW)
        comptroller.admit(account="u", operation="clip", attributes={"n": 5}, key="held")


OPERATIONS: Final[dict[str, Callable[[Comptroller], object]]] = {
    "admit_free": lambda c: c.admit(
        account="v", operation="clip", attributes={"prompt": "p"}, key="k", member="ann"
    ),
    "admit_paid": lambda c: c.admit(
        account="u", operation="clip", attributes={"n": 4, "prompt": "p"}, key="k"
    ),
    "admit_after_dues": lambda c: c.admit(
        account="due", operation="clip", attributes={"n": 9}, key="k"
    ),
    "settle": lambda c: c.settle("gr_1_1", gpu_seconds=5, delivered={"n": 4}),
    "release": lambda c: c.release("gr_1_1", reason="failed", gpu_seconds=5),
    "record_purchase": lambda c: c.record_purchase("w", pack="ten", reference="order"),
    "refund_lot": lambda c: c.refund_lot("lot_1_2", reference="refund"),
}


def opened(database: str, name: str) -> Comptroller:
    at = NOW + HOUR if name == "admit_after_dues" else NOW
    return Comptroller.open(POLICIES, database, clock=FakeClock(at))


def state(comptroller: Comptroller) -> State:
    """Return all that the books say, apart from what is random: salts, and what is hashed with them."""
    tables = {
        "record": "book_id, seq, kind, at, once",
        "transfer": "*",
        "line": "book_id, seq, idx, kind, at, source, lot_no, units, lot_units, revenue_minor",
        "lot_balance": "*",
        "hold": "book_id, grant_no, expires_at",
        "ending": "*",
        "grant": "book_id, number, allocations",
        "account_name": "name, book_id",
        "payment_reference": "origin, reference, book_id, lot_no",
        "budget_day": "*",
        "book": "id, seq, at, grants, lots",
    }
    with comptroller._db.reading() as db:
        cursor = db.driver.cursor()
        return [
            [table, *row]
            for table, columns in tables.items()
            for row in cursor.execute(f"SELECT {columns} FROM comptroller_{table} ORDER BY 1, 2")
        ]


def crash(database: str, name: str, at: int) -> None:
    """Do the operation, and die as its statement number `at` begins."""
    comptroller, seen = opened(database, name), 0

    def count(statement: str) -> None:
        nonlocal seen
        if statement.startswith("--"):
            return  # a trigger's
        seen += 1
        if seen == at:
            os._exit(CRASHED)

    # Connections that the pool holds already, and those that it will make.
    comptroller._db.engine.dispose()
    event.listen(
        comptroller._db.engine, "connect", lambda driver, _: driver.set_trace_callback(count)
    )
    OPERATIONS[name](comptroller)
    os._exit(CRASHED if seen + 1 == at else 0)


def check(database: str, name: str, before: State, after: State) -> dict[str, Any]:
    """Open the books again: all or nothing must be there, and the same call must leave one effect."""
    with opened(database, name) as comptroller:
        found = json.loads(json.dumps(state(comptroller)))
        left = "nothing" if found == before else "all" if found == after else "a part"
        wrong = [str(each) for each in discrepancies(comptroller)]
        OPERATIONS[name](comptroller)
        again = json.loads(json.dumps(state(comptroller)))
        wrong += [str(each) for each in discrepancies(comptroller)]
    return {"left": left, "one_effect": again == after, "wrong": wrong}


def in_child(work: Callable[[], None]) -> int:
    """Do something in a forked child, and return how it ended."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException as error:  # noqa: BLE001 - whatever it is, this child ends here
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(name: str, folder: str) -> int:
    template, copy, told = (Path(folder) / each for each in ("template.db", "copy.db", "told"))
    url = f"sqlite:///{copy}"

    def fresh() -> None:
        for suffix in ("-wal", "-shm"):
            Path(f"{copy}{suffix}").unlink(missing_ok=True)
        shutil.copyfile(template, copy)

    def tell(content: Callable[[], Any]) -> None:
        told.write_text(json.dumps(content()))

    def whole() -> list[State]:
        with opened(url, name) as comptroller:
            before = state(comptroller)
            OPERATIONS[name](comptroller)
            return [before, state(comptroller)]

    assert in_child(lambda: prepare(f"sqlite:///{template}")) == 0
    fresh()
    assert in_child(lambda: tell(whole)) == 0
    before, after = json.loads(told.read_text())
    for n in range(1, STATEMENTS_MAX):
        fresh()
        ended = in_child(lambda n=n: crash(url, name, n))  # type: ignore[misc]
        if ended == 0:
            return 0
        assert ended == CRASHED, ended
        assert in_child(lambda: tell(lambda: check(url, name, before, after))) == 0
        print(json.dumps({"n": n, **json.loads(told.read_text())}), flush=True)
    return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
