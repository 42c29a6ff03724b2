"""Keep one server: start it, and end it and remove its folders as soon as its owner is gone.

`python keeper.py OWNER FOLDER [ANOTHER...]`, with a socket to whoever started it as standard input. The owner may
die by SIGKILL, where no `atexit` runs, or in the middle of a test that has paused its server. So a
process of its own watches it, by a pidfd: unlike the end of a pipe, that cannot be held open by a
child that the owner forked, and unlike PR_SET_PDEATHSIG it does not fire when a mere thread ends.

A line of JSON on the socket starts the server: its command, its user and the signal that ends it.
The answer is a line with its process id, or with what went wrong. SIGTERM ends keeper and server.
It runs with the standard library alone (`python -I -S`), so that it starts within milliseconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import Any, Final

GRACE_SECONDS: Final = 10
PR_SET_PDEATHSIG: Final = 1


class Kept:
    """The server: at most one process at a time. The first of its folders has its log."""

    def __init__(self, folders: list[Path]) -> None:
        self.folders = folders
        self.folder = folders[0]
        self.process: subprocess.Popen[bytes] | None = None
        self.end_by: int = signal.SIGKILL
        self.prctl = ctypes.CDLL(None).prctl  # looked up here: a forked child should not load

    def start(self, command: list[str], user: list[int] | None, end_by: int) -> str:
        """Start it; the answer is its process id, or a sentence.

        Its end is left unreaped until the next start: so its process id stays its own, and who
        asked can still open a pidfd of a server that ended at once.
        """
        if self.process:
            self.process.wait()
        uid, gid = user or (None, None)
        with (self.folder / "log").open("ab") as log:
            try:
                self.process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self.folder,
                    user=uid,
                    group=gid,
                    extra_groups=None if uid is None else [],
                    process_group=0,
                    # Should the keeper itself be killed, the kernel ends the server.
                    preexec_fn=lambda: self.prctl(PR_SET_PDEATHSIG, end_by),  # noqa: PLW1509
                )
            except OSError as error:
                return f"{command[0]} does not start: {error}"
        self.end_by = end_by
        return str(self.process.pid)

    def end(self) -> None:
        """End the server, paused or not, and remove its folders, the first of them last."""
        if self.process:
            self.process.send_signal(self.end_by)
            self.process.send_signal(signal.SIGCONT)
            try:
                self.process.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for folder in reversed(self.folders):
            for _ in range(100):  # a last child of the server may still be writing
                shutil.rmtree(folder, ignore_errors=True)
                if not folder.exists():
                    break
                select.select([], [], [], 0.02)


def leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit


def signals() -> int:
    """A descriptor that every signal makes readable.

    Python runs a handler between two of its own steps. A signal that comes after the last step
    before `poll()`, and before the kernel waits, would be answered only when something else happens:
    so what it writes here ends the wait, and the handler runs.
    """
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writing)
    return reading


def serve(owner: int, kept: Kept, control: socket.socket) -> None:
    """Start what the control socket asks for, until the owner is gone."""
    poller = select.poll()
    poller.register(owner, select.POLLIN)
    poller.register(control, select.POLLIN)
    poller.register(signals(), select.POLLIN)
    lines = control.makefile("rb")
    while all(fd != owner for fd, _ in poller.poll()):
        line = lines.readline()
        if line:
            request: dict[str, Any] = json.loads(line)
            answer = kept.start(request["command"], request["user"], request["end_by"])
            control.sendall(answer.encode() + b"\n")
        else:  # who asked has ended; the owner may be another, and live on
            poller.unregister(control)


def main(owner: int, folders: list[Path]) -> None:
    os.setsid()  # a Ctrl-C is for the tests, which still need the server to end well
    kept = Kept(folders)
    signal.signal(signal.SIGTERM, leave)
    orphaned = True
    try:
        serve(os.pidfd_open(owner), kept, socket.socket(fileno=os.dup(0)))
    except ProcessLookupError:  # the owner was gone before the keeper came
        pass
    except SystemExit:
        orphaned = False
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        kept.end()
        if orphaned:  # the last keeper removes what held all folders; others find it in use
            with contextlib.suppress(OSError):
                kept.folder.parent.rmdir()


if __name__ == "__main__":
    main(int(sys.argv[1]), [Path(each) for each in sys.argv[2:]])
