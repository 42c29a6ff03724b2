"""The bare rows, read by nothing of the engine: what is written, for checks that count it again."""

from __future__ import annotations

import json
import re
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from tests.faults.clock import EPOCH, MICROSECOND

Part = tuple[str, int, int | None]
"""An allocation: source, units, lot."""


class Line(NamedTuple):
    """What one record did to one window or lot. `counts_at` in microseconds since 1970."""

    book: int
    seq: int
    kind: str
    grant: int | None
    source: str
    lot: int | None
    units: int
    lot_units: int
    counts_at: int | None


class Balance(NamedTuple):
    """A lot's balance."""

    book: int
    lot: int
    came: int
    used: int
    gone: int
    held: int


class Ended(NamedTuple):
    """How a grant ended, and with which record; `units` stay charged."""

    seq: int
    status: str
    units: int


@dataclass(frozen=True)
class Granted:
    """A grant. `at` in microseconds since 1970; `ended` None: it is open."""

    account: str
    book: int
    number: int
    seq: int
    at: int
    key: str
    parts: tuple[Part, ...]
    operation: str
    ended: Ended | None
    late_units: int
    cost: int
    """Its estimated GPU cost, in micro-dollars."""

    @property
    def id(self) -> str:
        return f"gr_{self.book}_{self.number}"


@dataclass(frozen=True)
class Books:
    """All that a database says of who was granted what."""

    grants: tuple[Granted, ...]
    lines: tuple[Line, ...]
    balances: tuple[Balance, ...]
    held: frozenset[tuple[int, int]]
    """(book, grant) of every hold."""
    budgets: Mapping[int, int]
    """By the start of a budget's day, in microseconds since 1970: what was charged on it, in micro-dollars."""

    @property
    def by_key(self) -> dict[tuple[str, str], Granted]:
        return {(grant.account, grant.key): grant for grant in self.grants}


def read_books(database: str) -> Books:
    """Read a database, in one snapshot. Nobody may be in the middle of forgetting an account."""
    lines, ends, late, grants, balances, held, days, blocks = _read(
        database,
        "SELECT book_id, seq, kind, grant_no, source, lot_no, units, lot_units, counts_at"
        " FROM {line} ORDER BY book_id, seq, idx",
        "SELECT book_id, grant_no, seq, status, units_charged FROM {ending}",
        "SELECT book_id, grant_no, units_charged FROM {late_ending}",
        "SELECT n.name, g.book_id, g.number, g.seq, g.at, e.value, g.allocations, g.operation,"
        " g.gpu_cost_micro_usd"
        " FROM {grant} g JOIN {account_name} n ON n.book_id = g.book_id"
        " JOIN {erasable} e ON e.book_id = g.book_id AND e.hash = g.key_hash"
        " ORDER BY g.book_id, g.seq",
        "SELECT book_id, lot_no, units_in, units_used, units_gone, units_held FROM {lot_balance}",
        "SELECT book_id, grant_no FROM {hold}",
        "SELECT starts_at, spent_micro_usd FROM {budget_day}",
        "SELECT starts_at, spent_micro_usd FROM {budget_block}",
    )
    charged: Counter[int] = Counter()
    for starts_at, spent in (*days, *blocks):
        charged[_micros(starts_at)] += spent
    ended = {(book, grant): Ended(*end) for book, grant, *end in ends}
    charged_late = {(book, grant): units for book, grant, units in late}
    return Books(
        tuple(
            Granted(
                name,
                book,
                number,
                seq,
                _micros(at),
                key,
                _parts(parts),
                operation,
                ended.get((book, number)),
                charged_late.get((book, number), 0),
                cost,
            )
            for name, book, number, seq, at, key, parts, operation, cost in grants
        ),
        tuple(Line._make([*line, at and _micros(at)]) for *line, at in lines),
        tuple(Balance(*balance) for balance in balances),
        frozenset((book, grant) for book, grant in held),
        charged,
    )


def _parts(text: str) -> tuple[Part, ...]:
    return tuple((source, units, lot) for source, lot, units, *_ in json.loads(text))


def _micros(instant: datetime | int) -> int:
    return instant if isinstance(instant, int) else (instant - EPOCH) // MICROSECOND


def _read(database: str, *queries: str) -> list[list[Any]]:
    if database.startswith("sqlite"):
        with closing(sqlite3.connect(database.removeprefix("sqlite:///"))) as connection:
            connection.execute("BEGIN")
            return [list(connection.execute(_named(each, "comptroller_{}"))) for each in queries]
    import psycopg

    with closing(psycopg.connect(database)) as postgres:
        postgres.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        found: Iterable[Any] = (
            postgres.execute(_named(each, 'comptroller."{}"').encode()) for each in queries
        )
        return [each.fetchall() for each in found]


def _named(query: str, pattern: str) -> str:
    return re.sub(r"{(\w+)}", lambda found: pattern.format(found[1]), query)
