"""One run of the tests: what its processes share, and who owns it.

The run is named by an environment variable, so that pytest's workers and the processes which tests
start find the servers that another of them has started. The name is a folder that need not exist
yet, with the owner's process id in it: pytest's main process, or else the first that asked.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Protocol

from tests.servers.process import end_keeper

VARIABLE: Final = "COMPTROLLER_TEST_RUN"


def begin_run() -> Path:
    """The folder of this run; this process owns it where no other does."""
    if VARIABLE not in os.environ:
        name = f"comptroller-{os.getpid()}-{secrets.token_hex(4)}"
        os.environ[VARIABLE] = str(_temporary_folder() / name)
        atexit.register(end_run)
    return Path(os.environ[VARIABLE])


def owner_of(run: Path) -> int:
    """The process at whose end all servers of the run end."""
    return int(run.name.split("-")[1])


def token_of(run: Path) -> str:
    """What names of this run alone carry, where servers outlive it."""
    return run.name.split("-")[2]


def worker() -> str:
    """The name of this worker of pytest-xdist, which the processes it starts inherit."""
    return os.environ.get("PYTEST_XDIST_WORKER", "main")


def made(run: Path) -> Path:
    """The run's folder, there now; the servers' users may pass through it, not look around."""
    run.mkdir(mode=0o711, exist_ok=True)
    return run


@contextlib.contextmanager
def alone(run: Path) -> Iterator[None]:
    """Hold the run's lock: of all its processes one at a time."""
    descriptor = os.open(made(run), os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


class Shared(Protocol):
    """What `share` needs of a server, or of several."""

    @property
    def url(self) -> str: ...
    def start(self) -> object: ...
    def leave(self) -> None: ...
    def close(self) -> None: ...


def share(name: str, make: Callable[[Path, int], Shared]) -> str:
    """The URL of a server of this run; the first process that asks starts it.

    `make` is given the server's folder and the process with which it ends.
    """
    run = begin_run()
    state = run / name / "url"
    with alone(run):
        if not state.exists():
            server = make(run / name, owner_of(run))
            try:
                server.start()
                state.write_text(server.url)
            except BaseException:
                server.close()
                raise
            server.leave()
    return state.read_text()


def is_owner() -> bool:
    """Whether the run ends with this process, which others take part in."""
    run = Path(os.environ.get(VARIABLE, ""))
    return bool(run.name) and owner_of(run) == os.getpid()


def end_run() -> None:
    """End every server of the run. Nothing to do for those who only took part in it."""
    if not is_owner():
        return
    run = Path(os.environ[VARIABLE])
    if run.is_dir():
        for folder in run.iterdir():
            end_keeper(folder)
        run.rmdir()
    del os.environ[VARIABLE]


def _temporary_folder() -> Path:
    """Where servers may live: a server that is started by root runs as a user who must get there."""
    folder = Path(tempfile.gettempdir()).resolve()
    everyone = all(each.stat().st_mode & 0o001 for each in (folder, *folder.parents))
    return folder if everyone or os.geteuid() else Path("/tmp")
