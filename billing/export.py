"""All records and transfers as CSV, for auditors: enough to follow every chain and add up the ledger.

A record's row holds the exact text that was hashed (`body`) with the hash before and its own. Rows
come book by book, in order; a record is followed by its transfers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Final

from sqlalchemy import BigInteger, Tuple, bindparam, select, tuple_

from billing.render import csv_line, instant
from billing.sql import Db, Statement
from billing.tables import RECORDS, TRANSFERS
from billing.transfer import Phase

PAGE: Final = 1000
COLUMNS: Final = (
    *("row", "book", "seq", "idx", "kind", "at", "recorded_at", "once"),
    *("debit", "credit", "asset", "amount", "phase", "grant_no", "lot_no"),
    *("prev_hash", "hash", "body"),
)


def _place(book: str, seq: str) -> Tuple:
    return tuple_(bindparam(book, type_=BigInteger), bindparam(seq, type_=BigInteger))


_FROM: Final = _place("book_id", "after")
_RECORDS: Final = Statement(
    select(
        RECORDS.c.book_id,
        RECORDS.c.seq,
        RECORDS.c.kind,
        RECORDS.c.at,
        RECORDS.c.recorded_at,
        RECORDS.c.once,
        RECORDS.c.prev_hash,
        RECORDS.c.hash,
        RECORDS.c.body,
    )
    .where(tuple_(RECORDS.c.book_id, RECORDS.c.seq) > _FROM)
    .order_by(RECORDS.c.book_id, RECORDS.c.seq)
    .limit(bindparam("most"))
)
_TRANSFERS: Final = Statement(
    select(
        TRANSFERS.c.book_id,
        TRANSFERS.c.seq,
        TRANSFERS.c.idx,
        TRANSFERS.c.debit,
        TRANSFERS.c.credit,
        TRANSFERS.c.asset,
        TRANSFERS.c.amount,
        TRANSFERS.c.phase,
        TRANSFERS.c.grant_no,
        TRANSFERS.c.lot_no,
    )
    .where(
        tuple_(TRANSFERS.c.book_id, TRANSFERS.c.seq) > _FROM,
        tuple_(TRANSFERS.c.book_id, TRANSFERS.c.seq) <= _place("last_book", "last"),
    )
    .order_by(TRANSFERS.c.book_id, TRANSFERS.c.seq, TRANSFERS.c.idx)
)


def export(reading: Callable[[], AbstractContextManager[Db]]) -> Iterator[str]:
    """Yield the lines of a CSV file, header first, each with its line end.

    Records are append-only, so that each page may be read in a snapshot of its own: `reading`
    opens one.
    """
    yield csv_line(COLUMNS)
    book_id, seq = 0, 0
    while True:
        with reading() as db:
            records = db.rows(_RECORDS, book_id=book_id, after=seq, most=PAGE)
            if not records:
                return
            last_book, last = records[-1][:2]
            transfers = db.rows(
                _TRANSFERS, book_id=book_id, after=seq, last_book=last_book, last=last
            )
        book_id, seq = last_book, last
        yield from _page(records, transfers)


def _page(records: list[Any], transfers: list[Any]) -> Iterator[str]:
    moves = iter(transfers)
    move = next(moves, None)
    for book, seq, kind, at, recorded_at, once, prev_hash, own_hash, body in records:
        yield csv_line(
            (
                *("record", book, seq, None, kind, instant(at), instant(recorded_at), once),
                *(None,) * 7,
                *(bytes(prev_hash).hex(), bytes(own_hash).hex(), bytes(body).decode()),
            )
        )
        while move is not None and tuple(move[:2]) == (book, seq):
            _, _, index, debit, credit, asset, amount, phase, grant_no, lot_no = move
            yield csv_line(
                (
                    *("transfer", book, seq, index, None, None, None, None),
                    *(debit, credit, asset, amount, Phase(phase).name.lower()),
                    *(grant_no, lot_no, None, None, None),
                )
            )
            move = next(moves, None)
