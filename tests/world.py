"""A small world for tests: policies with round numbers, a clock that is set, and the bare rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from billing.placement import VERSION_TABLE, placed
from billing.sql import Db
from billing.tables import Table
from policies.instants import from_micros
from policies.policy_set import PolicySet
from quota import Comptroller, Denial, Grant
from quota.testing import FakeClock

START = datetime(2026, 3, 2, 12, tzinfo=UTC)
"""A Monday at noon."""

MICROSECOND = timedelta(microseconds=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

SECTIONS = """
schema: 1
currency: usd
gpus:
  h100: {usd_per_hour: 3.60}                      # 1,000 micro-dollars per second
  a10:  {usd_per_hour: 1.80}
operations:
  clip:
    attributes:
      n:      {type: integer, default: 1, min: 1, max: 1000}
      prompt: {type: string, default: a cat}
    weight: {each: {n: 1}}                        # as many units as n
    gpu_cost: {gpu: h100, gpu_seconds: {each: {n: 10}}}
    hold_for: {queued: 1h, running: 30m}
packs:
  ten:   {units: 10, price: 4.00, valid_for: 12mo}
  three: {units: 3, price: 1.00, valid_for: 1mo}  # a third of a dollar each
on_release:
  failed: {units: return, ours: true, grace: 7d}
  moderated: {units: charge}
"""

PLANS = """
default_plan: standard
plans:
  standard:
    paid_use: auto
    sources: [{kind: daily_allowance, units: 30}, {kind: credits}]
  pro:
    price: {usd: 20.00, every: 1mo}
    paid_use: auto
    sources: [{kind: daily_allowance, units: 100}, {kind: credits}]
  paid:
    paid_use: auto
    sources: [{kind: credits}]
  split:
    paid_use: auto
    sources: [{kind: daily_allowance, units: 30, split: true}, {kind: credits}]
  daily:
    sources: [{kind: daily_allowance, units: 30, window: calendar}]
"""

POLICIES = SECTIONS + PLANS


def plan(text: str, *, more: str = "") -> PolicySet:
    """Return the world's policy set with one plan of its own: `{sources: [...]}`."""
    return PolicySet.parse(f"{SECTIONS}{more}\ndefault_plan: own\nplans:\n  own: {text}\n")


@dataclass
class World:
    """A Comptroller with its clock. `grant` and `deny` say what they expect."""

    comptroller: Comptroller
    clock: FakeClock
    keys: Iterator[int] = field(default_factory=count)

    def admit(
        self, n: int = 1, *, key: str | None = None, account: str = "u", **more: Any
    ) -> Grant | Denial:
        attributes = {"n": n, **more.pop("attributes", {})}
        return self.comptroller.admit(
            account=account,
            operation="clip",
            attributes=attributes,
            key=key or f"key-{next(self.keys)}",
            **more,
        )

    def grant(self, n: int = 1, **more: Any) -> Grant:
        decision = self.admit(n, **more)
        assert isinstance(decision, Grant), decision.reason
        return decision

    def deny(self, n: int = 1, **more: Any) -> Denial:
        decision = self.admit(n, **more)
        assert isinstance(decision, Denial), decision.units_by_source
        return decision

    def used(self, account: str = "u", source: str = "daily_allowance") -> int:
        """Return the units that a source's window holds now."""
        balance = self.comptroller.balance(account)
        return next(each.used for each in balance.allowances if each.source == source)

    def credits(self, account: str = "u") -> int:
        return self.comptroller.balance(account).credits

    def buy(self, pack: str = "ten", reference: str | None = None, account: str = "u") -> Any:
        reference = reference or f"order-{next(self.keys)}"
        return self.comptroller.record_purchase(account, pack=pack, reference=reference)

    def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run raw SQL that reads: tables by their prefixed names, `?` for values, on every database."""
        with self.comptroller._db.reading() as db:
            return raw(db, sql, *values)

    def write(self, sql: str, *values: Any) -> None:
        """Run raw SQL that writes, in a transaction of its own."""
        with self.comptroller._db.writing() as db:
            raw(db, sql, *values)

    def sums(self, *columns: str, account: str = "u") -> tuple[int, ...]:
        """Return the sums of columns over all lines of an account."""
        chosen = ", ".join(f"coalesce(sum({column}), 0)" for column in columns)
        (found,) = self.rows(
            f"SELECT {chosen} FROM comptroller_line WHERE book_id ="
            " (SELECT book_id FROM comptroller_account_name WHERE name = ?)",
            account,
        )
        return found

    def dump(self) -> dict[str, list[tuple[Any, ...]]]:
        """Return every row of every table of ours."""
        return dump(self.rows)


def raw(db: Db, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    """Run raw SQL within a transaction, and return its rows if it has any."""
    cursor = db.driver.cursor()
    if db.dialect.name != "sqlite":
        sql = placed(sql.replace("%", "%%").replace("?", "%s"), db.dialect)
    cursor.execute(sql, values)
    db.flush()
    return [tuple(row) for row in cursor.fetchall()] if cursor.description else []


def instant_of(stored: Any) -> datetime:
    """Return an instant that raw SQL has found: SQLite keeps it as a number."""
    return from_micros(stored) if isinstance(stored, int) else stored.astimezone(UTC)


def dump(rows: Any) -> dict[str, list[tuple[Any, ...]]]:
    """Return every row of every table of ours, by whatever runs SQL."""
    names = sorted((*Table.metadata.tables, VERSION_TABLE))
    return {name: sorted(rows(f"SELECT * FROM {name}"), key=repr) for name in names}


@contextmanager
def a_world(
    policies: str | PolicySet = POLICIES, *, database: Any = "sqlite://", start: datetime = START
) -> Iterator[World]:
    """Open a Comptroller in a world of its own, and see at the end that its books are sound."""
    parsed = policies if isinstance(policies, PolicySet) else PolicySet.parse(policies)
    clock = FakeClock(start)
    with Comptroller.open(parsed, database, clock=clock) as comptroller:
        yield World(comptroller, clock)
        assert discrepancies(comptroller) == []


def discrepancies(comptroller: Any) -> list[Any]:
    """Return what `verify` finds wrong."""
    verify = getattr(comptroller, "verify", None)
    return [] if verify is None else list(verify())
