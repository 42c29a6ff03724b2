"""One admission: look at the account without a lock, and only if it would be granted, grant it under the lock.

A denial ends with the look: it takes no write lock. Under the lock the look's decision still stands if the book has not
moved, since everything that was read belongs to the book; otherwise what fell due is posted, and it is decided again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Final

from sqlalchemy import bindparam, select

from billing.books import BookState, lock_book, open_book, read_book, save_book
from billing.sql import Db, Statement
from policies.advice import Advice, advise
from policies.errors import DeadlinePassed, IdempotencyConflict, InvalidRequest
from policies.policy_set import PolicySet
from policies.state import BudgetRead, Read, Readings
from quota.ask import Ask
from quota.budgets import is_vouched_for, load_spent
from quota.case import (
    Look,
    all_reads,
    case_of,
    history_of,
    look_at,
    questions_of,
    request_hash_of,
    state_of,
)
from quota.clock import Clock
from quota.dues import post_dues
from quota.granting import Granted, write_grant
from quota.load import Picture, load_picture
from quota.plan_dues import plan_at
from quota.tables import GRANTS
from quota.versions import stored

_BY_KEY: Final = Statement(
    select(GRANTS.c.number, GRANTS.c.request_hash, GRANTS.c.policy_version).where(
        GRANTS.c.book_id == bindparam("book_id"), GRANTS.c.key_hash == bindparam("key_hash")
    )
)


@dataclass(frozen=True, slots=True)
class Found:
    """A grant that was made before under the same key."""

    ids: tuple[int, int]


def look(
    db: Db, policy_set: PolicySet, ask: Ask, now: datetime, *, snapshot: bool = True
) -> Found | Look:
    """Decide over a snapshot, without taking or writing anything. Where there is none, the account is locked first.

    Raises:
        InvalidRequest: the plan, the operation or an attribute is unknown or not allowed.
        IdempotencyConflict: the key was used for another request.
    """
    book = read_book(db, ask.account) if snapshot else lock_book(db, ask.account)
    return _looked(db, policy_set, ask, book, now, partial(load_picture, db))


def advice_for(db: Db, looked: Look) -> Advice:
    """Find out what would help a request that was refused."""
    case = looked.case
    history = history_of(db, case, all_reads(case))
    return advise(case.policy_set, case.rules, case.request, case.circumstances, history, case.now)


def admit(
    db: Db, policy_set: PolicySet, ask: Ask, clock: Clock, looked: Look | None
) -> Found | Granted | Look:
    """Decide under the lock, and write the grant. What is refused here writes nothing.

    Waiting for the lock takes time: the clock is read after it, so that nothing is dated before what somebody has
    read meanwhile.

    Raises:
        InvalidRequest: the plan, the operation or an attribute is unknown or not allowed.
        IdempotencyConflict: the key was used for another request.
        DeadlinePassed: `not_after` is past.
    """
    book = lock_book(db, ask.account, None if looked is None else looked.book)
    now = clock() if book is None else max(clock(), book.at)
    looked = None if looked is None else _as_of(db, looked, book, now)
    if looked is None:
        found = _looked(db, policy_set, ask, book, now, lambda book: post_dues(db, book, now))
        if isinstance(found, Found):
            return found
        looked = found
    if not looked.decision.granted:
        if book is not None:
            save_book(db, book)
        return looked
    if ask.not_after is not None and now > ask.not_after:
        raise DeadlinePassed(f"not_after {ask.not_after.isoformat()} is past: nothing was taken")
    if book is None:
        # Only now has the account a salt, and what its records say of the member is hashed with it.
        book = open_book(db, ask.account, now)
        if book is None:  # somebody else has opened one: what was decided is not about it
            return admit(db, policy_set, ask, clock, None)
        case = case_of(policy_set, ask, load_picture(db, book), now)
        state = state_of(db, case)
        looked = Look(case, case.decide(state), state)
    if not isinstance(looked.state, Readings):
        raise TypeError("a grant is decided on numbers, after what was due has been posted")
    return write_grant(db, book, looked, looked.state)


def _looked(
    db: Db,
    policy_set: PolicySet,
    ask: Ask,
    book: BookState | None,
    now: datetime,
    picture_of: Callable[[BookState], Picture],
) -> Found | Look:
    """Return the grant that the key has already brought, or decide on what the book says now.

    Raises:
        InvalidRequest: the plan, the operation or an attribute is unknown or not allowed.
        IdempotencyConflict: the key was used for another request.
    """
    if book is None:
        return look_at(db, case_of(policy_set, ask, None, now))
    wrong, case = None, None
    book.plan = plan_at(db, book, max(now, book.at))
    try:
        case = case_of(policy_set, ask, Picture(book, (), ()), now)
        db.ahead(questions_of(case, book))
    except InvalidRequest as error:
        wrong = error
    # A known key comes first: what it has brought is there, whatever the policy file has become since.
    found = _replayed(db, policy_set, ask, book)
    if found is not None:
        return found
    if case is None:
        raise wrong or TypeError("a request is one, or it is wrong")
    return look_at(db, replace(case, picture=picture_of(book)))


def _as_of(db: Db, looked: Look, book: BookState | None, now: datetime) -> Look | None:
    """Return what was looked at, as of now, if nothing that was read without the lock has changed; else None.

    The book vouches for all that belongs to it, the readings say until when time alone changes none of them, and
    budgets, which all books share, are read again, unless they are leased. The rules are then asked once more, for the
    instant that it is, and for what budgets have spent by now.
    """
    case, state = looked.case, looked.state
    if not isinstance(state, Readings) or _place(looked.book) != _place(book):
        return None
    if not case.now <= now < state.steady_until:
        return None
    budgets = [
        read
        for read in case.reads
        if isinstance(read, BudgetRead) and not is_vouched_for(db, read, now)
    ]
    spent: dict[Read, int] = {read: load_spent(db, read, now) for read in budgets}
    moved = any(state.read(read, now) != spent[read] for read in budgets)
    if case.now == now and not moved:
        return looked
    if moved:
        state = replace(state, numbers={**state.numbers, **spent})
    case = replace(case, now=now)
    return Look(case, case.decide(state), state)


def _place(book: BookState | None) -> tuple[int, int, bytes] | None:
    """Return how far a book has got: nothing in it changes without a further record."""
    return None if book is None else (book.id, book.seq, book.head)


def _replayed(db: Db, policy_set: PolicySet, ask: Ask, book: BookState) -> Found | None:
    """Return the grant that this key has already brought, if there is one.

    Raises:
        IdempotencyConflict: it was brought by another request.
    """
    row = db.row(_BY_KEY, book_id=book.id, key_hash=book.hashed("key", ask.key))
    if row is None:
        return None
    number, request_hash, version = row
    # The request is normalised as it was then: a default that changed since makes no other request of it.
    then = stored(db, version, policy_set)
    try:
        attributes = then.request(ask.operation, ask.attributes, None, consent=False).attributes
    except InvalidRequest:
        attributes = None
    if attributes is None or request_hash_of(book, ask, attributes) != request_hash:
        raise IdempotencyConflict(
            f"key `{ask.key}` was used for another request of this account: use a new key"
        )
    return Found((book.id, int(number)))


def find(db: Db, account: str, key: str) -> tuple[int, int] | None:
    """Return the book and number of the grant that a key has brought, if there is one."""
    book = read_book(db, account)
    row = (
        None if book is None else db.row(_BY_KEY, book_id=book.id, key_hash=book.hashed("key", key))
    )
    return None if book is None or row is None else (book.id, int(row[0]))
