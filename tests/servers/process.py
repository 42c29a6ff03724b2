"""A server as a process: started, ready, stopped, killed, paused, and gone for sure.

`keeper.py` is the process between: it ends the server when its owner is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import secrets
import select
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

READY_SECONDS: Final = 30.0
KEEPER_FILE: Final = "keeper"


class ServerError(RuntimeError):
    """A server did not do as it was told; the message ends with its log."""


def until(
    what: str, seconds: float, condition: Callable[[], bool], pidfd: int | None = None
) -> None:
    """Wait for a condition of another process, at most so long; its death ends the wait at once."""
    poller = select.poll()
    if pidfd is not None:
        poller.register(pidfd, select.POLLIN)
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline or poller.poll(5):
            raise ServerError(what)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def end_keeper(folder: Path) -> None:
    """End the server of a folder, whoever started it, and wait until the folder is gone."""
    folders = [str(folder)]
    # It has ended already, or never begun.
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        number, *folders = (folder / KEEPER_FILE).read_text().splitlines()
        pid = int(number)
        pidfd = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(pidfd, signal.SIGTERM)
            if not _readable(pidfd, int(READY_SECONDS * 1000)):
                raise ServerError(f"the keeper of {folder} does not end")
        finally:
            os.close(pidfd)
        with contextlib.suppress(ChildProcessError):  # another process is its parent
            os.waitpid(pid, 0)
    for each in reversed(folders):  # nothing to do, but where the keeper was killed
        shutil.rmtree(each, ignore_errors=True)


class Server:
    """One server in a folder of its own. Subclasses say what it is.

    `owner` is the process with which it ends; this one where none is given.
    """

    kind: str
    end_by: int = signal.SIGKILL

    def __init__(self, folder: Path, owner: int | None = None) -> None:
        self.folder = folder
        self.port = 0
        self.pid: int | None = None
        self._owner = owner or os.getpid()
        self._pidfd: int | None = None
        self._control: socket.socket | None = None

    # --- what a subclass says -----------------------------------------------------------------

    def user(self) -> tuple[int, int] | None:
        """Under which user and group it runs, where not under ours."""
        return None

    def folders(self) -> list[Path]:
        """Its folders: that of its log, and others that are to go with it."""
        return [self.folder]

    def prepare(self) -> None:
        """Make what the first start needs."""

    def command(self) -> list[str]:
        """How it is started."""
        raise AssertionError

    def is_ready(self) -> bool:
        """Whether it answers."""
        raise AssertionError

    # --- its life -----------------------------------------------------------------------------

    def start(self) -> Self:
        """Start it, for the first time or again, on the data and the port that it had."""
        if self._control is None:
            self._begin()
        # Between the choice of a port and its use somebody else may take it.
        attempts = 1 if self.port else 5
        for attempt in range(attempts):
            self.port = self.port or free_port()
            self._launch()
            try:
                until("is not ready", READY_SECONDS, self.is_ready, self._pidfd)
                return self
            except ServerError as error:
                self._forget()
                if attempt == attempts - 1 or "in use" not in self.log():
                    raise ServerError(f"{self.kind} {error}:\n{self.log()[-4000:]}") from None
                self.port = 0
        raise AssertionError

    def stop(self) -> None:
        """Stop it as an administrator does. Its data stay for the next start."""
        self.end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a crash does. Its data stay for the next start."""
        self.end(signal.SIGKILL)

    def restart(self) -> None:
        self.stop()
        self.start()

    def pause(self) -> None:
        """Let it hang: connections stay open, and no answer comes."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    def close(self) -> None:
        """End it and remove all that it has written."""
        if self._control is not None:
            self._control.close()
            self._control = None
            end_keeper(self.folder)
        self._forget()

    def leave(self) -> None:
        """Let go of it without ending it: it ends with its owner, another process."""
        if self._control is not None:
            self._control.close()
            self._control = None
        self._forget()

    @property
    def running(self) -> bool:
        return self._pidfd is not None and not _readable(self._pidfd, 0)

    def signal(self, number: int) -> None:
        if self._pidfd is None:
            raise ServerError(f"{self.kind} is not running")
        signal.pidfd_send_signal(self._pidfd, number)

    def end(self, number: int) -> None:
        """End it by a signal, paused or not, and wait until it has ended."""
        self.signal(number)
        self.resume()
        assert self._pidfd is not None
        if not _readable(self._pidfd, int(READY_SECONDS * 1000)):
            raise ServerError(f"{self.kind} does not end:\n{self.log()[-4000:]}")
        self._forget()

    def log(self) -> str:
        path = self.folder / "log"
        return path.read_text("utf-8", errors="replace") if path.exists() else ""

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # --- through its keeper -------------------------------------------------------------------

    def _begin(self) -> None:
        self.folder.mkdir(mode=0o711, parents=True)
        ours, theirs = socket.socketpair()
        keeper = Path(__file__).with_name("keeper.py")
        folders = [str(folder) for folder in self.folders()]
        arguments = [sys.executable, "-I", "-S", str(keeper), str(self._owner), *folders]
        nowhere = (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0)
        errors = self.folder / "keeper.log"
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        with theirs:
            # Not subprocess: it would warn of a child that lives on, which is what this one is for.
            pid = os.posix_spawn(
                sys.executable,
                arguments,
                os.environ,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, theirs.fileno(), 0),
                    nowhere,
                    (os.POSIX_SPAWN_OPEN, 2, str(errors), flags, 0o600),
                ],
            )
        self._control = ours
        (self.folder / KEEPER_FILE).write_text("\n".join([str(pid), *folders]))
        try:
            self.prepare()
        except BaseException:
            self.close()
            raise

    def _launch(self) -> None:
        assert self._control is not None
        request = {"command": self.command(), "user": self.user(), "end_by": self.end_by}
        self._control.sendall(json.dumps(request).encode() + b"\n")
        answer = self._control.recv(4096).decode().strip()
        if not answer.isdigit():
            told = (self.folder / "keeper.log").read_text()
            raise ServerError(f"{self.kind}: {answer or told or 'its keeper has gone'}")
        self.pid = int(answer)
        self._pidfd = os.pidfd_open(self.pid)

    def _forget(self) -> None:
        if self._pidfd is not None:
            os.close(self._pidfd)
        self._pidfd = self.pid = None


def private_folder(run: Path, kind: str) -> Path:
    """A folder of the run for a server that one test has for itself."""
    return run / f"{kind}-{os.getpid()}-{secrets.token_hex(4)}"


def unprivileged() -> tuple[int, int] | None:
    """Whom a server runs as that refuses to run as root."""
    if os.geteuid():
        return None
    nobody = pwd.getpwnam("nobody")
    return nobody.pw_uid, nobody.pw_gid


def _readable(descriptor: int, milliseconds: int) -> bool:
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(milliseconds))
