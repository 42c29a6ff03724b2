"""Recording denials off the request's path: in batches, repeats coalesced, bounded, losses counted.

A denial took nothing, so it is no part of the books; but `account show` must be able to tell why somebody was denied
yesterday at 14:03. Repeats of one account, operation and reason within a minute become one row with a count.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import bindparam, func, insert, select

from billing.sql import Db, Row, Statement, insert_or_add
from policies.errors import ComptrollerError
from quota.background import started
from quota.forks import Forkable
from quota.grants import Denial
from quota.stores.base import Store
from quota.tables import DENIAL_LOSSES, DENIALS

WAITING_MAX: Final = 10_000
"""How many different denials may wait to be written; more are lost, and counted."""

FLUSH_SECONDS: Final = 1.0
COALESCED: Final = timedelta(minutes=1)

log: Final = logging.getLogger("comptroller.denials")
Key = tuple[str, str | None, str, str, str, int]

_INSERT: Final = Statement(
    insert(DENIALS).values({c.name: bindparam(c.name) for c in DENIALS.c if c.name != "id"})
)
_LOST: Final = insert_or_add(DENIAL_LOSSES, "lost")
_TOTAL_LOST: Final = Statement(select(func.coalesce(func.sum(DENIAL_LOSSES.c.lost), 0)))
_SHOW: Final = Statement(
    select(
        DENIALS.c.first_at,
        DENIALS.c.last_at,
        DENIALS.c.count,
        DENIALS.c.operation,
        DENIALS.c.plan,
        DENIALS.c.reason,
        DENIALS.c.member,
        DENIALS.c.retry_at,
        DENIALS.c.findings,
    )
    .where(
        DENIALS.c.account == bindparam("account"),
        DENIALS.c.last_at >= bindparam("since"),
        DENIALS.c.first_at < bindparam("until"),
    )
    .order_by(DENIALS.c.first_at.desc())
    .limit(bindparam("most"))
)


@dataclass(frozen=True, slots=True)
class DenialRecord:
    """Denials of one account for one reason: when, how many, and what each policy found at the first of them."""

    first_at: datetime
    last_at: datetime
    count: int
    operation: str
    plan: str
    reason: str
    member: str | None
    retry_at: datetime | None
    findings: tuple[dict[str, Any], ...]


class DenialLog(Forkable):
    """Denials that wait to be written, and the thread that writes them. Safe for several threads."""

    def __init__(
        self, store: Store, *, waiting_max: int = WAITING_MAX, flush_seconds: float = FLUSH_SECONDS
    ) -> None:
        """Write to a store, every `flush_seconds` or when `flush` is called."""
        self._store, self._waiting_max, self._flush_seconds = store, waiting_max, flush_seconds
        self._waiting: dict[Key, tuple[Denial, datetime, int]] = {}
        self._batch: dict[Key, tuple[Denial, datetime, int]] = {}
        self._lost = 0
        self._guard = threading.Lock()
        self._writing = threading.Lock()
        self._wake = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None
        self.starts_anew_in_children()

    def after_fork(self) -> None:
        """Leave what waits to the parent, whose it is. Its thread is not here: the next denial starts one."""
        self._waiting, self._batch, self._lost = {}, {}, 0
        self._guard, self._writing, self._wake = (
            threading.Lock(),
            threading.Lock(),
            threading.Event(),
        )
        self._thread = None

    def add(self, denial: Denial) -> None:
        """Note a denial. Never waits for the database, and never raises."""
        minute = int(denial.at.timestamp()) // int(COALESCED.total_seconds())
        key = (denial.account, denial.member, denial.operation, denial.plan, denial.reason, minute)
        with self._guard:
            first, _, count = self._waiting.get(key, (denial, denial.at, 0))
            if count == 0 and len(self._waiting) >= self._waiting_max:
                self._lost += 1
                return
            self._waiting[key] = (first, denial.at, count + 1)
            if self._thread is None and not self._closed:
                self._thread = started(self._run, "comptroller-denials")

    def flush(self) -> None:
        """Write what waits.

        Raises:
            ComptrollerError: the database cannot be written now; what waits goes on waiting.
        """
        with self._writing:
            with self._guard:
                if not self._waiting:
                    return  # what was lost is told with the next denials: it is dated as they are
                self._batch = batch = self._waiting
                lost = self._lost
                self._waiting, self._lost = {}, 0
            try:
                at = max(last_at for _, last_at, _ in batch.values())
                with self._store.writing() as db:
                    with self._guard:  # who was forgotten meanwhile is not in it any more
                        waited = list(batch.values())
                    db.run_each(_INSERT, [_row(*each) for each in waited])
                    if lost:
                        db.run(_LOST, at=at, lost=lost)
            except BaseException:
                self._take_back(batch, lost)
                raise

    def forget(self, account: str) -> None:
        """Drop what waits of an account. Does not wait for the database, whose lock the caller may hold itself."""
        with self._guard:
            for waiting in (self._waiting, self._batch):
                for key in [key for key in waiting if key[0] == account]:
                    del waiting[key]

    def close(self) -> None:
        """Write what waits, and stop the thread, unless a database that hangs keeps it from that."""
        self._closed = True
        self._wake.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=self._flush_seconds * 10)
            if self._thread.is_alive():
                log.error("not all denials were written: the database has not answered in time")
                return
        with contextlib.suppress(ComptrollerError):
            self.flush()

    def _run(self) -> None:
        while not self._closed:
            self._wake.wait(self._flush_seconds)
            try:
                self.flush()
            except Exception as error:  # noqa: BLE001 - the thread must outlive whatever the database does
                log.warning("denials could not be written and wait: %s", error)

    def _take_back(self, batch: dict[Key, tuple[Denial, datetime, int]], lost: int) -> None:
        with self._guard:
            newer, self._waiting = self._waiting, batch
            self._lost += lost
            for key, (denial, last_at, count) in newer.items():
                if key in self._waiting:
                    first, _, before = self._waiting[key]
                    self._waiting[key] = (first, last_at, before + count)
                elif len(self._waiting) < self._waiting_max:
                    self._waiting[key] = (denial, last_at, count)
                else:
                    self._lost += count


def load_denials(
    db: Db, account: str, since: datetime, until: datetime, most: int
) -> tuple[DenialRecord, ...]:
    """Load an account's denials between two instants, the newest first."""
    rows = db.rows(_SHOW, account=account, since=since, until=until, most=most)
    records = (_record(row) for row in rows)
    return tuple(records)


def lost_denials(db: Db) -> int:
    """Return how many denials could not be recorded, ever."""
    row = db.row(_TOTAL_LOST)
    return 0 if row is None else int(row[0])


def _record(row: Row) -> DenialRecord:
    return DenialRecord(*(*row[:-1], tuple(json.loads(row[-1]))))


def _row(first: Denial, last_at: datetime, count: int) -> dict[str, Any]:
    findings = [
        {
            "policy": found.policy,
            "outcome": found.outcome,
            "used": found.used,
            "limit": found.limit,
            "asked": found.asked,
            "reason": found.reason,
        }
        for found in first.findings
    ]
    return {
        "account": first.account,
        "member": first.member,
        "operation": first.operation,
        "plan": first.plan,
        "reason": first.reason,
        "first_at": first.at,
        "last_at": last_at,
        "count": count,
        "retry_at": first.retry_at,
        "findings": json.dumps(findings),
        "policy_version": first.policy_version,
    }
