"""Reads the state of an account in Redis as the script has left it, by the layout that 1_layout.lua tells of."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from policies.instants import from_micros

UNCONFIRMED = 1
VERSION_BYTES, BOOK_BYTES, INSTANT_BYTES, REACH_BYTES = 1, 6, 7, 4
COUNTS = (2, 1, 1, 1, 1, 2, 2, 2, 2, 2, 1)


class Use(NamedTuple):
    at: datetime
    source: bytes
    paid: bool
    member: bytes
    units: int
    print: bytes


class Lease(NamedTuple):
    expires_at: datetime
    member: bytes
    flags: int
    print: bytes


class Rows(NamedTuple):
    book_id: int
    seq: int
    seen: int
    told: int
    last: int
    reach: int
    facts: bytes
    rates: int
    leases: tuple[Lease, ...]
    uses: tuple[Use, ...]
    unbooked: int
    keys: bytes
    partial: bool

    def may_know(self, raw: bytes) -> bool:
        """Whether the filter says that a key may have brought a grant."""
        bit = int.from_bytes(raw, "little") % (8 * len(self.keys))
        return bool(self.keys[bit // 8] >> bit % 8 & 1)


class _Reader:
    def __init__(self, blob: bytes) -> None:
        self.blob, self.at = blob, 0

    def take(self, size: int) -> bytes:
        self.at += size
        return self.blob[self.at - size : self.at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def instant(self) -> datetime:
        return from_micros(self.number(INSTANT_BYTES))


def rows_of(blob: bytes) -> Rows:
    read = _Reader(blob)
    read.number(VERSION_BYTES)
    book_id = read.number(BOOK_BYTES)
    seq, seen, told, last = (read.number(INSTANT_BYTES) for _ in range(4))
    reach = read.number(REACH_BYTES)
    facts, names, members, rates, lots, leases, unbooked, uses, spends, keys, partial = (
        read.number(size) for size in COUNTS
    )
    text = read.take(facts)
    known = [read.take(4) for _ in range(names)]
    people = {0: b""} | {number + 1: read.take(8) for number in range(members)}
    read.take(21 * rates + 22 * lots)
    held = tuple(
        Lease(read.instant(), people[read.number(1)], read.number(1), read.take(4))
        for _ in range(leases)
    )
    read.take(28 * unbooked)
    taken = [(read.instant(), read.number(1), read.number(1), read.number(3)) for _ in range(uses)]
    used = tuple(
        Use(at, known[source % 128 - 1], source >= 128, people[whose], units, read.take(4))
        for at, source, whose, units in taken
    )
    read.take(19 * spends)
    whole = (book_id, seq, seen, told, last, reach, text, rates, held, used, unbooked)
    return Rows(*whole, read.take(keys), bool(partial))
