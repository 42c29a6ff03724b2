"""What the script answers to a decision. The same numbers as in 3_read.lua."""

from __future__ import annotations

from enum import IntEnum


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
