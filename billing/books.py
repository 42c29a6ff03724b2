"""The row of a book: found, locked, opened and saved."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, delete, insert, literal, select, update

from billing import chart
from billing.book import GENESIS, salted_hash
from billing.placement import placed
from billing.sql import Db, Statement, insert_into, insert_once
from billing.tables import ACCOUNT_NAMES, BOOKS, LEDGER_ACCOUNTS
from policies.instants import from_micros, micros
from policies.request import CapPeriod, Circumstances, PaidUse, SpendCap
from policies.window import Zones

if TYPE_CHECKING:
    pass


SALT_BYTES: Final = 16


@dataclass(slots=True)
class BookState:
    """A book's row, with what a transaction has changed about it so far.

    `tats`: rate limits' state, by their key. `disputes`: how many of its payments are disputed. `plan_due`:
    when the next thing falls due of what it pays for plans. `read_seq`: how far it
    reached when it was read.
    """

    id: int
    seq: int
    head: bytes
    at: datetime
    grants: int
    lots: int
    plan: str | None
    zones: Zones
    paid_use: PaidUse | None
    spend_cap_minor: int | None
    spend_cap_per: CapPeriod | None
    frozen: str | None
    tats: dict[str, tuple[int, int]]
    disputes: int = 0
    plan_due: datetime | None = None
    salt: bytes | None = None
    changed: bool = field(default=False)
    read_seq: int = field(default=0)

    def hashed(self, what: str, value: str) -> str:
        """Return what stands for a name or free text in this book's hashed bytes."""
        return salted_hash(self.salt or b"", what, value)

    def circumstances(self, plan: str) -> Circumstances:
        """Return what the waterfall is told about the account."""
        cap = None
        if self.spend_cap_minor is not None:
            cap = SpendCap(self.spend_cap_minor, self.spend_cap_per or "month")
        # Whoever disputes a payment uses no credits until that is settled, whatever else is set.
        paid_use = "never" if self.disputes else self.paid_use
        return Circumstances(plan, self.zones, paid_use, cap, self.frozen is not None)


BOOK_COLUMNS: Final = tuple(BOOKS.c)


_BY_NAME: Final = (
    select(ACCOUNT_NAMES.c.book_id)
    .where(ACCOUNT_NAMES.c.name == bindparam("name"))
    .scalar_subquery()
)


_READ: Final = Statement(
    select(*BOOK_COLUMNS, ACCOUNT_NAMES.c.salt)
    .join(ACCOUNT_NAMES, ACCOUNT_NAMES.c.book_id == BOOKS.c.id)
    .where(ACCOUNT_NAMES.c.name == bindparam("name"))
)


_READ_ID: Final = Statement(
    select(*BOOK_COLUMNS, ACCOUNT_NAMES.c.salt)
    .join(ACCOUNT_NAMES, ACCOUNT_NAMES.c.book_id == BOOKS.c.id, isouter=True)
    .where(BOOKS.c.id == bindparam("book_id"))
)


_SALT: Final = (
    select(ACCOUNT_NAMES.c.salt).where(ACCOUNT_NAMES.c.book_id == BOOKS.c.id).scalar_subquery()
)


_LOCK: Final = Statement(
    update(BOOKS)
    .where(BOOKS.c.id == _BY_NAME)
    .values(seq=BOOKS.c.seq)
    .returning(*BOOK_COLUMNS, _SALT)
)


_LOCK_ID: Final = Statement(
    update(BOOKS)
    .where(BOOKS.c.id == bindparam("of_book"))
    .values(seq=BOOKS.c.seq)
    .returning(*BOOK_COLUMNS, _SALT)
)


_LOCK_ROW: Final = Statement(
    select(*BOOK_COLUMNS).where(BOOKS.c.id == bindparam("book_id")).with_for_update(key_share=True)
)


LOCK_UNLESS_BUSY: Final = Statement(
    select(*BOOK_COLUMNS)
    .where(BOOKS.c.id == bindparam("book_id"))
    .with_for_update(key_share=True, skip_locked=True)
)
"""Locks a row as `lock_book` does, but finds none where somebody else has it locked."""


LOCKS: Final = frozenset((_LOCK, _LOCK_ID, _LOCK_ROW))
"""The statements by which a book is locked and read."""


_WRITES: Final = f"LOCK TABLE {BOOKS.name} IN ROW EXCLUSIVE MODE"


_OWNER: Final = Statement(
    select(ACCOUNT_NAMES.c.name, ACCOUNT_NAMES.c.salt).where(
        ACCOUNT_NAMES.c.book_id == bindparam("book_id")
    )
)


BOOK_OF: Final = Statement(
    select(ACCOUNT_NAMES.c.book_id).where(ACCOUNT_NAMES.c.name == bindparam("name"))
)


_OPEN: Final = Statement(
    insert(BOOKS)
    .values(
        seq=0,
        head=literal(GENESIS),
        at=bindparam("at"),
        grants=0,
        lots=0,
        zones=literal("[]"),
        rates=literal("{}"),
    )
    .returning(BOOKS.c.id)
)


_NAME: Final = insert_once(ACCOUNT_NAMES)


_DISCARD: Final = Statement(delete(BOOKS).where(BOOKS.c.id == bindparam("of_book")))


_SAVED: Final = (
    "seq",
    "head",
    "at",
    "grants",
    "lots",
    "plan",
    "zones",
    "paid_use",
    "spend_cap_minor",
    "spend_cap_per",
    "frozen",
    "rates",
    "disputes",
    "plan_due",
)


_SAVE: Final = Statement(
    update(BOOKS)
    .where(BOOKS.c.id == bindparam("of_book"))
    .values({name: bindparam(f"new_{name}") for name in _SAVED})
)


_ACCOUNT: Final = insert_into(LEDGER_ACCOUNTS)


def read_book(db: Db, name: str) -> BookState | None:
    """Return an account's book as it is, without locking it; None where the account has none yet."""
    row = db.row(_READ, name=name)
    return None if row is None else _state(row)


def read_book_by_id(db: Db, book_id: int) -> BookState | None:
    """Return a book as it is, without locking it."""
    row = db.row(_READ_ID, book_id=book_id)
    return None if row is None else _state(row)


def lock_book(db: Db, name: str, seen: BookState | None = None) -> BookState | None:
    """Lock an account's book and return it; None where the account has none yet. Whatever is read next is not stale.

    `seen`: the book as it was read before, without the lock.
    """
    if db.one_writer:
        row = db.row(_LOCK, name=name)
        return None if row is None else _state(row)
    book_id = _book_of(db, name) if seen is None else seen.id
    while book_id is not None:
        book, owner = _lock_row(db, book_id)
        if owner == name:
            return book
        # Who held the lock has erased the name: the account may have another book by now.
        book_id = _book_of(db, name)
    # Who waits for all writers finds them by the lock that any row of this table takes: here there is no row yet.
    db.driver_sql(placed(_WRITES, db.dialect))
    db.flush()
    return None


def lock_book_by_id(db: Db, book_id: int) -> BookState | None:
    """Lock a book and return it; None where there is none."""
    if not db.one_writer:
        return _lock_row(db, book_id)[0]
    row = db.row(_LOCK_ID, of_book=book_id)
    return None if row is None else _state(row)


def _lock_row(db: Db, book_id: int) -> tuple[BookState | None, str | None]:
    """Lock a book's row, and return it with whose book it is. That is asked later: waiting for a lock takes time."""
    given = {"book_id": book_id}
    rows, owners = db.rows_of((_LOCK_ROW, given), (_OWNER, given))
    if not rows:
        return None, None
    name, salt = owners[0] if owners else (None, None)
    return _state((*rows[0], salt)), name


def _book_of(db: Db, name: str) -> int | None:
    row = db.row(BOOK_OF, name=name)
    return None if row is None else int(row[0])


def open_book(db: Db, name: str, now: datetime) -> BookState | None:
    """Open a book for a new account. Locked, since nobody else can see it before the commit.

    None: somebody else has opened one at the same moment, and it is there to be locked.
    """
    book_id = int((db.row(_OPEN, at=now) or (0,))[0])
    salt = secrets.token_bytes(SALT_BYTES)
    # The name's key is what two who open a book for one account compete for: the second waits for the first's end.
    if not db.count(_NAME, name=name, book_id=book_id, salt=salt, tags="{}"):
        db.run(_DISCARD, of_book=book_id)
        return None
    open_accounts(db, book_id, dict(chart.BOOK_ACCOUNTS))
    return BookState(
        book_id, 0, GENESIS, now, 0, 0, None, Zones(), None, None, None, None, {}, salt=salt
    )


def open_accounts(db: Db, book_id: int, accounts: Mapping[str, str]) -> None:
    """Open accounts of a book's ledger, each with its asset."""
    db.run_each(
        _ACCOUNT,
        [{"book_id": book_id, "id": name, "asset": asset} for name, asset in accounts.items()],
    )


def save_book(db: Db, book: BookState) -> None:
    """Write the book's row, if anything about it changed."""
    if not book.changed:
        return
    db.run(
        _SAVE,
        of_book=book.id,
        new_seq=book.seq,
        new_head=book.head,
        new_at=book.at,
        new_grants=book.grants,
        new_lots=book.lots,
        new_plan=book.plan,
        new_zones=zones_text(book.zones),
        new_paid_use=book.paid_use,
        new_spend_cap_minor=book.spend_cap_minor,
        new_spend_cap_per=book.spend_cap_per,
        new_frozen=book.frozen,
        new_rates=json.dumps(book.tats, separators=(",", ":")) if book.tats else "{}",
        new_disputes=book.disputes,
        new_plan_due=book.plan_due,
    )
    book.changed = False
    before, _ = db.saved.get(book.id, (book.read_seq, 0))
    db.saved[book.id] = (before, book.seq)


def zones_text(zones: Zones) -> str:
    """Return an account's zones as they are stored."""
    if zones == Zones():
        return "[]"
    return json.dumps(
        [zones.first, *([micros(at), zone] for at, zone in zones.changes)], separators=(",", ":")
    )


def zones_from(text: str) -> Zones:
    """Return the zones that were stored."""
    if text == "[]":
        return Zones()
    first, *changes = json.loads(text)
    return Zones(first, tuple((from_micros(at), zone) for at, zone in changes))


def _state(row: tuple[Any, ...]) -> BookState:
    (book_id, seq, head, at, grants, lots, plan, zones, paid_use, cap, per, frozen, *rest) = row
    rates, disputes, plan_due, salt = rest
    tats = (
        {}
        if rates == "{}"
        else {key: (tat, scale) for key, (tat, scale) in json.loads(rates).items()}
    )
    zone = zones_from(zones)
    return BookState(
        book_id,
        seq,
        bytes(head),
        at,
        grants,
        lots,
        plan,
        zone,
        paid_use,
        cap,
        per,
        frozen,
        tats,
        disputes,
        plan_due,
        salt,
        read_seq=seq,
    )
