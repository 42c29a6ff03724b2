"""A script and the name under which Redis caches it."""

from __future__ import annotations

import hashlib
from typing import NamedTuple


class Script(NamedTuple):
    """A Lua script: its text, and the SHA-1 (hexadecimal) by which EVALSHA finds it."""

    text: str
    sha: str

    @classmethod
    def of(cls, text: str) -> Script:
        """Return the script with its SHA-1 computed."""
        # Redis names scripts by SHA-1: a name, not a protection.
        return cls(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
