"""Ids of grants and lots. Each carries its book, so that a row is found where its book is kept."""

from __future__ import annotations

import re
from typing import Final

from policies.errors import InvalidRequest, UnknownGrant, UnknownLot
from policies.suggest import shown

_ID: Final = re.compile(r"(gr|lot)_([1-9][0-9]{0,17})_([1-9][0-9]{0,17})\Z")


def grant_id(book_id: int, number: int) -> str:
    """Return the id of a book's grant."""
    return f"gr_{book_id}_{number}"


def lot_id(book_id: int, number: int) -> str:
    """Return the id of a book's lot."""
    return f"lot_{book_id}_{number}"


def parse_grant_id(text: object) -> tuple[int, int]:
    """Return the book and the number of a grant.

    Raises:
        UnknownGrant: no grant has such an id.
        InvalidRequest: it is the grant itself.
    """
    if hasattr(text, "id"):
        raise InvalidRequest(
            f"a grant is named by its id, not by a {type(text).__name__}: pass its `.id`"
        )
    match = _ID.match(text) if isinstance(text, str) else None
    if match is None or match[1] != "gr":
        raise UnknownGrant(f"there is no grant {shown(text)}")
    return int(match[2]), int(match[3])


def parse_lot_id(text: object) -> tuple[int, int]:
    """Return the book and the number of a lot.

    Raises:
        UnknownLot: no lot has such an id.
    """
    match = _ID.match(text) if isinstance(text, str) else None
    if match is None or match[1] != "lot":
        raise UnknownLot(f"there is no lot {shown(text)}")
    return int(match[2]), int(match[3])
