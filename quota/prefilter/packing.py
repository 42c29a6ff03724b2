"""An account's state as bytes: the layout of 1_layout.lua, written here and read in unpacking.py.

A header with counts, then sections of rows of fixed length, then what only Python reads.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from datetime import datetime
from typing import Final

from policies.instants import micros
from policies.state import LotView
from quota.prefilter.prints import name_print
from quota.prefilter.state import AccountState, Lease, Taken

VERSION: Final = 2
INSTANT_BYTES: Final = 7
RETURNS: Final = 2
FROM_LOTS: Final = 4
PAID: Final = 128
WHOLE_ACCOUNT: Final = 254
KEYS_KNOWN: Final = 1024
"""How many of an account's keys the filter knows; whether an older one brought a grant, SQL is asked."""
BITS_PER_KEY: Final = 16
FILTER_BYTES_LEAST: Final = 16
UNITS_MOST: Final = 2**24 - 1
LOT_UNITS_MOST: Final = 2**32 - 1
MINOR_MOST: Final = 2**48 - 1
PRODUCT_MOST: Final = 2**52
BOOK_BYTES: Final = 6
REACH_BYTES: Final = 4
SECOND: Final = 1_000_000
ROWS_MOST: Final = 1000
NUMBERS_MOST: Final = 100
"""An account that holds more rows, or more names, than these is decided in SQL alone."""


class Numbers:
    """Numbers for fingerprints, from 1 on, in order of their first use. 0 is nobody."""

    def __init__(self) -> None:
        """Begin with none."""
        self.all: dict[bytes, int] = {}

    def of(self, raw: bytes) -> int:
        """Return a fingerprint's number."""
        return self.all.setdefault(raw, len(self.all) + 1) % WHOLE_ACCOUNT if raw else 0

    def named(self, name: str) -> int:
        """Return the number of what stands for a name."""
        return self.of(name_print(name))


def packed(state: AccountState) -> bytes | None:
    """Return a state as Redis holds it; None: it is too large, and the account is decided in SQL."""
    if max(len(state.uses), len(state.leases), len(state.keys) - KEYS_KNOWN) > ROWS_MOST:
        return None
    if any(use.units > UNITS_MOST or (use.lot and use.lot[1] > MINOR_MOST) for use in state.uses):
        return None
    if any(not _exact(lot) for lot in state.lots):
        return None
    if len(set(state.keys)) < len(state.keys):
        return None  # two keys share a fingerprint
    names, members = Numbers(), Numbers()
    rates = [_rate(names, members, key, tat) for key, tat in state.rates.items()]
    lots = [_lot(names, lot) for lot in state.lots]
    leases = [_lease(members, lease) for lease in state.leases]
    uses = [_use(names, members, use) for use in state.uses]
    prints = [use.print for use in state.uses]
    spends = [_spend(names, members, use, use.lot) for use in state.uses if use.lot]
    if max(map(len, (names.all, members.all, rates, lots))) > NUMBERS_MOST:
        return None
    facts, keys = state.facts.text.encode(), _filter(state.keys)
    counts = (
        (len(facts), 2),
        (len(names.all), 1),
        (len(members.all), 1),
        (len(rates), 1),
        (len(lots), 1),
        (len(leases), 2),
        (0, 2),
        (len(uses), 2),
        (len(spends), 2),
        (len(keys), 2),
        (int(state.partial), 1),
    )
    at = 0 if state.at is None else micros(state.at)
    header = bytes([VERSION]) + state.book_id.to_bytes(BOOK_BYTES, "little")
    header += b"".join(map(_i7, (state.seq, state.seq, 0, at)))
    header += (-(-state.reach // SECOND)).to_bytes(REACH_BYTES, "little")
    header += b"".join(count.to_bytes(size, "little") for count, size in counts)
    rows = (rates, lots, leases, uses, prints, spends)
    sections = (facts, *names.all, *members.all, *(row for section in rows for row in section))
    return header + b"".join(sections) + keys + _rest(state)


def _exact(lot: LotView) -> bool:
    """Whether the script can say what any units of a lot cost, and that what comes back to it can be used."""
    owes_none = lot.available >= 0
    return owes_none and lot.units <= LOT_UNITS_MOST and lot.price_minor * lot.units <= PRODUCT_MOST


def _rate(
    names: Numbers, members: Numbers, key: tuple[str, bytes | None], tat: tuple[int, int]
) -> bytes:
    (policy, member), (number, scale) = key, tat
    whose = WHOLE_ACCOUNT if member is None else members.of(member)
    return (
        bytes([names.named(policy), whose])
        + _i7(number // scale)
        + (number % scale).to_bytes(6, "little")
        + scale.to_bytes(6, "little")
    )


def _lot(names: Numbers, lot: LotView) -> bytes:
    return (
        struct.pack("<II", lot.available, lot.units)
        + lot.price_minor.to_bytes(6, "little")
        + bytes([names.named(lot.currency)])
        + (bytes(INSTANT_BYTES) if lot.expires_at is None else _instant(lot.expires_at))
    )


def _lease(members: Numbers, lease: Lease) -> bytes:
    flags = RETURNS * lease.returns + FROM_LOTS * lease.from_lots
    return _instant(lease.expires_at) + bytes([members.of(lease.member), flags]) + lease.print


def _use(names: Numbers, members: Numbers, use: Taken) -> bytes:
    source = names.named(use.source) + PAID * bool(use.lot)
    return (
        _instant(use.at) + bytes([source, members.of(use.member)]) + use.units.to_bytes(3, "little")
    )


def _spend(names: Numbers, members: Numbers, use: Taken, lot: tuple[int, int, str]) -> bytes:
    _, minor, currency = lot
    whose = bytes([names.named(currency), members.of(use.member)])
    return _instant(use.at) + whose + minor.to_bytes(6, "little") + use.print


def _rest(state: AccountState) -> bytes:
    """Return what only Python reads, of accounts that have lots."""
    if not state.lots and not any(use.lot for use in state.uses):
        return b""
    lots = [[lot.number, lot.priority, micros(lot.created_at), lot.currency] for lot in state.lots]
    uses = [
        [use.source, micros(use.at), use.units, use.member.hex(), use.print.hex(), *use.lot]
        for use in state.uses
        if use.lot
    ]
    return json.dumps([lots, uses], separators=(",", ":")).encode()


def _filter(keys: Iterable[bytes]) -> bytes:
    """Return a Bloom filter (one hash) of the keys that have brought a grant: what it does not know is new."""
    keys = list(keys)
    size = FILTER_BYTES_LEAST
    while 8 * size < BITS_PER_KEY * min(len(keys), KEYS_KNOWN):
        size *= 2
    bits = bytearray(size)
    for raw in keys:
        bit = int.from_bytes(raw, "little") % (8 * size)
        bits[bit // 8] |= 1 << bit % 8
    return bytes(bits)


def _instant(at: datetime) -> bytes:
    return _i7(micros(at))


def _i7(number: int) -> bytes:
    return number.to_bytes(INSTANT_BYTES, "little")
