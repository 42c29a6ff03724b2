"""Turns what happened into messages for the script, and reads in SQL what they have to say."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Final

from sqlalchemy import bindparam, select

from billing.sql import Db, Statement
from billing.tables import ACCOUNT_NAMES, BOOKS
from policies.policy_set import PolicySet
from quota.budgets import load_spent
from quota.clock import monotonic_seconds
from quota.prefilter.budgets import BudgetMemory
from quota.prefilter.compiler import Compiler
from quota.prefilter.events import Event, Made, Message, Moment, Undid, Written
from quota.prefilter.messages import grant_message, lifetime_ms
from quota.prefilter.packing import packed
from quota.prefilter.prints import Keys
from quota.prefilter.snapshot import account_state
from quota.redis.wire import Argument
from quota.stores.base import Store

Now = Callable[[], tuple[datetime, str]]
NAMES_MOST: Final = 100_000
SINGLY_MOST: Final = 64
"""After so many grants that were told one by one, the account is told as a whole: its filter of keys fills up."""
LARGE_SECONDS: Final = 30.0
"""For so long an account that is too large for Redis is not read again."""

_BOOK: Final = Statement(
    select(ACCOUNT_NAMES.c.name, BOOKS.c.seq)
    .join(BOOKS, BOOKS.c.id == ACCOUNT_NAMES.c.book_id)
    .where(ACCOUNT_NAMES.c.book_id == bindparam("book_id"))
)


class Reporter:
    """Says what the script is told. One thread at a time uses it, apart from `moment` and `is_large`."""

    def __init__(
        self,
        store: Store,
        compiler: Callable[[], Compiler],
        now: Now,
        budgets: BudgetMemory,
        keys: Keys,
    ) -> None:
        """Report what `store` says. `now`: the clock's, and the same for the script, or empty for its own."""
        self._store, self._compiler, self._now, self._budgets = store, compiler, now, budgets
        self.keys: Final = keys
        self.after_fork()

    def after_fork(self) -> None:
        """Begin with no lock that a thread of the parent may have held."""
        self._names: dict[int, str] = {}
        self._large: dict[str, float] = {}
        self._singly: dict[int, int] = {}
        self._grown: set[int] = set()
        self._guard = threading.Lock()

    def moment(self) -> Moment:
        """Return what time it is."""
        return Moment(self._now()[1], monotonic_seconds())

    def is_large(self, account: str) -> bool:
        """Whether an account was too large for Redis a moment ago."""
        return monotonic_seconds() < self._large.get(account, 0.0)

    def forget(self, account: str) -> None:
        """Forget an account's name."""
        with self._guard:
            self._names = {book: name for book, name in self._names.items() if name != account}
            self._grown &= self._names.keys()
            self._large.pop(account, None)

    def messages(self, events: Iterable[Event]) -> list[Message]:
        """Say what happened to single grants, and which accounts were forgotten."""
        return [self._message(event) for event in events]

    def marks(self, written: Mapping[int, Written]) -> list[Message]:
        """Say of each book that was written how far it reaches: what is known of it is not all.

        Raises:
            StoreUnavailable: the database cannot be read.
        """
        if not written:
            return []
        given, lifetime = self.moment().given, self._lifetime()
        reaches = {book_id: one.after for book_id, one in written.items()}
        # What is learnt of one book may drive out what was known of another.
        names = {book_id: self._names[book_id] for book_id in written if book_id in self._names}
        unread = [book for book, one in written.items() if book not in names or not one.exact]
        if unread:
            with self._store.reading() as db:
                for book_id in unread:
                    names[book_id], reaches[book_id] = db.row(_BOOK, book_id=book_id) or ("", 0)
                    self._learn_name(book_id, names[book_id])
        return [
            Message(
                self.keys.of(names[book_id]),
                ["s", given, lifetime, book_id, reaches[book_id]],
                book_id,
                one.after,
            )
            for book_id, one in written.items()
        ]

    def states(self, accounts: Iterable[str]) -> list[Message]:
        """Say all that SQL knows of some accounts.

        Raises:
            StoreUnavailable: the database cannot be read.
        """
        accounts = list(accounts)
        if not accounts:
            return []
        compiler = self._compiler()
        messages: list[Message] = []
        now, moment, lifetime = self._now()[0], self.moment(), lifetime_ms(compiler.lookback)
        epoch = self._budgets.epoch
        with self._store.reading() as db:
            self._learn_budgets(db, compiler.policy_set, now, epoch)
            for account in accounts:
                state = account_state(db, account, compiler.lookback, now)
                self._singly.pop(state.book_id, None)
                self._grown.discard(state.book_id)
                blob, key = packed(state), self.keys.of(account)
                if blob is None:
                    self._note_large(account)
                    messages.append(Message(key, ["l", moment.given, lifetime]))
                else:
                    args: list[Argument] = ["p", moment.given, lifetime, blob]
                    told = Message(key, args, state.book_id, state.seq, moment=moment)
                    messages.append(told)
        return messages

    def grown(self) -> list[str]:
        """Return the accounts of which so many grants were told singly that their filters of keys have filled up."""
        return [self._names[book_id] for book_id in self._grown if book_id in self._names]

    def _message(self, event: Event) -> Message:
        lifetime = self._lifetime()
        if isinstance(event, Made):
            note, moment = event.note, event.moment
            book_id = note.granted.book.id
            self._learn_name(book_id, note.account)
            count = self._singly[book_id] = self._singly.get(book_id, 0) + 1
            if count >= SINGLY_MOST:
                self._grown.add(book_id)
            told = grant_message(note.print, note.member, note.granted, event.before, event.after)
            return Message(
                self.keys.of(note.account),
                ["g", moment.given, lifetime, told],
                note.granted.book.id,
                event.after,
                event,
                moment,
            )
        key, given = self.keys.of(event.account), self.moment().given
        if isinstance(event, Undid):
            return Message(key, ["u", given, lifetime, event.print])
        return Message(key, ["f", given, lifetime], event=event)

    def _learn_name(self, book_id: int, name: str) -> None:
        with self._guard:
            if len(self._names) >= NAMES_MOST:
                self._names.clear()
                self._singly.clear()
                self._grown.clear()
            self._names[book_id] = name

    def _note_large(self, account: str) -> None:
        now = monotonic_seconds()
        with self._guard:
            self._large = {name: until for name, until in self._large.items() if now < until}
            self._large[account] = now + LARGE_SECONDS

    def _lifetime(self) -> int:
        return lifetime_ms(self._compiler().lookback)

    def _learn_budgets(self, db: Db, policy_set: PolicySet, now: datetime, epoch: int) -> None:
        reads = [budget.read for budget in policy_set.budgets.values()]
        if reads:
            spent = {
                (read.budget, read.window.bounds(now)[0]): load_spent(db, read, now)
                for read in reads
            }
            self._budgets.remember(spent, epoch)
