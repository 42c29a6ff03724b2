"""Going through a book's chain: every record's hash recomputed over the stored bytes, page by page.

What the bytes say is the truth that everything else is compared with. Rows of transfers and lines
that belong to a page's records are compared on the way, so that no more than a page is held: all at
once and as they are stored, and only where they differ one by one, to say where.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import bindparam

from billing.as_stored import as_stored
from billing.book import GENESIS, record_hash
from billing.discrepancy import Discrepancy, compared, discrepancy
from billing.entries import LINE_FIELDS, UNREADABLE, Entry, parsed
from billing.sql import Db, Row, Statement
from billing.tables import LINES, RECORDS, TRANSFERS
from policies.instants import from_micros

PAGE: Final = 500
FIRST: Final = -(2**63)
LAST: Final = 2**63 - 1

TRANSFER_COLUMNS: Final = (
    *("debit", "credit", "asset", "amount"),
    *("phase", "grant_no", "lot_no"),
)
LINE_COLUMNS: Final = (
    *("kind", "at", "grant_no", "plan", "operation", "member"),
    *LINE_FIELDS,
)
INSTANTS: Final = ("at", "counts_at")


def _paged(table: Any, *columns: str) -> Statement:
    return as_stored(
        [table.c.seq, table.c.idx, *(table.c[name] for name in columns)],
        lambda query: query.where(
            table.c.book_id == bindparam("book_id"),
            table.c.seq > bindparam("after"),
            table.c.seq <= bindparam("last"),
        ).order_by(table.c.seq, table.c.idx),
    )


_RECORDS: Final = as_stored(
    [
        RECORDS.c.seq,
        RECORDS.c.kind,
        RECORDS.c.at,
        RECORDS.c.recorded_at,
        RECORDS.c.once,
        RECORDS.c.body,
        RECORDS.c.prev_hash,
        RECORDS.c.hash,
    ],
    lambda query: (
        query.where(RECORDS.c.book_id == bindparam("book_id"), RECORDS.c.seq > bindparam("after"))
        .order_by(RECORDS.c.seq)
        .limit(bindparam("most"))
    ),
)
_TRANSFERS: Final = _paged(TRANSFERS, *TRANSFER_COLUMNS)
_LINES: Final = _paged(LINES, *LINE_COLUMNS)


@dataclass(slots=True)
class Link:
    """How far a chain was followed: the last record's place and hash, as stored."""

    seq: int = 0
    hash: bytes = GENESIS


def entries(
    db: Db, book_id: int, link: Link, found: list[Discrepancy], page: int = PAGE
) -> Iterator[list[Entry]]:
    """Go through a book's records in order, page by page, and compare what belongs to them.

    Discrepancies are added to `found`; records that cannot be read are left out.
    """
    after = FIRST
    while True:
        rows = db.rows(_RECORDS, book_id=book_id, after=after, most=page)
        last = rows[-1][0] if len(rows) == page else LAST
        read = [entry for row in rows if (entry := _entry(book_id, row, link, found)) is not None]
        unread = {row[0] for row in rows} - {entry.seq for entry in read}
        _compare_page(db, book_id, read, unread, (after, last), found)
        yield read
        if last == LAST:
            return
        after = last


def _entry(book_id: int, row: Row, link: Link, found: list[Discrepancy]) -> Entry | None:
    """Check one link of the chain, and return what it says."""
    seq, kind, at, recorded_at, once, body, prev_hash, stored_hash = row
    body, prev_hash, stored_hash = bytes(body), bytes(prev_hash), bytes(stored_hash)
    if seq != link.seq + 1:
        gone = str(link.seq + 1) if seq == link.seq + 2 else f"{link.seq + 1} to {seq - 1}"
        found.append(discrepancy(book_id, link.seq + 1, f"record {gone} is missing", "a row", None))
    elif prev_hash != link.hash:
        found.append(discrepancy(book_id, seq, "hash of the record before", link.hash, prev_hash))
    hashed = record_hash(book_id, seq, prev_hash, body)
    if hashed != stored_hash:
        found.append(discrepancy(book_id, seq, "hash of the record", hashed, stored_hash))
    link.seq, link.hash = seq, stored_hash
    try:
        entry = parsed(seq, body)
    except UNREADABLE as error:
        found.append(discrepancy(book_id, seq, "bytes of the record", "what can be read", error))
        return None
    said = (entry.kind, entry.at_micros, entry.recorded_micros, entry.once)
    if said != (kind, at, recorded_at, once):
        columns = ("kind", "at", "recorded_at", "once")
        ours = (entry.kind, entry.at, entry.recorded_at, entry.once)
        theirs = (kind, from_micros(at), from_micros(recorded_at), once)
        found.extend(compared(book_id, "record", columns, {seq: ours}, {seq: theirs}, {seq: seq}))
    return entry


def _compare_page(
    db: Db,
    book_id: int,
    read: list[Entry],
    unread: set[int],
    span: tuple[int, int],
    found: list[Discrepancy],
) -> None:
    """Compare the rows of transfers and lines with what the records of a page say."""
    after, last = span
    transfers = [
        (entry.seq, index, *transfer)
        for entry in read
        for index, transfer in enumerate(entry.transfers)
    ]
    lines = [
        (
            entry.seq,
            index,
            entry.kind,
            entry.at_micros,
            entry.grant_no,
            entry.plan,
            entry.operation,
            entry.member,
            *values,
        )
        for entry in read
        for index, values in enumerate(entry.line_values)
    ]
    for what, statement, columns, expected in (
        ("transfer", _TRANSFERS, TRANSFER_COLUMNS, transfers),
        ("line", _LINES, LINE_COLUMNS, lines),
    ):
        rows = db.rows(statement, book_id=book_id, after=after, last=last)
        if rows != expected:
            readable = [row for row in rows if row[0] not in unread]  # the others were told of
            found.extend(_differences(book_id, what, columns, expected, readable))


def _differences(
    book_id: int, what: str, columns: Sequence[str], expected: list[Row], rows: list[Row]
) -> Iterator[Discrepancy]:
    """Say how rows differ from what records say, which were both compared as they are stored."""
    ours, theirs = (
        {(seq, index): _with_instants(columns, values) for seq, index, *values in each}
        for each in (expected, rows)
    )
    places = {key: key[0] for key in (*ours, *theirs)}
    return compared(book_id, what, columns, ours, theirs, places)


def _with_instants(columns: Sequence[str], values: Sequence[Any]) -> Row:
    return tuple(
        from_micros(value) if name in INSTANTS and value is not None else value
        for name, value in zip(columns, values, strict=True)
    )
