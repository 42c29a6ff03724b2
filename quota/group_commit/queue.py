"""Who is made at once, who waits, and when a batch begins. Safe for several threads, each with an event loop.

A call that finds nothing under way is made at once, as if there were no group commit. Those that arrive meanwhile wait
together and are the next batch: so none waits for longer than a transaction, and a busy engine makes larger batches
rather than longer queues.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from typing import Any, Final

from quota.group_commit.batch import Call, run_batch
from quota.group_commit.denied import LastDenied
from quota.group_commit.works import Work
from quota.stores.base import Store

CALLS_MAX: Final = 32
"""How many calls share a transaction at most: more would save little, and keep the first of them waiting."""

BATCHES_MAX: Final = 2
"""How many batches may be under way at one time: while the server works on one, the other is put together."""

log: Final = logging.getLogger("comptroller.group_commit")


class Waiting:
    """A call under way, and who waits for it. `alone`: makes it as if there were no group commit."""

    __slots__ = ("alone", "call", "error", "future", "key", "loop", "result")

    def __init__(self, work: Work, alone: Callable[[], Any]) -> None:
        self.call = Call(work, copy_context())
        self.key = work.key
        self.alone = alone
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()
        self.result: Any = None
        self.error: BaseException | None = None

    def make(self, how: Callable[[], Any]) -> None:
        """Keep what this returns or raises."""
        try:
            self.result = how()
        except BaseException as error:  # noqa: BLE001 - whoever waits for it shall have it, whatever it is
            self.error = error

    def tell(self) -> None:
        """Tell who waits, if anybody still does. Runs in their event loop."""
        if self.future.done():
            return
        if self.error is None:
            self.future.set_result(self.result)
        elif isinstance(self.error, StopIteration):  # a future takes none
            self.future.set_exception(RuntimeError("a call was stopped"))
        else:
            self.future.set_exception(self.error)


class GroupCommit:
    """Gathers the calls of one AsyncComptroller. A call that is cancelled while it waits is not made."""

    def __init__(self, store: Store, threads: Executor) -> None:
        """Keep books in `store`. `threads`: where calls are made alone."""
        self._store, self._threads = store, threads
        self._batches_max = 1 if store.engine.dialect.name == "sqlite" else BATCHES_MAX
        self._batches = ThreadPoolExecutor(
            self._batches_max, thread_name_prefix="comptroller-batch"
        )
        self._guard = threading.Condition()
        self._queue: deque[Waiting] = deque()
        self._busy: set[object] = set()
        self._under_way = self._batching = 0
        self._is_closing = False
        self._level = logging.ERROR
        self.denied: Final = LastDenied()
        """Whose last answer was a denial."""

    async def make(self, work: Work, alone: Callable[[], Any]) -> Any:
        """Make a call, with others or `alone`, and return its answer or raise its error."""
        waiting = Waiting(work, alone)
        with self._guard:
            if self._under_way and not self._is_closing:
                self._queue.append(waiting)
                if self._batching < self._batches_max:
                    self._batches.submit(self._run)
                    self._batching += 1
            else:
                self._threads.submit(self._make_alone, waiting)
            self._under_way += 1
        return await waiting.future

    def close(self) -> None:
        """Wait until nothing is under way any more."""
        with self._guard:
            self._is_closing = True
            self._guard.wait_for(lambda: not self._under_way)
        self._batches.shutdown()

    def _run(self) -> None:
        """Make batches until nobody waits."""
        while batch := self._next_batch():
            wanted = [each for each in batch if not each.future.cancelled()]
            try:
                if len(wanted) > 1:
                    run_batch(self._store, [each.call for each in wanted])
            except Exception:
                # Whatever it was: each of them will see when it is made alone. Where it is so always, once is enough.
                log.log(self._level, "a batch could not be made", exc_info=True)
                self._level = logging.DEBUG
            for each in wanted:
                if each.call.is_done:
                    each.make(each.call.answer)
                else:
                    self._threads.submit(self._make_alone, each)
            with self._guard:
                self._busy.difference_update(each.key for each in batch)
            self._end([each for each in batch if each.call.is_done or each not in wanted])

    def _next_batch(self) -> list[Waiting]:
        """Take those who wait, in order, but not two calls of one account into two batches."""
        with self._guard:
            batch: list[Waiting] = []
            passed: list[Waiting] = []
            keys: set[object] = set()
            while self._queue and len(batch) < CALLS_MAX:
                each = self._queue.popleft()
                if each.key in self._busy:
                    passed.append(each)
                else:
                    batch.append(each)
                    keys.add(each.key)
            self._queue.extendleft(reversed(passed))
            self._busy |= keys
            if not batch:
                self._batching -= 1
            return batch

    def _make_alone(self, waiting: Waiting) -> None:
        if not waiting.future.cancelled():
            waiting.make(lambda: waiting.call.context.run(waiting.alone))
        self._end([waiting])

    def _end(self, ended: Iterable[Waiting]) -> None:
        """Tell those who wait for these calls: every event loop once."""
        by_loop: dict[asyncio.AbstractEventLoop, list[Waiting]] = defaultdict(list)
        for each in ended:
            by_loop[each.loop].append(each)
        for loop, waiting in by_loop.items():
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(_tell, waiting)
        with self._guard:
            self._under_way -= sum(map(len, by_loop.values()))
            if not self._under_way:
                self._guard.notify_all()


def _tell(waiting: Iterable[Waiting]) -> None:
    for each in waiting:
        each.tell()
