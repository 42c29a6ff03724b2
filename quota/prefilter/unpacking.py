"""An account's state read back from bytes: the layout of 1_layout.lua, written in packing.py."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final

from policies.instants import from_micros
from policies.state import LotView
from quota.prefilter.facts import Facts
from quota.prefilter.packing import (
    BOOK_BYTES,
    FROM_LOTS,
    INSTANT_BYTES,
    PAID,
    REACH_BYTES,
    RETURNS,
    SECOND,
    VERSION,
    WHOLE_ACCOUNT,
)
from quota.prefilter.prints import KEY_BYTES, MEMBER_BYTES, NAME_BYTES, NOBODY
from quota.prefilter.state import AccountState, Lease, Taken

SPEND_BYTES: Final = 19
COUNTS: Final = struct.Struct("<HBBBBHHHHHB")
Members = Mapping[int, bytes]


class _Rows:
    """Reads bytes from front to back."""

    def __init__(self, blob: bytes) -> None:
        self._blob, self._at = blob, 0

    def take(self, size: int) -> bytes:
        self._at += size
        return self._blob[self._at - size : self._at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def instant(self) -> int:
        return self.number(INSTANT_BYTES)

    def rest(self) -> bytes:
        return self._blob[self._at :]


def unpacked(blob: bytes, names: Mapping[bytes, str]) -> AccountState:
    """Read a state that the script gave back (without its filter of keys). `names`: what fingerprints stand for."""
    rows = _Rows(blob)
    version, book_id = rows.number(1), rows.number(BOOK_BYTES)
    seq, _, _, at = (rows.instant() for _ in range(4))
    reach = SECOND * rows.number(REACH_BYTES)
    if version != VERSION:
        return AccountState()
    counts = COUNTS.unpack(rows.take(COUNTS.size))
    (
        n_facts,
        n_names,
        n_members,
        n_tats,
        n_lots,
        n_leases,
        n_unbooked,
        n_uses,
        n_spends,
        _,
        partial,
    ) = counts
    facts = Facts.read(rows.take(n_facts).decode())
    numbered = [rows.take(NAME_BYTES) for _ in range(n_names)]
    known = ["?", *(names.get(raw, raw.hex()) for raw in numbered)]
    members = {0: NOBODY} | {index + 1: rows.take(MEMBER_BYTES) for index in range(n_members)}
    rates = dict(_rate(rows, known, members) for _ in range(n_tats))
    lots = [_lot(rows) for _ in range(n_lots)]
    leases = [_lease(rows, members) for _ in range(n_leases)]
    unbooked = [_unbooked(rows, members) for _ in range(n_unbooked)]
    uses = [(rows.instant(), rows.number(1), rows.number(1), rows.number(3)) for _ in range(n_uses)]
    taken = [
        Taken(
            known[source % PAID], from_micros(granted), units, members[whose], rows.take(KEY_BYTES)
        )
        for granted, source, whose, units in uses
    ]
    rows.take(SPEND_BYTES * n_spends)
    rest = rows.rest()
    lot_rests, paid = json.loads(rest) if rest else ([], [])
    # What lots gave is told in full by the rest, and only counted by the script.
    free = [use for use, (_, source, _, _) in zip(taken, uses, strict=True) if source < PAID]
    return AccountState(
        seq=seq,
        at=from_micros(at) if at else None,
        facts=facts,
        book_id=book_id,
        rates=rates,
        lots=tuple(_view(book_id, *pair) for pair in zip(lots, lot_rests, strict=True)),
        leases=(*leases, *(lease for lease in unbooked if lease is not None)),
        uses=(*free, *map(_paid, paid)),
        partial=bool(partial),
        reach=reach,
    )


def _rate(
    rows: _Rows, names: Sequence[str], members: Members
) -> tuple[tuple[str, bytes | None], tuple[int, int]]:
    name, whose = names[rows.number(1)], rows.number(1)
    whole, part, scale = rows.instant(), rows.number(6), rows.number(6)
    member = None if whose == WHOLE_ACCOUNT else members[whose]
    return (name, member), (whole * scale + part, scale)


def _lot(rows: _Rows) -> tuple[int, int, int, int]:
    available, units, price = rows.number(4), rows.number(4), rows.number(6)
    rows.take(1)  # its currency's number: the rest has the name
    return available, units, price, rows.instant()


def _lease(rows: _Rows, members: Members) -> Lease:
    expires, whose, flags = rows.instant(), rows.number(1), rows.number(1)
    returns, from_lots = bool(flags & RETURNS), bool(flags & FROM_LOTS)
    return Lease(from_micros(expires), members[whose], rows.take(KEY_BYTES), returns, from_lots)


def _unbooked(rows: _Rows, members: Members) -> Lease | None:
    expires, _, whose, flags = rows.instant(), rows.instant(), rows.number(1), rows.number(1)
    raw, _ = rows.take(2 * KEY_BYTES), rows.take(KEY_BYTES)
    return None if flags else Lease(from_micros(expires), members[whose], raw, returns=False)


def _view(book_id: int, lot: tuple[int, int, int, int], rest: Sequence[Any]) -> LotView:
    (available, units, price, expires), (number, priority, created, currency) = lot, rest
    return LotView(
        id=f"lot_{book_id}_{number}",
        units=units,
        price_minor=price,
        currency=currency,
        available=available,
        priority=priority,
        expires_at=from_micros(expires) if expires else None,
        created_at=from_micros(created),
        number=number,
    )


def _paid(row: Sequence[Any]) -> Taken:
    source, at, units, member, raw, number, minor, currency = row
    lot = (number, minor, currency)
    return Taken(source, from_micros(at), units, bytes.fromhex(member), bytes.fromhex(raw), lot)
