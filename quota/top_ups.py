"""Automatic top-ups on the books: each change of what an account has opted in to is a record."""

from __future__ import annotations

from datetime import datetime

from billing.books import BookState
from billing.draft import Draft
from billing.posting import post
from billing.sql import Db
from billing.stripe.top_ups import TOP_UP, TopUp, keep_top_up, load_top_up


def set_top_up(db: Db, book: BookState, top_up: TopUp, now: datetime) -> None:
    """Post what an account has opted in to. `book` is locked, and what was due on it is posted."""
    post(db, book, Draft(TOP_UP, now, top_up.facts()), now)
    keep_top_up(db, book.id, top_up)


def switch_off(db: Db, book: BookState, why: str, now: datetime) -> None:
    """Buy no more, until the account opts in again. Says why, unless it is off already."""
    top_up = load_top_up(db, book.id)
    if top_up is not None and top_up.off is None:
        set_top_up(db, book, top_up._replace(off=why), now)
