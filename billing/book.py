"""A book: one account's chain of records.

Each record's hash covers the book, its place in it, the hash before it and the exact bytes that are stored. It
is extended in the transaction that posts, under the lock on the book's row, so that order in a book is order of
commit and has no gaps. Verification recomputes it all from the stored bytes, never from columns that were
parsed and written again.
"""

from __future__ import annotations

import hashlib
import json
import struct
from typing import Any, Final

TAG: Final = b"comptroller/record/v1"
GENESIS: Final = bytes(32)
BODY_VERSION: Final = 1

_ENCODER: Final = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
)


def canonical(content: Any) -> bytes:
    """Return JSON in one spelling: sorted keys, no spaces, UTF-8."""
    return _ENCODER.encode(content).encode()


def record_hash(book_id: int, seq: int, prev_hash: bytes, body: bytes) -> bytes:
    """Return the SHA-256 that chains a record: over a tag, book, place, previous hash and length-prefixed body."""
    head = struct.pack(">QQ", book_id, seq)
    return hashlib.sha256(TAG + head + prev_hash + struct.pack(">I", len(body)) + body).digest()


def salted_hash(salt: bytes, what: str, value: str) -> str:
    """Return what stands for a name or free text in hashed bytes: without the book's salt nobody can tell of what."""
    return hashlib.blake2b(f"{what}:{value}".encode(), key=salt, digest_size=16).hexdigest()
