"""A grant under the lock of its book, and what the end of its work reports."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from billing.books import BookState, lock_book_by_id, save_book
from billing.draft import Draft
from billing.sql import Db, Question
from policies.errors import UnknownGrant
from quota.clock import Clock
from quota.dues import post_dues
from quota.grant_rows import Ended, GrantFacts, grant_questions, load_ended, load_grant
from quota.ids import grant_id
from quota.load import HoldView, Picture, every_picture_question


@dataclass(frozen=True, slots=True)
class Report:
    """What the end of the work reports. GPU time in seconds; None: unknown."""

    status: Literal["settled", "released"]
    reason: str | None = None
    gpu_seconds: Decimal | None = None
    gpu: str | None = None
    delivered: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True)
class Locked:
    """A grant under the lock of its book, with everything due posted."""

    book: BookState
    picture: Picture
    grant: GrantFacts
    ended: Ended | None
    now: datetime

    @property
    def hold(self) -> HoldView:
        """The grant's hold; it must be open."""
        return next(hold for hold in self.picture.holds if hold.grant_no == self.grant.number)


def lock_grant(db: Db, ids: tuple[int, int], clock: Clock, *ahead: Question) -> Locked:
    """Lock a grant's book, read the clock, post what is due, and load the grant.

    `ahead`: what will be asked after that.

    Raises:
        UnknownGrant: there is none of that id.
    """
    db.ahead(_questions(ids, ahead))
    book = lock_book_by_id(db, ids[0])
    if book is None or ids[1] > book.grants:
        raise UnknownGrant(f"there is no grant `{grant_id(*ids)}`")
    now = max(clock(), book.at)
    picture = post_dues(db, book, now)
    save_book(db, book)
    return Locked(book, picture, load_grant(db, *ids), load_ended(db, *ids), now)


def _questions(ids: tuple[int, int], more: Iterable[Question]) -> Iterator[Question]:
    """Yield what is asked under the lock, if nothing is due."""
    yield from every_picture_question(ids[0])
    yield from grant_questions(*ids)
    yield from more


def of_grant(kind: str, grant: GrantFacts, at: datetime, facts: Mapping[str, Any]) -> Draft:
    """Draft a record about a grant that moves nothing yet."""
    return Draft(
        kind,
        at,
        facts,
        grant_no=grant.number,
        plan=grant.plan,
        operation=grant.operation,
        member=grant.member,
    )
