"""The workers, from the conductor's side: started, told how far to go, watched, killed and started again."""

from __future__ import annotations

import json
import os
import select
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from tests.faults.clock import Board
from tests.faults.journal import Entry, entries
from tests.faults.nursery import Nursery
from tests.faults.worker import Settings
from tests.servers.process import ServerError, until

PATIENCE_SECONDS: Final = 90
"""For what takes seconds, on a machine that may have other things to do."""


class Worker:
    """One worker process, and the ones that came before it in its place."""

    def __init__(self, settings: Settings, board: Board, nursery: Nursery) -> None:
        self.settings, self._board, self._nursery = settings, board, nursery
        self._log = Path(settings.folder) / f"{settings.lanes[0]}.stderr"
        self._told_before: Counter[str] = Counter()
        self.start()

    def start(self) -> None:
        """Start it. Its lanes go on where their journals end."""
        self._unread, self._reached, self._told, self._ended_well = b"", 0, Counter[str](), False
        theirs_in, self._input = os.pipe()
        self._output, theirs_out = os.pipe()
        errors = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        streams = [theirs_in, theirs_out, errors]
        self._process = self._nursery.start(self.settings.text(), streams)
        for stream in streams:
            os.close(stream)

    def go(self, target: int) -> None:
        os.write(self._input, b"%d\n" % target)

    @property
    def running(self) -> bool:
        return self._process.running

    @property
    def progress(self) -> int:
        """How many operations its lanes have done."""
        first = self.settings.first_slot
        return sum(self._board[first + place] for place in range(len(self.settings.lanes)))

    def has_reached(self, target: int) -> bool:
        self._read()
        return self._reached >= target

    def told(self) -> Counter[str]:
        """How many messages of each kind Redis has taken from it, as far as it has said."""
        return self._told_before + self._told

    def kill(self) -> None:
        """End it as a crash does, whatever it is in the middle of."""
        if self.running:
            self._process.send(signal.SIGKILL)
        self._ended()

    def close(self) -> list[str]:
        """Let it end well, and return what went wrong in it."""
        os.close(self._input)
        self._input = -1
        self._ended()
        if self._ended_well and not self.errors():
            return []
        return [f"a worker ended {'well' if self._ended_well else 'badly'}: {self.errors()}"]

    def where(self) -> str:
        """Where its threads are, for who waits in vain."""
        if self.running:
            self._process.send(signal.SIGUSR1)
            self._process.wait(1)
        return self.errors()

    def errors(self) -> str:
        return self._log.read_text()[-8000:]

    def _ended(self) -> None:
        if not self._process.wait(PATIENCE_SECONDS):
            raise ServerError(f"a worker does not end:\n{self.where()}")
        self._read()
        self._told_before += self._told
        for stream in (self._input, self._output):
            if stream >= 0:
                os.close(stream)
        self._input = self._output = -1

    def _read(self) -> None:
        while self._output >= 0 and select.select([self._output], [], [], 0)[0]:
            data = os.read(self._output, 65536)
            if not data:
                return
            *lines, self._unread = (self._unread + data).split(b"\n")
            for line in lines:
                said: dict[str, Any] = json.loads(line)
                self._ended_well = "ended" in said
                if not self._ended_well:
                    self._reached, self._told = said["reached"], Counter(said["told"])


class Crew:
    """All workers of a scenario."""

    def __init__(self, settings: Sequence[Settings], board: Board) -> None:
        self._folder, self._goal, self._began = Path(settings[0].folder), 0, 0
        self._nursery = Nursery()
        self.workers = [Worker(each, board, self._nursery) for each in settings]
        self._killed: list[Worker] = []
        self._lanes = [lane for each in settings for lane in each.lanes]

    def go(self, operations: int) -> None:
        """Let every lane do so many operations more."""
        self._began, self._goal = self.progress, self._goal + operations
        for worker in self.workers:
            worker.go(self._goal)

    def expect_end(self, worker: Worker) -> None:
        """From now on a worker may end. The others are waited for, until it is started again."""
        if worker not in self._killed:
            self._killed.append(worker)

    def kill(self, worker: Worker) -> None:
        """End a worker as a crash does."""
        self.expect_end(worker)
        worker.kill()

    def restart(self, worker: Worker) -> None:
        """Start a worker again that was killed; it does what is left to do."""
        if worker in self._killed:
            self._killed.remove(worker)
            worker.start()
            worker.go(self._goal)

    @property
    def progress(self) -> int:
        return sum(worker.progress for worker in self.workers)

    def reach(self, part: float) -> None:
        """Wait until this part of the operations under way is done."""
        wanted = self._began + part * (self._goal * len(self._lanes) - self._began)
        self._until(lambda: self.progress >= wanted or self._all_done())

    def finish(self) -> None:
        """Wait until all is done."""
        self._until(self._all_done)

    def told(self) -> Counter[str]:
        return sum((worker.told() for worker in self.workers), Counter())

    def entries(self) -> list[Entry]:
        """All calls so far, of one lane after the other."""
        return [entry for lane in self._lanes for entry in entries(self._folder / f"{lane}.jsonl")]

    def close(self) -> list[str]:
        """Let all workers end well, and return what went wrong in them."""
        return [wrong for worker in self.workers for wrong in worker.close()]

    def end(self) -> None:
        """End what is left, for sure."""
        for worker in self.workers:
            if worker.running:
                worker.kill()
        self._nursery.close()

    def _all_done(self) -> bool:
        done = [worker.has_reached(self._goal) for worker in self.workers]
        for worker, is_done in zip(self.workers, done, strict=True):
            if not is_done and not worker.running and worker not in self._killed:
                raise ServerError(f"a worker has ended:\n{worker.errors()}")
        return all(
            is_done or worker in self._killed
            for worker, is_done in zip(self.workers, done, strict=True)
        )

    def _until(self, condition: Callable[[], bool]) -> None:
        try:
            until("the workers do not get on", PATIENCE_SECONDS, condition)
        except ServerError as error:
            where = "\n".join(worker.where() for worker in self.workers)
            raise ServerError(f"{error}:\n{where}") from None
