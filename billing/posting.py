"""Posting: the one module that writes to the books.

A writer locks the book's row first, posts any number of drafts, and saves the row. Order of records in a book is the
order of commit, without gaps, because all of this happens under that lock.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, case, select, update

from billing import chart
from billing.book import BODY_VERSION, canonical, record_hash
from billing.books import BookState, open_accounts
from billing.lots import Lot
from billing.sql import Db, Statement, insert_into, insert_once
from billing.tables import (
    ASSETS,
    ERASABLES,
    LEDGER_ACCOUNTS,
    LINES,
    LOT_BALANCES,
    LOTS,
    RECORDS,
    TRANSFERS,
)
from billing.transfer import LotDelta, lot_deltas
from policies.instants import micros

if TYPE_CHECKING:
    from billing.draft import Draft

LINE_FIELDS: Final = tuple(
    name
    for name in LINES.c.keys()  # noqa: SIM118 - a collection of columns, not a dict
    if name
    not in ("book_id", "seq", "idx", "kind", "at", "grant_no", "plan", "operation", "member")
)


_RECORD: Final = insert_into(RECORDS)
_TRANSFER: Final = insert_into(TRANSFERS)
_LINE: Final = insert_into(LINES)
_LOT: Final = insert_into(LOTS)
_LOT_BALANCE: Final = insert_into(LOT_BALANCES)
_HAS_ACCOUNT: Final = Statement(
    select(LEDGER_ACCOUNTS.c.id).where(
        LEDGER_ACCOUNTS.c.book_id == bindparam("book_id"), LEDGER_ACCOUNTS.c.id == bindparam("id")
    )
)
_HAS_ASSET: Final = Statement(select(ASSETS.c.code).where(ASSETS.c.code == bindparam("code")))
_ASSET: Final = insert_once(ASSETS)
_ERASABLE: Final = insert_once(ERASABLES)
_LEFT: Final = (
    LOT_BALANCES.c.units_in
    + bindparam("units_in_by")
    - LOT_BALANCES.c.units_used
    - bindparam("units_used_by")
    - LOT_BALANCES.c.units_gone
    - bindparam("units_gone_by")
)
_THIS_LOT: Final = (
    LOT_BALANCES.c.book_id == bindparam("of_book"),
    LOT_BALANCES.c.lot_no == bindparam("of_lot"),
)
_MOVE: Final = Statement(
    update(LOT_BALANCES)
    .where(*_THIS_LOT)
    .values(
        {
            **{name: LOT_BALANCES.c[name] + bindparam(f"{name}_by") for name in LotDelta.__slots__},
            "open": case((_LEFT > 0, 1), else_=0),
        }
    )
)
_REFUNDED: Final = Statement(update(LOT_BALANCES).where(*_THIS_LOT).values(refunded=1))
_MARKS: Final = ("returned_minor", "charged_back_minor", "disputed")
_MARK: Final = Statement(
    update(LOT_BALANCES)
    .where(*_THIS_LOT)
    .values({name: bindparam(f"new_{name}") for name in _MARKS})
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
    _add_payment_accounts(db, book, draft)
    _add_transfers(db, book, draft)
    _move_lots(db, book, draft)
    _add_lines(db, book, draft)
    book.at, book.changed = max(book.at, draft.at), True
    return book.seq


def remember(db: Db, book: BookState, values: Mapping[str, str]) -> None:
    """Keep the values behind salted hashes, by their hash, where they can be erased."""
    db.run_each(
        _ERASABLE,
        [{"book_id": book.id, "hash": hashed, "value": value} for hashed, value in values.items()],
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
    if draft.grant_no is not None or draft.plan:
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
    if draft.mark is not None:
        body["mark"] = [int(value) for value in draft.mark]
    return body


def line_body(line: Any) -> dict[str, Any]:
    """Return what a line says, without what is zero or absent; instants in microseconds."""
    return {
        name: micros(value) if isinstance(value, datetime) else value
        for name in LINE_FIELDS
        if (value := getattr(line, name))
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
        **dict.fromkeys(_MARKS, 0),
        open=1,
        expires_at=lot.expires_at,
    )


def _add_accounts(db: Db, book: BookState, lot: Lot) -> None:
    accounts = {
        chart.lot_units(lot.number): chart.CREDIT,
        chart.lot_deferred(lot.number): lot.currency,
    }
    accounts |= _money_accounts(db, book, chart.MONEY_ACCOUNTS, lot.currency)
    open_accounts(db, book.id, accounts)


def _add_payment_accounts(db: Db, book: BookState, draft: Draft) -> None:
    currency = draft.opens_payments_in
    if currency is not None:
        both = (chart.MONEY_ACCOUNTS, chart.PAYMENT_ACCOUNTS)
        for names in both:
            open_accounts(db, book.id, _money_accounts(db, book, names, currency))


def _money_accounts(
    db: Db, book: BookState, names: tuple[str, ...], currency: str
) -> dict[str, str]:
    """Return which of these accounts of money the book does not have yet. They are opened together."""
    if db.rows(_HAS_ACCOUNT, book_id=book.id, id=chart.money(names[0], currency)):
        return {}
    if not db.rows(_HAS_ASSET, code=currency):
        db.run(_ASSET, code=currency, scale=chart.asset_scale(currency))
    return {chart.money(name, currency): currency for name in names}


def _add_transfers(db: Db, book: BookState, draft: Draft) -> None:
    db.run_each(
        _TRANSFER,
        [
            {
                "book_id": book.id,
                "seq": book.seq,
                "idx": index,
                "debit": transfer.debit,
                "credit": transfer.credit,
                "asset": transfer.asset,
                "amount": transfer.amount,
                "phase": int(transfer.phase),
                "grant_no": transfer.grant_no,
                "lot_no": transfer.lot_no,
            }
            for index, transfer in enumerate(draft.transfers)
        ],
    )


def _move_lots(db: Db, book: BookState, draft: Draft) -> None:
    # The row exists and its CHECKs are the guard: an overdraft fails here, whatever the rules above believed.
    for number, delta in lot_deltas(draft.transfers).items():
        changes = {f"{name}_by": getattr(delta, name) for name in LotDelta.__slots__}
        db.run(_MOVE, of_book=book.id, of_lot=number, **changes)
    if draft.refunds_lot:
        db.run(_REFUNDED, of_book=book.id, of_lot=draft.closes_lot)
    if draft.mark is not None:
        lot_no, *marks = (int(value) for value in draft.mark)
        values = {f"new_{name}": value for name, value in zip(_MARKS, marks, strict=True)}
        db.run(_MARK, of_book=book.id, of_lot=lot_no, **values)


def _add_lines(db: Db, book: BookState, draft: Draft) -> None:
    of_record = {
        "book_id": book.id,
        "seq": book.seq,
        "kind": draft.kind,
        "at": draft.at,
        "grant_no": draft.grant_no,
        "plan": draft.plan,
        "operation": draft.operation,
        "member": draft.member,
    }
    db.run_each(
        _LINE,
        [
            {**of_record, "idx": index, **{name: getattr(line, name) for name in LINE_FIELDS}}
            for index, line in enumerate(draft.lines)
        ],
    )
