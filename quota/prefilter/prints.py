"""Fingerprints: what stands for names in Redis. Short, since they are kept per account; SQL has the last word.

A collision of two keys sends a request on to SQL. A policy set whose names collide is decided by SQL alone.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b

NOBODY = b""
NAME_BYTES = 4
MEMBER_BYTES = 8
KEY_BYTES = 4
UNBOOKED_BYTES = 8
PREFIX = "comptroller"


@lru_cache(maxsize=4096)
def name_print(name: str) -> bytes:
    """Return what stands for the name of a source, a rate limit or a currency."""
    return blake2b(name.encode(), digest_size=NAME_BYTES).digest()


def member_print(account: str, member: str | None) -> bytes:
    """Return what stands for a member of an account; nothing for nobody."""
    if member is None:
        return NOBODY
    return blake2b(f"{account}\0{member}".encode(), digest_size=MEMBER_BYTES).digest()


def key_print(account: str, key: str) -> bytes:
    """Return what stands for a request's key."""
    return blake2b(f"{account}\0{key}".encode(), digest_size=KEY_BYTES).digest()


def unbooked_print(account: str, key: str) -> bytes:
    """Return what a grant that SQL does not know is kept under."""
    return blake2b(f"{account}\0{key}".encode(), digest_size=UNBOOKED_BYTES).digest()


def request_print(content: str) -> bytes:
    """Return what tells two requests under one key apart."""
    return blake2b(content.encode(), digest_size=KEY_BYTES).digest()


class Keys:
    """What accounts are called in Redis. Books that share a Redis with others need a prefix of their own."""

    __slots__ = ("prefix",)

    def __init__(self, prefix: str = PREFIX) -> None:
        """Begin all keys with `prefix`."""
        self.prefix = prefix

    def of(self, account: str) -> bytes:
        """Return the key that holds an account's state: the account is its hash tag."""
        # A brace in the name would end the tag early, and two names must not share a key.
        tag = account.replace("%", "%25").replace("{", "%7B").replace("}", "%7D")
        return f"{self.prefix}:{{{tag}}}".encode()


def redis_key(account: str) -> bytes:
    """Return the key of an account, unless another prefix was chosen."""
    return Keys().of(account)
