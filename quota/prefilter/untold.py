"""Which books this process has written and Redis may not have heard of: no denial of theirs is believed.

A denial is worked out in Redis before its answer is here. So it is not enough that Redis has heard of everything by
then: it must have heard before it was asked.
"""

from __future__ import annotations

from typing import Final

from quota.clock import monotonic_seconds

REMEMBERED_MOST: Final = 10_000
"""Of how many books it is remembered when Redis heard of them."""
BLIND_SECONDS: Final = 30.0
"""For so long after a message was dropped Redis may say what it does not know better (`program.FRESH`)."""


class Untold:
    """What Redis may not have heard of. Whoever changes it holds a lock; anybody may ask."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.epoch = 0
        """How often Redis has heard of a book: who asks Redis notes it before."""
        self._waiting: dict[int, int] = {}
        self._opened: set[int] = set()
        self._heard: dict[int, int] = {}
        self._floor = 0
        self._blind_until = 0.0

    def expect(self, book_id: int, before: int, after: int) -> None:
        """A book that reached `before` reaches `after`."""
        self._waiting[book_id] = max(after, self._waiting.get(book_id, 0))
        if before == 0:
            self._opened.add(book_id)

    def heard(self, book_id: int, after: int) -> None:
        """Redis has heard that a book reaches `after`."""
        if self._waiting.get(book_id, after + 1) > after:
            return
        self.epoch += 1
        for book in (book_id, 0) if book_id in self._opened else (book_id,):
            self._heard.pop(book, None)
            self._heard[book] = self.epoch
        del self._waiting[book_id]
        self._opened.discard(book_id)
        if len(self._heard) > REMEMBERED_MOST:
            for book in list(self._heard)[: REMEMBERED_MOST // 2]:
                self._floor = self._heard.pop(book)

    def dropped(self, book_id: int) -> None:
        """What was written to a book will not be told: for a while nothing is believed, of whatever book."""
        self._waiting.pop(book_id, None)
        self._opened.discard(book_id)
        self._blind_until = monotonic_seconds() + BLIND_SECONDS

    def has(self, book_id: int, epoch: int) -> bool:
        """Whether Redis may not have heard of all that was written to a book, when it was asked in `epoch`.

        0 stands for a book that Redis knows nothing of: it may be any that was opened.
        """
        if book_id in self._waiting or (not book_id and self._opened):
            return True
        if epoch < self._floor or self._heard.get(book_id, 0) > epoch:
            return True
        return bool(self._blind_until) and monotonic_seconds() < self._blind_until
