"""Crash at SQL statement n: `python -m tests.processes.crashes OPERATION KIND FOLDER`.

For each n a forked child does the operation and dies, by `os._exit`, as statement n begins (BEGIN and COMMIT are
statements too); the last n is the one after the last statement: committed, but the reply is lost. A second child opens
the books again, and tells whether they hold all or nothing of the operation. Where they hold any of it, and at first,
it does the operation again under the same key, and tells what they hold then; the next n has a new copy of the books.
One line of JSON for each n.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import psycopg
from sqlalchemy import event

from quota import Comptroller
from tests.processes.operations import OPERATIONS, State, opened, prepare, state
from tests.servers import shared_postgres
from tests.world import discrepancies

CRASHED: Final = 7
STATEMENTS_MAX: Final = 300


@contextmanager
def a_copy(kind: str, folder: Path, making: Callable[[str], None] = prepare) -> Iterator[str]:
    """Yield the URL of a copy of the books that `making` prepares."""
    if kind == "postgresql":
        with shared_postgres().database(migrate=making) as url:
            yield url
        return
    template, copy = folder / "template.db", folder / "copy.db"
    if not template.exists():
        assert in_child(lambda: making(f"sqlite:///{template}")) == 0
    for suffix in ("-wal", "-shm"):
        Path(f"{copy}{suffix}").unlink(missing_ok=True)
    shutil.copyfile(template, copy)
    yield f"sqlite:///{copy}"


def watch(comptroller: Comptroller, begins: Callable[[], None]) -> None:
    """Call `begins` whenever a statement does, in this process."""
    engine = comptroller._db.engine
    if engine.dialect.name == "sqlite":

        def traced(statement: str) -> None:
            if not statement.startswith("--"):  # those are a trigger's
                begins()

        # Connections that the pool holds already, and those that it will make.
        engine.dispose()
        event.listen(engine, "connect", lambda driver, _: driver.set_trace_callback(traced))
        return
    real: Any = psycopg.Cursor.execute

    def execute(self: Any, *values: Any, **named: Any) -> Any:
        begins()
        return real(self, *values, **named)

    psycopg.Cursor.execute = execute  # type: ignore[method-assign]


def crash(database: str, name: str, at: int) -> None:
    """Do the operation, and die as its statement number `at` begins."""
    comptroller, seen = opened(database, name), 0

    def count() -> None:
        nonlocal seen
        seen += 1
        if seen == at:
            os._exit(CRASHED)

    watch(comptroller, count)
    OPERATIONS[name](comptroller)
    os._exit(CRASHED if seen + 1 == at else 0)


def check(
    database: str, name: str, before: State, after: State, *, at_first: bool
) -> dict[str, Any]:
    """Open the books again: all or nothing must be there, and the same call must leave one effect."""
    with opened(database, name) as comptroller:
        found = plainly(state(comptroller))
        left = "nothing" if found == before else "all" if found == after else "a part"
        if left == "nothing" and not at_first:
            return {"left": left}
        wrong = [str(each) for each in discrepancies(comptroller)]
        OPERATIONS[name](comptroller)
        again = plainly(state(comptroller))
        wrong += [str(each) for each in discrepancies(comptroller)]
    return {"left": left, "one_effect": again == after, "wrong": wrong}


def plainly(content: Any) -> Any:
    """Return what is left after a way through JSON."""
    return json.loads(json.dumps(content, default=str))


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


def main(name: str, kind: str, folder: str) -> int:
    told = Path(folder) / "told"

    def tell(content: Callable[[], Any]) -> int:
        return in_child(lambda: void(told.write_text(json.dumps(plainly(content())))))

    def whole(url: str) -> list[State]:
        with opened(url, name) as comptroller:
            before = state(comptroller)
            OPERATIONS[name](comptroller)
            return [before, state(comptroller)]

    with a_copy(kind, Path(folder)) as url:
        assert tell(lambda: whole(url)) == 0
    before, after = json.loads(told.read_text())
    n = 0
    while n < STATEMENTS_MAX:
        with a_copy(kind, Path(folder)) as url:
            while True:
                n += 1
                ended = in_child(partial(crash, url, name, n))
                if ended == 0:
                    return 0
                assert ended == CRASHED, ended
                assert tell(partial(check, url, name, before, after, at_first=n == 1)) == 0
                found = json.loads(told.read_text())
                print(json.dumps({"n": n, **found}), flush=True)
                if "wrong" in found:
                    break
    return 1


def void(_: object) -> None:
    """Return nothing."""


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
