"""One clock for all processes: an integer in a file that each has mapped. Hours pass without anybody waiting."""

from __future__ import annotations

import mmap
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

SLOTS: Final = 64
DOOMED: Final = 63
"""The place of the number, from 1 on, of the worker that is to die when it has been granted something."""
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)


class Board:
    """Whole numbers that several processes share. Each has one writer; a read is one load of eight bytes."""

    def __init__(self, path: Path) -> None:
        """Map the file, which is made with zeros where it is not there."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.ftruncate(descriptor, 8 * SLOTS)
            self._map = mmap.mmap(descriptor, 8 * SLOTS)
        finally:
            os.close(descriptor)
        self._numbers = memoryview(self._map).cast("q")

    def __getitem__(self, slot: int) -> int:
        return self._numbers[slot]

    def __setitem__(self, slot: int, number: int) -> None:
        self._numbers[slot] = number

    def close(self) -> None:
        self._numbers.release()
        self._map.close()


class SharedClock:
    """The time that the conductor has set, on the board's first place. Give it as `clock=`."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def __call__(self) -> datetime:
        return EPOCH + self._board[0] * MICROSECOND

    def set(self, now: datetime) -> None:
        self._board[0] = (now - EPOCH) // MICROSECOND

    def advance(self, by: timedelta) -> None:
        self._board[0] += by // MICROSECOND
