"""What the page of the video app tells its reader to type works as it is written."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import httpx

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
PAGE = (EXAMPLES / "video_app" / "README.md").read_text(encoding="utf-8")
SERVER, WORKER = "uvicorn", "-m video_app.worker"


def typed(part: str) -> list[list[str]]:
    """The commands of the page's console blocks that have this in them, in words."""
    blocks = re.findall(r"^```console\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    lines = re.findall(r"^\$ (.*)$", "\n".join(blocks), re.MULTILINE)
    return [shlex.split(line) for line in lines if part in line]


def here(words: list[str], folder: Path) -> list[str]:
    """The same with this run's own environment, which need not be .venv, and a database of its own."""
    program = Path(sys.executable).parent / Path(words[0]).name
    database = f"sqlite:///{folder / 'video_app.db'}"
    assert words[0].startswith("../../.venv/bin/")
    return [str(program), *(word.replace("sqlite:///video_app.db", database) for word in words[1:])]


@contextmanager
def running(words: list[str], folder: Path, ends: set[int]) -> Iterator[IO[str]]:
    """Run a command beside the test, and end it as an operator would: with these codes. Yields what it says."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("STRIPE_")},
        "VIDEO_APP_DATABASE": f"sqlite:///{folder / 'video_app.db'}",
    }
    environment.pop("COMPTROLLER_REDIS", None)
    with subprocess.Popen(
        here(words, folder), cwd=EXAMPLES, env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        try:
            yield process.stderr
        finally:
            process.send_signal(signal.SIGTERM)
            rest = process.stderr.read()
    assert process.returncode in ends, rest


def said(lines: IO[str], pattern: str) -> str:
    """Wait until a process has said something, and return the group of it."""
    heard = []
    for line in lines:
        heard.append(line)
        if found := re.search(pattern, line):
            return found[1]
    raise AssertionError("".join(heard))


def curl(words: list[str], site: str) -> httpx.Response:
    """Do what curl does with these words."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("-s", "-si", action="store_true", dest="silent")
    parser.add_argument("-H", action="append", default=[], dest="headers")
    parser.add_argument("-X", dest="method")
    parser.add_argument("--json", dest="body")
    asked = parser.parse_args(words[1:])
    headers = dict(header.split(": ", 1) for header in asked.headers)
    if asked.body is not None:
        headers["Content-Type"] = "application/json"
    method = asked.method or ("GET" if asked.body is None else "POST")
    url = asked.url.replace("localhost:8000", site)
    return httpx.request(method, url, headers=headers, content=asked.body)


def test_the_commands_on_the_page_of_the_video_app_work_as_written(tmp_path):
    (server,), (worker,) = typed(SERVER), typed(WORKER)
    # Some versions of uvicorn end by the signal itself, when they have shut down.
    with running([*server, "--port", "0"], tmp_path, {0, -signal.SIGTERM}) as told:
        site = said(told, r"running on (http://[\d.:]+)")
        answers = [curl(words, site) for words in typed("curl ")]
        assert [each.status_code for each in answers] == [202, 200, 200, 402, 202, 200]
        heron, shown, allowance, crane, stork, cancelled = (each.json() for each in answers)
        assert shown == heron == {"id": 1, "state": "queued", "units": {"daily_allowance": 4}}
        assert allowance["free"][0]["remaining"] == 2
        assert crane["reason"] == "allowance_exhausted"
        assert (stork["id"], cancelled) == (2, {"id": 2, "units_charged": 0})
        with running(worker, tmp_path, {0}) as told_by_worker:
            assert said(told_by_worker, r"job 1: (settled, 4 units)")
    books = [
        subprocess.run(here(words, tmp_path), cwd=EXAMPLES, check=True, capture_output=True)
        for words in typed("comptroller")
    ]
    assert b"2 of 6 left" in books[0].stdout
    assert b"the books are sound" in books[1].stdout
