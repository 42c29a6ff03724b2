"""What the script is told after SQL has committed, and how long Redis keeps an account's state."""

from __future__ import annotations

import struct
from typing import Any, Final

from policies.instants import micros
from quota.granting import Granted
from quota.prefilter.packing import RETURNS, UNITS_MOST
from quota.prefilter.prints import MEMBER_BYTES, name_print

HOUR_MS: Final = 3_600_000
WEEK_MS: Final = 7 * 24 * HOUR_MS
WHOLE_ACCOUNT: Final = b"*"
SMALL: Final = 128
"""Whole numbers below are a byte of their own."""
NOT_ALL: Final = -1
"""Stands for the record before a grant's, where what is told of the grant is not all that was written."""


def lifetime_ms(lookback_micros: int) -> int:
    """Return how long Redis keeps an account that nobody asks for, in milliseconds: garbage collection, no meaning."""
    return min(lookback_micros // 1000, WEEK_MS) + HOUR_MS


def grant_message(raw: bytes, member: bytes, granted: Granted, before: int, after: int) -> bytes:
    """Say what a grant is: its hold, what it took outside of lots, and what its rate limits are at.

    `before` and `after`: how far the book reached before its transaction, and after it.
    """
    at, decision = micros(granted.at), granted.decision
    parts = [part for part in decision.allocations if part.lot_id is None]
    # Lots have changed, something else was written, or a number is too large: this is not all that there is to know.
    alone = after == before + 1 and len(parts) == len(decision.allocations)
    alone = alone and all(part.units <= UNITS_MOST for part in parts)
    uses = [[at, name_print(part.source), min(part.units, UNITS_MOST)] for part in parts]
    rates = [
        [
            name_print(read.policy),
            WHOLE_ACCOUNT if read.member is None else (member if read.member else b""),
            tat // read.scale,
            tat % read.scale,
            read.scale,
        ]
        for read, tat in decision.rates
    ]
    head = [raw, granted.book.id, before if alone else NOT_ALL, after, at]
    return encoded(
        [*head, micros(granted.expires_at), RETURNS * granted.returns, member, uses, rates]
    )


def encoded(value: Any) -> bytes:
    """Return whole numbers, bytes and lists in MessagePack, as the script's cmsgpack reads it."""
    if isinstance(value, list):
        return struct.pack(">BH", 0xDC, len(value)) + b"".join(map(encoded, value))
    if isinstance(value, bytes):
        if len(value) > 2 * MEMBER_BYTES:
            raise ValueError("only fingerprints are sent")
        return struct.pack(">BB", 0xD9, len(value)) + value
    if 0 <= value < SMALL:
        return struct.pack(">B", value)
    return struct.pack(">Bq", 0xD3, value)


__all__ = ["encoded", "grant_message", "lifetime_ms"]
