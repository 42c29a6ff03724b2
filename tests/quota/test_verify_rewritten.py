"""Records rewritten together with the chain after them: the hashes are right, and what they say is not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from billing.book import canonical, record_hash
from tests.quota.tampering import driver_of, restore, tamper
from tests.world import World

BOOK = 1
OF_GRANTS = ("grant", "start", "extend", "settled", "released", "expired", "late", "attempt")
ON_TRUST = {("facts", name) for name in ("engine", "consent", "gpu")}
"""What nobody else knows: which version decided, what the user said where it made no difference, and
the name of a GPU that the grant's policy version does not have.
"""

Path = tuple[str | int, ...]


def places(value: Any, path: Path = ()) -> Iterator[Path]:
    """Yield the way to everything within a value."""
    if path:
        yield path
    if isinstance(value, (dict, list)):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(part, (*path, key))


def with_odd(body: bytes, path: Path) -> bytes:
    """Return a record in which something is of another type."""
    content = json.loads(body)
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = 3 if isinstance(inner[path[-1]], str) else "x"
    return canonical(content)


def rewrite(world: World, records: list[Any], at: int, body: bytes) -> None:
    """Put another body in a record's place, and chain all after it anew."""
    execute = driver_of(world).execute
    link = b""
    for seq, old, prev_hash in records[at - 1 :]:
        link = link or prev_hash
        said = body if seq == at else old
        hashed = record_hash(BOOK, seq, link, said)
        execute(
            "UPDATE comptroller_record SET body = ?, prev_hash = ?, hash = ?"
            " WHERE book_id = ? AND seq = ?",
            (said, link, hashed, BOOK, seq),
        )
        link = hashed
    execute("UPDATE comptroller_book SET head = ? WHERE id = ?", (link, BOOK))
    driver_of(world).commit()


def test_whatever_is_of_another_type_is_found_and_stops_nothing(books):
    tamper(books, "UPDATE comptroller_book SET seq = seq")  # from here on triggers refuse nothing
    copy = driver_of(books).serialize()
    records = books.rows(
        f"SELECT seq, body, prev_hash FROM comptroller_record WHERE book_id = {BOOK} ORDER BY seq"
    )
    for seq, body, _ in records:
        content = json.loads(body)
        for path in places(content):
            rewrite(books, records, seq, with_odd(body, path))
            found = books.comptroller.verify()
            if content["kind"] in OF_GRANTS and path not in ON_TRUST:
                assert any(each.seq == seq for each in found), (seq, path)
            restore(books, copy)
