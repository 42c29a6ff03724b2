"""Where workers come from: a process that has imported everything once, and forks one for each that is asked for.

A worker that is killed is soon replaced, and a second of imports for each would be most of a run. The conductor has
threads and does not fork; this process has none. A worker's standard streams come with the request for it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
from typing import Final

from tests.processes.workers import PROJECT

REQUEST_BYTES: Final = 65536


class Child:
    """A worker, by its process id; it is nobody's child who could wait for it, so that it is watched instead."""

    def __init__(self, pid: int) -> None:
        self._pidfd = os.pidfd_open(pid)

    @property
    def running(self) -> bool:
        return self._pidfd >= 0 and not select.select([self._pidfd], [], [], 0)[0]

    def send(self, number: int) -> None:
        signal.pidfd_send_signal(self._pidfd, number)

    def wait(self, seconds: float) -> bool:
        """Wait until it has ended, at most so long; the answer is whether it has."""
        if self._pidfd >= 0 and not select.select([self._pidfd], [], [], seconds)[0]:
            return False
        self.forget()
        return True

    def forget(self) -> None:
        if self._pidfd >= 0:
            os.close(self._pidfd)
        self._pidfd = -1


class Nursery:
    """The process, from the conductor's side."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "error", "-m", "tests.faults.nursery"],
                cwd=PROJECT,
                stdin=theirs.fileno(),
            )

    def start(self, settings: str, streams: list[int]) -> Child:
        """Start a worker with these settings on these three descriptors."""
        socket.send_fds(self._socket, [settings.encode()], streams)
        return Child(int(self._socket.recv(64)))

    def close(self) -> None:
        self._socket.close()
        self._process.wait()


def serve(asked: socket.socket) -> list[str]:
    """Fork a worker for each request, until nobody asks any more. In a worker the answer is its settings."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    while True:
        text, streams, _, _ = socket.recv_fds(asked, REQUEST_BYTES, 3)
        if not text:
            return []
        pid = os.fork()
        if not pid:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
        for stream in streams:
            os.close(stream)
        if not pid:
            return [text.decode()]
        asked.send(b"%d" % pid)


def main() -> None:
    from tests.faults import worker

    with socket.socket(fileno=os.dup(0)) as asked:
        settings = serve(asked)
    for text in settings:
        worker.main(json.loads(text))


if __name__ == "__main__":
    main()
