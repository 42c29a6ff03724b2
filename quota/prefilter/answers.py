"""What the script is asked for a decision, and what it answers. The same order and numbers as in 3_read.lua."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from quota.redis.wire import Argument


class Verdict(IntEnum):
    """The first part of the script's answer; the second is its `now`, in microseconds since 1970."""

    DENIED = 0
    """Refused, beyond doubt. The state follows: the caller decides on it again, to say why."""
    PASSED = 1
    """Everything passes, and the request is noted: SQL makes the grant. Or, without SQL, granted."""
    FACTS = 2
    """The caller assumed other facts of the account than these, which follow."""
    COLD = 3
    """Nothing is known of the account."""
    MAYBE_REPLAYED = 4
    """The key may have brought a grant: SQL knows."""
    DOUBTFUL = 5
    """It would be refused, on what SQL has not confirmed, or said too long ago."""
    OTHER_WINDOW = 6
    """The windows' boundaries were resolved for another time than it is."""
    LATE = 7
    """The deadline is past: nothing was taken."""
    REPLAYED = 8
    """A grant that SQL does not know, made before under the same key."""
    CONFLICT = 9
    """The same, for another request."""


def asked(
    given_now: str | int, deadline: int, key: bytes, facts: str, program: bytes, member: bytes
) -> list[Argument]:
    """Return what the script is given to decide on. Instants in microseconds since 1970.

    `given_now`: empty for the server's own clock. `key`: the key's fingerprint. `member`: empty for nobody, who is left
    out, since each argument costs.
    """
    args: list[Argument] = ["d", given_now, deadline, key, facts, program]
    return [*args, member] if member else args


def answered(reply: Any) -> list[Any]:
    """Return the verdict, the script's instant, and what else it answers.

    Where SQL may grant the request, the script answers with its instant alone: a list costs the server half a
    microsecond.
    """
    return [Verdict.PASSED, reply] if isinstance(reply, int) else list(reply)
