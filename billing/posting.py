"""Posting: the one module that writes to the books.

A writer locks the book's row first, posts any number of drafts, and saves the row. Order of records in a book is the
order of commit, without gaps, because all of this happens under that lock.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, case, insert, literal, select, update

from billing import chart
from billing.book import BODY_VERSION, GENESIS, canonical, record_hash, salted_hash
from billing.lots import Lot
from billing.sql import Db, Statement, insert_into
from billing.tables import (
    ACCOUNT_NAMES,
    ASSETS,
    BOOKS,
    ERASABLES,
    LEDGER_ACCOUNTS,
    LINES,
    LOT_BALANCES,
    LOTS,
    RECORDS,
    TRANSFERS,
)
from billing.transfer import LotDelta, lot_deltas
from policies.instants import from_micros, micros
from policies.request import CapPeriod, Circumstances, PaidUse, SpendCap
from policies.window import Zones

if TYPE_CHECKING:
    from billing.draft import Draft

SALT_BYTES: Final = 16
LINE_FIELDS: Final = tuple(
    name
    for name in LINES.c.keys()  # noqa: SIM118 - a collection of columns, not a dict
    if name
    not in ("book_id", "seq", "idx", "kind", "at", "grant_no", "plan", "operation", "member")
)


@dataclass(slots=True)
class BookState:
    """A book's row, with what a transaction has changed about it so far. `tats`: rate limits' state, by their key."""

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
    salt: bytes | None = None
    changed: bool = field(default=False)

    def hashed(self, what: str, value: str) -> str:
        """Return what stands for a name or free text in this book's hashed bytes."""
        return salted_hash(self.salt or b"", what, value)

    def circumstances(self, plan: str) -> Circumstances:
        """Return what the waterfall is told about the account."""
        cap = None
        if self.spend_cap_minor is not None:
            cap = SpendCap(self.spend_cap_minor, self.spend_cap_per or "month")
        return Circumstances(plan, self.zones, self.paid_use, cap, self.frozen is not None)


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
_NAME: Final = Statement(
    insert(ACCOUNT_NAMES).values(
        name=bindparam("name"),
        book_id=bindparam("book_id"),
        salt=bindparam("salt"),
        tags=literal("{}"),
    )
)
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
)
_SAVE: Final = Statement(
    update(BOOKS)
    .where(BOOKS.c.id == bindparam("of_book"))
    .values({name: bindparam(f"new_{name}") for name in _SAVED})
)


_RECORD: Final = insert_into(RECORDS)
_TRANSFER: Final = insert_into(TRANSFERS)
_LINE: Final = insert_into(LINES)
_LOT: Final = insert_into(LOTS)
_LOT_BALANCE: Final = insert_into(LOT_BALANCES)
_ACCOUNT: Final = insert_into(LEDGER_ACCOUNTS)
_HAS_ACCOUNT: Final = Statement(
    select(LEDGER_ACCOUNTS.c.id).where(
        LEDGER_ACCOUNTS.c.book_id == bindparam("book_id"), LEDGER_ACCOUNTS.c.id == bindparam("id")
    )
)
_HAS_ASSET: Final = Statement(select(ASSETS.c.code).where(ASSETS.c.code == bindparam("code")))
_ASSET: Final = insert_into(ASSETS)
_ERASABLE: Final = insert_into(ERASABLES)
_HAS_ERASABLE: Final = Statement(
    select(ERASABLES.c.hash).where(
        ERASABLES.c.book_id == bindparam("book_id"), ERASABLES.c.hash == bindparam("hash")
    )
)
_LEFT: Final = (
    LOT_BALANCES.c.units_in
    + bindparam("units_in_by")
    - LOT_BALANCES.c.units_used
    - bindparam("units_used_by")
    - LOT_BALANCES.c.units_gone
    - bindparam("units_gone_by")
)
_MOVE: Final = Statement(
    update(LOT_BALANCES)
    .where(
        LOT_BALANCES.c.book_id == bindparam("of_book"), LOT_BALANCES.c.lot_no == bindparam("of_lot")
    )
    .values(
        {
            **{name: LOT_BALANCES.c[name] + bindparam(f"{name}_by") for name in LotDelta.__slots__},
            "open": case((_LEFT > 0, 1), else_=0),
            "refunded": case((bindparam("refunds") == 1, 1), else_=LOT_BALANCES.c.refunded),
        }
    )
)


def read_book(db: Db, name: str) -> BookState | None:
    """Return an account's book as it is, without locking it; None where the account has none yet."""
    row = db.row(_READ, name=name)
    return None if row is None else _state(row)


def read_book_by_id(db: Db, book_id: int) -> BookState | None:
    """Return a book as it is, without locking it."""
    row = db.row(_READ_ID, book_id=book_id)
    return None if row is None else _state(row)


def lock_book(db: Db, name: str) -> BookState | None:
    """Lock an account's book and return it; None where the account has none yet. A write, so that nothing is stale."""
    row = db.row(_LOCK, name=name)
    return None if row is None else _state(row)


def lock_book_by_id(db: Db, book_id: int) -> BookState | None:
    """Lock a book and return it; None where there is none."""
    row = db.row(_LOCK_ID, of_book=book_id)
    return None if row is None else _state(row)


def open_book(db: Db, name: str, now: datetime) -> BookState:
    """Open a book for a new account. Locked, since nobody else can see it before the commit."""
    book_id = int((db.row(_OPEN, at=now) or (0,))[0])
    salt = secrets.token_bytes(SALT_BYTES)
    db.run(_NAME, name=name, book_id=book_id, salt=salt)
    for account, asset in chart.BOOK_ACCOUNTS:
        db.run(_ACCOUNT, book_id=book_id, id=account, asset=asset)
    return BookState(
        book_id, 0, GENESIS, now, 0, 0, None, Zones(), None, None, None, None, {}, salt
    )


def post(db: Db, book: BookState, draft: Draft, recorded_at: datetime) -> int:
    """Append a draft to the book as its next record and return its sequence number. `save_book` must follow."""
    book.seq += 1
    body = canonical(_body(draft, recorded_at))
    prev_hash, book.head = book.head, record_hash(book.id, book.seq, book.head, body)
    db.run(
        _RECORD,
        book_id=book.id,
        seq=book.seq,
        kind=draft.kind,
        at=draft.at,
        recorded_at=recorded_at,
        once=draft.once,
        body=body,
        prev_hash=prev_hash,
        hash=book.head,
    )
    for lot in draft.new_lots:
        _add_lot(db, book, lot)
    for index, transfer in enumerate(draft.transfers):
        db.run(
            _TRANSFER,
            book_id=book.id,
            seq=book.seq,
            idx=index,
            debit=transfer.debit,
            credit=transfer.credit,
            asset=transfer.asset,
            amount=transfer.amount,
            phase=int(transfer.phase),
            grant_no=transfer.grant_no,
            lot_no=transfer.lot_no,
        )
    _move_lots(db, book, draft)
    _add_lines(db, book, draft)
    book.at, book.changed = max(book.at, draft.at), True
    return book.seq


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
    )
    book.changed = False


def remember(db: Db, book: BookState, hashed: str, value: str, *, new: bool = False) -> None:
    """Keep the value behind a salted hash, where it can be erased. `new`: it is known not to be kept yet."""
    if new or not db.rows(_HAS_ERASABLE, book_id=book.id, hash=hashed):
        db.run(_ERASABLE, book_id=book.id, hash=hashed, value=value)


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
    (book_id, seq, head, at, grants, lots, plan, zones, paid_use, cap, per, frozen, rates, salt) = (
        row
    )
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
        salt,
    )


def _body(draft: Draft, recorded_at: datetime) -> dict[str, Any]:
    body: dict[str, Any] = {
        "v": BODY_VERSION,
        "kind": draft.kind,
        "at": micros(draft.at),
        "recorded_at": micros(recorded_at),
        "facts": draft.facts,
    }
    if draft.once is not None:
        body["once"] = draft.once
    if draft.grant_no is not None:
        body["grant"] = [draft.grant_no, draft.plan, draft.operation, draft.member]
    if draft.transfers:
        body["transfers"] = [
            [
                move.debit,
                move.credit,
                move.asset,
                move.amount,
                int(move.phase),
                move.grant_no,
                move.lot_no,
            ]
            for move in draft.transfers
        ]
    if draft.lines:
        body["lines"] = [line_body(line) for line in draft.lines]
    if draft.new_lots:
        body["lots"] = [lot_body(lot) for lot in draft.new_lots]
    if draft.closes_lot is not None:
        body["closes_lot"] = draft.closes_lot
    return body


def line_body(line: Any) -> dict[str, Any]:
    """Return what a line says, without what is zero or absent; instants in microseconds."""
    values = ((name, getattr(line, name)) for name in LINE_FIELDS)
    return {
        name: micros(value) if isinstance(value, datetime) else value
        for name, value in values
        if value
    }


def lot_body(lot: Lot) -> dict[str, Any]:
    """Return what a lot was when it began; instants in microseconds."""
    return {
        "number": lot.number,
        "origin": lot.origin,
        "reference": lot.reference,
        "pack": lot.pack,
        "units": lot.units,
        "price_minor": lot.price_minor,
        "currency": lot.currency,
        "priority": lot.priority,
        "created_at": micros(lot.created_at),
        "expires_at": None if lot.expires_at is None else micros(lot.expires_at),
    }


def _add_lot(db: Db, book: BookState, lot: Lot) -> None:
    _add_accounts(db, book, lot)
    db.run(
        _LOT,
        book_id=book.id,
        number=lot.number,
        seq=book.seq,
        origin=lot.origin,
        reference=lot.reference,
        pack=lot.pack,
        units=lot.units,
        price_minor=lot.price_minor,
        currency=lot.currency,
        priority=lot.priority,
        created_at=lot.created_at,
        expires_at=lot.expires_at,
    )
    nothing = dict.fromkeys(LotDelta.__slots__, 0)
    db.run(
        _LOT_BALANCE,
        book_id=book.id,
        lot_no=lot.number,
        **nothing,
        refunded=0,
        open=1,
        expires_at=lot.expires_at,
    )


def _add_accounts(db: Db, book: BookState, lot: Lot) -> None:
    if not db.rows(_HAS_ASSET, code=lot.currency):
        db.run(_ASSET, code=lot.currency, scale=chart.asset_scale(lot.currency))
    if not db.rows(_HAS_ACCOUNT, book_id=book.id, id=chart.money(chart.CASH, lot.currency)):
        for account in chart.MONEY_ACCOUNTS:
            db.run(
                _ACCOUNT, book_id=book.id, id=chart.money(account, lot.currency), asset=lot.currency
            )
    db.run(_ACCOUNT, book_id=book.id, id=chart.lot_units(lot.number), asset=chart.CREDIT)
    db.run(_ACCOUNT, book_id=book.id, id=chart.lot_deferred(lot.number), asset=lot.currency)


def _move_lots(db: Db, book: BookState, draft: Draft) -> None:
    # The row exists and its CHECKs are the guard: an overdraft fails here, whatever the rules above believed.
    deltas = lot_deltas(draft.transfers)
    if draft.refunds_lot and draft.closes_lot is not None:
        deltas.setdefault(draft.closes_lot, LotDelta())
    for number, delta in deltas.items():
        changes = {f"{name}_by": getattr(delta, name) for name in LotDelta.__slots__}
        refunds = int(draft.refunds_lot and draft.closes_lot == number)
        db.run(_MOVE, of_book=book.id, of_lot=number, refunds=refunds, **changes)


def _add_lines(db: Db, book: BookState, draft: Draft) -> None:
    for index, line in enumerate(draft.lines):
        db.run(
            _LINE,
            book_id=book.id,
            seq=book.seq,
            idx=index,
            kind=draft.kind,
            at=draft.at,
            grant_no=draft.grant_no,
            plan=draft.plan,
            operation=draft.operation,
            member=draft.member,
            **{name: getattr(line, name) for name in LINE_FIELDS},
        )
