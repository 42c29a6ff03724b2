"""How an explanation of a grant looks to people."""

from __future__ import annotations

from quota.edges.common import plain, print_json


def explanation(found: object) -> None:
    """Print what each policy read and found, and whether deciding again gives the same."""
    print_json(plain(found))
