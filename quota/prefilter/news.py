"""What Redis is told after SQL has committed: off the latency path, by one thread, in any order and however often.

Each message says what is, not what changed, and which record it rests on: of two that cross, the later one wins. One
that is lost costs a question to SQL: what nobody confirms dies within seconds, and what is known grows stale. This
process knows which of its own commits Redis may not have heard of: until then it believes no denial of those books.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from sqlalchemy.pool import StaticPool

from policies.errors import ComptrollerError
from quota.background import started
from quota.forks import Forkable
from quota.prefilter.budgets import BudgetMemory
from quota.prefilter.compiler import Compiler
from quota.prefilter.events import Erased, Event, GrantNote, Made, Message, Moment, Undid, Written
from quota.prefilter.prints import Keys
from quota.prefilter.reporter import Now, Reporter
from quota.prefilter.untold import Untold
from quota.redis import RedisUnavailable, Script, ScriptFailed, SyncRedis
from quota.stores.base import Store

WAITING_MOST: Final = 10_000
"""How many messages of each kind may wait; further ones are dropped, as if they had been lost."""
AGAIN_SECONDS: Final = 1.0
"""How soon that which could not be told is told again."""
CLOSING_SECONDS: Final = 10.0
"""How long closing waits for what is being told."""

log: Final = logging.getLogger("comptroller.redis")


class News(Forkable):
    """What waits to be told, and the thread that tells it. Safe for several threads; never raises, never waits."""

    def __init__(
        self,
        store: Store,
        redis: SyncRedis,
        script: Script,
        compiler: Callable[[], Compiler],
        now: Now,
        budgets: BudgetMemory,
        keys: Keys,
    ) -> None:
        """Tell `redis` what `store` says. `now`: the clock's, and the same for the script, or empty for its own."""
        self._redis, self._script, self._budgets = redis, script, budgets
        self._reporter = Reporter(store, compiler, now, budgets, keys)
        # A database in memory that is the host's own connection may be in the middle of the host's transaction.
        self.by_hand = not store.owns_engine and isinstance(store.engine.pool, StaticPool)
        """Whether nothing is told but by `flush`."""
        self.after_fork()
        self.starts_anew_in_children()

    def after_fork(self) -> None:
        """Leave what waits to the parent, whose it is. Its thread is not here: the next message starts one."""
        self._events: list[Event] = []
        self._written: dict[int, Written] = {}
        self._unknown: dict[str, None] = {}
        self.untold = Untold()
        self._guard = threading.Lock()
        self._telling = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._ending = threading.Event()
        self._held_back = False
        self._reporter.after_fork()

    def committed(self, saved: Mapping[int, tuple[int, int]], notes: Mapping[int, object]) -> None:
        """A transaction of ours has written these books: (how far each reached before, and now)."""
        self._budgets.forget()
        moment = self._moment()
        with self._guard:
            for book_id, (before, after) in saved.items():
                note = notes.get(book_id)
                room = len(self._events) < WAITING_MOST
                if isinstance(note, GrantNote) and moment is not None and room:
                    self._events.append(Made(moment, note, before, after))
                    self.untold.expect(book_id, before, after)
                else:
                    self._mark(book_id, before, Written(after))
        self._start()

    def joined(self, saved: Mapping[int, tuple[int, int]]) -> None:
        """A host's transaction has, as far as it has not undone it at a savepoint of its own."""
        self._budgets.forget()
        with self._guard:
            for book_id, (before, after) in saved.items():
                self._mark(book_id, before, Written(after, exact=False))
        self._start()

    def undone(self, account: str, raw: bytes) -> None:
        """SQL did not grant what the script has noted."""
        self._add(Undid(account, raw))

    def unknown(self, account: str) -> None:
        """Redis does not know enough of an account: SQL's whole state of it is to be told."""
        if self._reporter.is_large(account):
            return
        with self._guard:
            if len(self._unknown) < WAITING_MOST:
                self._unknown[account] = None
        self._start()

    def erase(self, account: str) -> None:
        """Erase an account's state in Redis, also what is being told just now.

        Raises:
            RedisUnavailable: it could not be erased.
        """
        with self._telling:
            with self._guard:
                self._unknown.pop(account, None)
            self._reporter.forget(account)
            self._redis.command("DEL", self._reporter.keys.of(account))

    def erase_later(self, account: str) -> None:
        """Do that as soon as Redis answers."""
        self._add(Erased(account))

    def flush(self) -> None:
        """Tell all that waits. What cannot be told now is told again, as far as it still matters.

        Raises:
            ScriptFailed: Redis refused what it was told: a mistake of ours.
        """
        with self._telling:
            self._held_back = False
            is_away, failed = self._is_away(), None
            with self._guard:
                events, self._events = self._events, []
                unknown, self._unknown = self._unknown, {}
                if not is_away:
                    written, self._written = self._written, {}
            if is_away:
                self._tell_again(events, {})
                return
            try:
                messages = self._reporter.messages(events)
                messages += self._reporter.marks(written)
                unknown |= dict.fromkeys(self._reporter.grown())
                messages += self._reporter.states(unknown)
                failed = self._send(messages)
            except (RedisUnavailable, ComptrollerError) as error:
                log.debug("not told: %s", error)
                self._tell_again(events, written)
            except BaseException:
                self._tell_again(events, written)
                raise
            if failed is not None:
                raise failed

    def close(self) -> None:
        """Tell what waits, and stop. Does not wait for a thread that Redis or the database keeps from it."""
        self._closed = True
        self._ending.set()
        self._wake.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(CLOSING_SECONDS)
            if thread.is_alive():
                log.error("not all news were told: what Redis does not hear of it asks for later")
                return
        try:
            self.flush()
        except Exception:
            log.exception("the last news could not be told")

    def _run(self) -> None:
        while not self._closed:
            self._wake.wait(AGAIN_SECONDS if self._written or self._events else None)
            self._wake.clear()
            try:
                self.flush()
            except Exception:
                log.exception("the news could not be told")
            if self._held_back:  # not at each commit: it costs reads of SQL, or Redis a refusal
                self._ending.wait(AGAIN_SECONDS)

    def _start(self) -> None:
        if self._closed or self.by_hand:
            return
        if self._thread is None:
            with self._guard:
                if self._thread is None:
                    self._thread = started(self._run, "comptroller-news")
        self._wake.set()

    def _moment(self) -> Moment | None:
        try:
            return self._reporter.moment()
        except Exception:  # noqa: BLE001 - a host's clock that fails must not fail what is committed
            return None

    def _add(self, event: Event) -> None:
        with self._guard:
            if len(self._events) < WAITING_MOST:
                self._events.append(event)
        self._start()

    def _mark(self, book_id: int, before: int, written: Written) -> None:
        known = self._written.get(book_id)
        if known is None and len(self._written) >= WAITING_MOST:
            self.untold.dropped(book_id)
            return
        self._written[book_id] = written if known is None else known.and_then(written)
        self.untold.expect(book_id, before, written.after)

    def _is_away(self) -> bool:
        """Whether nobody is there to be told. Then nothing is read in SQL, which has enough to do."""
        states = set(self._redis.states.values())
        if not states or "closed" in states:
            return False
        try:
            self._redis.command("PING")
        except RedisUnavailable:
            return True
        except ScriptFailed:
            return False  # it answers, in its way
        return False

    def _send(self, messages: list[Message]) -> ScriptFailed | None:
        """Send messages, and note which books Redis has heard of. Returns why it refused some, if it did."""
        calls = [(message.key, message.timed()) for message in messages]
        replies = self._redis.run_many(self._script, calls) if calls else []
        failed: ScriptFailed | None = None
        with self._guard:
            for message, reply in zip(messages, replies, strict=True):
                failed = reply if isinstance(reply, ScriptFailed) else failed
                if not isinstance(reply, Exception):
                    self.untold.heard(message.book_id, message.after)
                    continue
                self._held_back = True
                if isinstance(message.event, Erased):
                    self._events.append(message.event)
                elif message.book_id:
                    self._mark(message.book_id, message.after, Written(message.after, exact=False))
        return failed

    def _tell_again(self, events: Iterable[Event], written: Mapping[int, Written]) -> None:
        """Keep what has to be told: not the grants themselves, but that their books have gone on."""
        self._held_back = True
        with self._guard:
            for event in events:
                if isinstance(event, Made):
                    again = Written(event.after, exact=False)
                    self._mark(event.note.granted.book.id, event.before, again)
                elif isinstance(event, Erased):
                    self._events.append(event)
            for book_id, one in written.items():
                self._mark(book_id, one.after, one)
