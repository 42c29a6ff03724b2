"""Servers end with their run, however it ends."""

from __future__ import annotations

import ctypes
import functools
import operator
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import Redis, keeper, run
from tests.servers.postgres import MEMORY
from tests.servers.process import until

PROJECT = Path(__file__).resolve().parent.parent.parent

OWNER = """
import os, sys
from tests.servers import Postgres, Redis, run, shared_postgres, shared_redis
redis = Redis().start()
print(shared_redis().url, shared_postgres().url)
print(run.begin_run(), redis.pid)
if "pause" in sys.argv: redis.pause()
sys.stdout.flush()
sys.stdin.read()
"""
GUEST = """
from tests.servers import shared_postgres, shared_redis
print(shared_redis().url, shared_postgres().url)
"""


def started(program: str, *arguments: str, run_of: str | None = None) -> subprocess.Popen[str]:
    named = {} if run_of is None else {run.VARIABLE: run_of}
    env = {name: value for name, value in os.environ.items() if name != run.VARIABLE}
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=PROJECT,
        env={**env, **named},
    )


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("how", ["killed", "killed with a server on pause", "at its end"])
def test_a_run_leaves_no_server_behind(how: str):
    with started(OWNER, *how.split()) as owner:
        assert owner.stdin
        assert owner.stdout
        owner.stdout.readline()
        folder, pid = owner.stdout.readline().split()
        assert is_alive(int(pid))
        if how.startswith("killed"):
            owner.send_signal(signal.SIGKILL)
        else:
            owner.stdin.close()
        owner.wait()
    until("servers stay", 20, lambda: not Path(folder).exists() and not is_alive(int(pid)))
    assert not list(MEMORY.glob(f"{Path(folder).name}*"))


def test_processes_of_a_run_share_its_servers_which_outlive_the_first_that_asked(
    monkeypatch: pytest.MonkeyPatch,
):
    folder = run.begin_run().with_name(f"comptroller-{os.getpid()}-shared")
    answers = []
    for _ in range(2):
        with started(GUEST, run_of=str(folder)) as guest:
            answers.append(guest.communicate()[0])
    assert answers[0] == answers[1] != ""
    monkeypatch.setenv(run.VARIABLE, str(folder))
    run.end_run()
    assert not folder.exists()


def test_the_server_ends_when_its_keeper_is_killed():
    server = Redis().start()
    pid = server.pid
    assert pid
    os.kill(int((server.folder / "keeper").read_text().split()[0]), signal.SIGKILL)
    until("the server stays", 20, lambda: not is_alive(pid))
    server.close()
    assert not server.folder.exists()


def test_a_keeper_that_is_about_to_wait_hears_a_signal():
    """One that comes after the last step of Python before the wait, when no handler runs any more."""
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    reading = keeper.signals()
    try:
        poller = select.poll()
        poller.register(reading, select.POLLIN)
        comes = functools.partial(ctypes.CDLL(None).kill, os.getpid(), signal.SIGUSR1)
        waits = functools.partial(poller.poll, 20_000)
        # All of C, so that Python has no step in between.
        assert list(map(operator.call, (comes, waits))) == [0, [(reading, select.POLLIN)]]
    finally:
        os.close(signal.set_wakeup_fd(-1))
        os.close(reading)
        signal.signal(signal.SIGUSR1, before)
