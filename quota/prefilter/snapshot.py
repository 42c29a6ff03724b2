"""What SQL says of an account, as Redis is to know it. Read in one snapshot, off the latency path."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from sqlalchemy import bindparam, select

from billing.books import BookState, read_book
from billing.sql import Db, Statement
from billing.tables import ERASABLES
from policies.instants import from_micros, micros
from policies.state import burn_order
from quota.load import USES, Picture, load_picture, split_tat_key, view_of
from quota.plan_dues import plan_at
from quota.prefilter.facts import Facts
from quota.prefilter.packing import KEYS_KNOWN
from quota.prefilter.prints import NOBODY, key_print, member_print
from quota.prefilter.state import AccountState, Lease, Taken
from quota.tables import GRANTS

_KEYS: Final = Statement(
    select(GRANTS.c.number, ERASABLES.c.value)
    .join(
        ERASABLES,
        (ERASABLES.c.book_id == GRANTS.c.book_id) & (ERASABLES.c.hash == GRANTS.c.key_hash),
    )
    .where(GRANTS.c.book_id == bindparam("book_id"), GRANTS.c.number >= bindparam("least"))
    .order_by(GRANTS.c.number)
)
_VALUE: Final = Statement(
    select(ERASABLES.c.value).where(
        ERASABLES.c.book_id == bindparam("book_id"), ERASABLES.c.hash == bindparam("hash")
    )
)


def account_state(db: Db, account: str, lookback: int, now: datetime) -> AccountState:
    """Read an account's state. `lookback`: how far any window looks back, in microseconds.

    Raises:
        StoreUnavailable: the database cannot be read.
    """
    book = read_book(db, account)
    if book is None:
        return AccountState(reach=lookback)
    book.plan = plan_at(db, book, max(now, book.at))
    picture, members = load_picture(db, book), _Members(db, account, book)
    since = from_micros(max(0, micros(max(now, book.at)) - lookback))
    since = min((since, *(hold.granted_at for hold in picture.holds)))
    rows = db.rows(USES, book_id=book.id, since=since)
    numbers = [*(int(row[0]) for row in rows), *(hold.grant_no for hold in picture.holds)]
    least = min(numbers, default=book.grants)
    prints = _prints(db, account, book, min(least, book.grants - KEYS_KNOWN + 1))
    uses = tuple(
        Taken(
            source,
            counts_at,
            int(units),
            members.print(member),
            prints[grant_no],
            None if lot_no is None else (int(lot_no), int(spend), str(currency)),
        )
        for grant_no, source, lot_no, member, counts_at, currency, units, spend in rows
        if grant_no in prints
    )
    return AccountState(
        seq=book.seq,
        at=book.at,
        facts=Facts.of(book),
        book_id=book.id,
        rates=_rates(book, members),
        lots=tuple(
            sorted(
                (view_of(book.id, lot) for lot in picture.lots if lot.takes_back), key=burn_order
            )
        ),
        leases=tuple(_leases(picture, members, prints, uses)),
        uses=uses,
        keys=tuple(prints.values()),
        partial=book.grants > len(prints),
        reach=lookback,
    )


class _Members:
    """What stands for members in Redis, by what stands for them in the books."""

    def __init__(self, db: Db, account: str, book: BookState) -> None:
        self._db, self._account, self._book = db, account, book
        self._known: dict[str, bytes] = {"": NOBODY}

    def print(self, hashed: str) -> bytes:
        if hashed not in self._known:
            row = self._db.row(_VALUE, book_id=self._book.id, hash=hashed)
            self._known[hashed] = member_print(self._account, str(row[0]) if row else hashed)
        return self._known[hashed]


def _prints(db: Db, account: str, book: BookState, least: int) -> dict[int, bytes]:
    rows = db.rows(_KEYS, book_id=book.id, least=max(least, 0))
    return {int(number): key_print(account, value) for number, value in rows}


def _rates(book: BookState, members: _Members) -> dict[tuple[str, bytes | None], tuple[int, int]]:
    rates = {}
    for key, tat in book.tats.items():
        policy, member = split_tat_key(key)
        rates[policy, None if member is None else members.print(member)] = tat
    return rates


def _leases(
    picture: Picture, members: _Members, prints: dict[int, bytes], uses: Iterable[Taken]
) -> Iterable[Lease]:
    from_lots = {use.print for use in uses if use.lot is not None}
    for hold in picture.holds:
        if hold.grant_no in prints:
            raw = prints[hold.grant_no]
            yield Lease(
                hold.expires_at,
                members.print(hold.member),
                raw,
                bool(hold.returns),
                raw in from_lots,
            )
