"""What Redis is told after SQL has committed: off the latency path, by one thread, and never twice as important.

Each message says what is, not what changed, or that something did: of two that cross, the later record wins. One
that is lost costs a question to SQL: what nobody confirms dies within seconds, and what is known grows stale.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import bindparam, select

from billing.sql import Db, Statement
from billing.tables import ACCOUNT_NAMES
from policies.errors import ComptrollerError
from policies.instants import micros
from policies.policy_set import PolicySet
from quota.granting import Granted
from quota.load import load_spent
from quota.prefilter.budgets import BudgetMemory
from quota.prefilter.compiler import Compiler
from quota.prefilter.messages import grant_message, lifetime_ms
from quota.prefilter.packing import packed
from quota.prefilter.prints import redis_key
from quota.prefilter.snapshot import account_state
from quota.redis import RedisUnavailable, Script, ScriptFailed, SyncRedis
from quota.redis.wire import Argument
from quota.stores.base import Store

WAITING_MOST: Final = 10_000
"""How many messages may wait; further ones are dropped, as if they had been lost."""

log: Final = logging.getLogger("comptroller.redis")

_NAME: Final = Statement(
    select(ACCOUNT_NAMES.c.name).where(ACCOUNT_NAMES.c.book_id == bindparam("book_id"))
)


@dataclass(frozen=True, slots=True)
class GrantNote:
    """A grant that the script has noted under `print`, as SQL has made it."""

    account: str
    print: bytes
    member: bytes
    granted: Granted


class News:
    """What waits to be told, and the thread that tells it. Safe for several threads."""

    def __init__(
        self,
        store: Store,
        redis: SyncRedis,
        script: Script,
        compiler: Callable[[], Compiler],
        now: Callable[[], tuple[datetime, str]],
        budgets: BudgetMemory,
    ) -> None:
        """Tell `redis` what `store` says. `now`: the clock's, and the same for the script, or empty for its own."""
        self._store, self._redis, self._script = store, redis, script
        self._compiler, self._now, self._budgets = compiler, now, budgets
        self._messages: list[tuple[bytes, list[Argument]]] = []
        self._written: dict[int, int] = {}
        self._unknown: dict[str, None] = {}
        self._names: dict[int, str] = {}
        self._guard = threading.Lock()
        self._telling = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._closed = False

    def committed(self, saved: Mapping[int, tuple[int, int]], notes: Mapping[int, object]) -> None:
        """A transaction of ours has written these books: (how far each reached before, and now)."""
        if not saved:
            return
        self._budgets.forget()
        with self._guard:
            for book_id, (before, after) in saved.items():
                note = notes.get(book_id)
                if isinstance(note, GrantNote):
                    self._tell(redis_key(note.account), self._of_grant(note, before, after))
                    self._names[book_id] = note.account
                else:
                    self._written[book_id] = max(after, self._written.get(book_id, 0))
        self._start()

    def undone(self, account: str, raw: bytes) -> None:
        """SQL did not grant what the script has noted."""
        with self._guard:
            self._tell(redis_key(account), ["u", self._given(), lifetime_ms(self._lookback()), raw])
        self._start()

    def unknown(self, account: str) -> None:
        """Redis does not know enough of an account: SQL's whole state of it is to be told."""
        with self._guard:
            if len(self._unknown) < WAITING_MOST:
                self._unknown[account] = None
        self._start()

    def flush(self) -> None:
        """Tell all that waits. What cannot be told now is dropped: it will be asked for again."""
        with self._telling:
            with self._guard:
                messages, self._messages = self._messages, []
                written, self._written = self._written, {}
                unknown, self._unknown = self._unknown, {}
            try:
                messages += self._marks(written)
                messages += self._states(unknown)
                for reply in self._redis.run_many(self._script, messages) if messages else ():
                    if isinstance(reply, ScriptFailed):
                        raise reply
            except (RedisUnavailable, ComptrollerError) as error:
                log.debug("not told: %s", error)

    def close(self) -> None:
        """Tell what waits, and stop."""
        self._closed = True
        self._wake.set()
        thread = self._thread
        if thread is not None:
            thread.join()
        self.flush()

    def _run(self) -> None:
        while not self._closed:
            self._wake.wait()
            self._wake.clear()
            try:
                self.flush()
            except Exception:
                log.exception("the news could not be told")

    def _start(self) -> None:
        if self._thread is None and not self._closed:
            with self._guard:
                if self._thread is None:
                    self._thread = threading.Thread(
                        target=self._run, name="comptroller-news", daemon=True
                    )
                    self._thread.start()
        self._wake.set()

    def _tell(self, key: bytes, args: list[Argument]) -> None:
        if len(self._messages) < WAITING_MOST:
            self._messages.append((key, args))

    def _given(self) -> str:
        return self._now()[1]

    def _lookback(self) -> int:
        return self._compiler().lookback

    def _of_grant(self, note: GrantNote, before: int, after: int) -> list[Argument]:
        """Say what one grant is. Where more than it was written, no denial rests on what is known until all is told."""
        granted = note.granted
        alone = after == before + 1 and not any(
            part.lot_id for part in granted.decision.allocations
        )
        message = grant_message(note.print, note.member, granted, before if alone else -1, after)
        return ["g", self._given(), lifetime_ms(self._lookback()), message]

    def _marks(self, written: Mapping[int, int]) -> list[tuple[bytes, list[Argument]]]:
        """Say of each book that was written that what is known of it is not all."""
        unnamed = [book_id for book_id in written if book_id not in self._names]
        if unnamed:
            with self._store.reading() as db:
                for book_id in unnamed:
                    row = db.row(_NAME, book_id=book_id)
                    if row is not None:
                        self._names[book_id] = str(row[0])
        lifetime = lifetime_ms(self._lookback())
        return [
            (redis_key(self._names[book_id]), ["s", self._given(), lifetime, after])
            for book_id, after in written.items()
            if book_id in self._names
        ]

    def _states(self, accounts: Mapping[str, None]) -> list[tuple[bytes, list[Argument]]]:
        if not accounts:
            return []
        compiler, (now, given) = self._compiler(), self._now()
        messages: list[tuple[bytes, list[Argument]]] = []
        with self._store.reading() as db:
            self._learn_budgets(db, compiler.policy_set, now)
            for account in accounts:
                blob = packed(account_state(db, account, compiler.lookback, now))
                if blob is not None:
                    args: list[Argument] = ["p", given, lifetime_ms(compiler.lookback), blob]
                    messages.append((redis_key(account), args))
        return messages

    def _learn_budgets(self, db: Db, policy_set: PolicySet, now: datetime) -> None:
        reads = [budget.read for budget in policy_set.budgets.values()]
        if reads:
            self._budgets.remember(
                {
                    (read.budget, read.window.bounds(now)[0]): load_spent(db, read, now)
                    for read in reads
                }
            )


def given_now(now: datetime) -> str:
    """Return an instant as the script takes it for its own `now`."""
    return str(micros(now))
