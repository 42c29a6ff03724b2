"""What an admit costs on PostgreSQL as an account's history grows, and as accounts grow in number.

The many rows are copies of those that the engine has written for one account: made in the database, since a million
admits would take the day. Copies are not chained, and nobody verifies them; an admit does not notice.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, Final

import psycopg

from policies import PolicySet
from quota import Comptroller
from quota.testing import FakeClock
from tests.bench.history import DAILY_POLICIES, STEP
from tests.bench.rounds import Block, Ratio, Side, compare
from tests.servers import Postgres

FEW, MANY = 1_000, 1_000_000
SHORT, LONG = 10, 100_000
BLOCK, ROUNDS = 30, 11
AT_MOST = "at least 0.77 (1.3 times the cost)"
UNCHECKED: Final = "SET session_replication_role = replica"
"""No triggers, and no references to look up for each of some million rows."""

HISTORY: Final = ("record", "transfer", "line", '"grant"', "ending")
BOOKS: Final = {
    "book": "id",
    "account_name": "book_id",
    "ledger_account": "book_id",
    **dict.fromkeys(HISTORY, "book_id"),
}
"""The tables with rows of a settled grant, and their column of the book."""


def run() -> Iterator[Ratio]:
    """Compare the many with the few, and the long with the short."""
    with Postgres() as server:
        yield compare(
            f"admit among {MANY:,} accounts",
            AT_MOST,
            (f"{MANY:,} accounts", _accounts(server, MANY)),
            (f"{FEW:,} accounts", _accounts(server, FEW)),
            rounds=ROUNDS,
        )
        yield compare(
            f"admit after {LONG:,} grants, PostgreSQL",
            AT_MOST,
            (f"{LONG:,} grants of history", _history(server, LONG)),
            (f"{SHORT} grants of history", _history(server, SHORT)),
            rounds=ROUNDS,
        )


def _accounts(server: Postgres, accounts: int) -> Side:
    """Admit for accounts in turn, among so many."""
    url, clock = server.fresh_database(), FakeClock()
    engine = Comptroller.open(PolicySet.parse(DAILY_POLICIES), url, clock=clock)
    first = _admit(engine, clock, "a1", "first")
    engine.settle(first, gpu_seconds=130)
    _copy_accounts(url, accounts)
    # Far apart, so that no page of the tables is warm because a neighbour was just asked for.
    names = itertools.cycle(f"a{1 + (7919 * number) % accounts}" for number in range(accounts))
    keys = itertools.count()

    def prepare() -> Block:
        def block() -> int:
            for _ in range(BLOCK):
                _admit(engine, clock, next(names), f"k{next(keys)}")
            return BLOCK

        return block

    return prepare


def _history(server: Postgres, grants: int) -> Side:
    """Admit for one account with so many grants behind it."""
    url, clock = server.fresh_database(), FakeClock()
    engine = Comptroller.open(PolicySet.parse(DAILY_POLICIES), url, clock=clock)
    clock.advance(days=1000)
    engine.settle(_admit(engine, clock, "a1", "first"), gpu_seconds=130)
    if grants > SHORT:
        _copy_history(url, grants)
    for number in range(SHORT):
        engine.settle(_admit(engine, clock, "a1", f"more-{number}"), gpu_seconds=130)
    keys, held = itertools.count(), list[str]()

    def prepare() -> Block:
        while held:
            engine.settle(held.pop(), gpu_seconds=130)

        def block() -> int:
            for _ in range(BLOCK):
                held.append(_admit(engine, clock, "a1", f"k{next(keys)}"))
            return BLOCK

        return block

    return prepare


def _admit(engine: Comptroller, clock: FakeClock, account: str, key: str) -> str:
    clock.advance(STEP)
    asked = {"operation": "video.generate", "attributes": {"seconds": 10}}
    decision = engine.admit(account=account, key=key, **asked)  # type: ignore[arg-type]
    if not decision:
        raise AssertionError(f"the benchmark must measure grants: {decision}")
    return decision.id


def _copy_accounts(url: str, accounts: int) -> None:
    """Give `accounts` others what the first account has."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(UNCHECKED)
        for table, book in BOOKS.items():
            others = f"generate_series(2, {accounts}) AS n WHERE old.{book} = 1"
            _copy(connection, table, {book: "n", "name": "'a' || n"}, others)
        connection.execute("VACUUM ANALYZE")


def _copy_history(url: str, grants: int) -> None:
    """Give the account `grants` copies of its first grant, all of them older."""
    older = f"interval '10 minutes' * ({grants} + 1 - n)"
    moved = {name: f"old.{name} - {older}" for name in ("at", "counts_at", "recorded_at")}
    numbered = {
        "seq": "old.seq + 2 * n",
        "number": "old.number + n",
        "grant_no": "old.grant_no + n",
    }
    named = {"once": "old.once || '-' || n", "key_hash": "old.key_hash || n"}
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(UNCHECKED)
        for table in HISTORY:
            others = f"generate_series(1, {grants}) AS n WHERE old.book_id = 1"
            _copy(connection, table, moved | numbered | named, others)
        connection.execute(
            f"UPDATE comptroller.book SET seq = seq + 2 * {grants}, grants = grants + {grants}"
        )
        connection.execute("VACUUM ANALYZE")


def _copy(
    connection: psycopg.Connection[Any], table: str, changed: dict[str, str], others: str
) -> None:
    """Insert copies of a table's rows, with some columns changed."""
    described = connection.execute(f"SELECT * FROM comptroller.{table} LIMIT 0").description
    columns = [column.name for column in described or ()]
    names = ", ".join(f'"{name}"' for name in columns)
    chosen = ", ".join(changed.get(name, f'old."{name}"') for name in columns)
    rows = f"SELECT {chosen} FROM comptroller.{table} AS old, {others}"
    connection.execute(f"INSERT INTO comptroller.{table} ({names}) OVERRIDING SYSTEM VALUE {rows}")
