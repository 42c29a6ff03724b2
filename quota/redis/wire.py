"""Commands as bytes: what is sent to Redis, for the sync and the async client alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import hiredis

from quota.redis.script import Script

Argument = bytes | int | str
Call = tuple[bytes, Sequence[Argument]]  # a key, and the script's arguments for it

# A reply may be any value, None included, so "there is none yet" needs a value of its own.
NOTHING: Final = object()

# hiredis declares a tuple of one, and returns bytes.
_pack: Callable[[tuple[Argument, ...]], bytes] = hiredis.pack_command  # type: ignore[assignment]


def command(*args: Argument) -> bytes:
    """Return one command as it goes over the wire."""
    return _pack(args)


def evalsha(script: Script, key: bytes, args: Sequence[Argument]) -> bytes:
    """Return the call of a script by its name, on one key."""
    return _pack(("EVALSHA", script.sha, 1, key, *args))


def eval_body(script: Script, key: bytes, args: Sequence[Argument]) -> bytes:
    """Return the call of a script by its body, which Redis then caches.

    EVAL and not SCRIPT LOAD: proxies and managed services refuse the latter.
    """
    return _pack(("EVAL", script.text, 1, key, *args))


def key_of(args: Sequence[Argument]) -> bytes | None:
    """Return the key that a command is about: its first argument, if in bytes, as all keys are."""
    return args[1] if len(args) > 1 and isinstance(args[1], bytes) else None


ASKING: Final = command("ASKING")
SLOTS: Final = command("CLUSTER", "SLOTS")


def reader() -> hiredis.Reader:
    """Return a parser of replies. Error replies are values here, not exceptions."""
    return hiredis.Reader(notEnoughData=NOTHING)
