"""`.ci/debian-servers` says in one line why it cannot do its work."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent.parent / ".ci/debian-servers"


def run_with(tools: dict[str, str], folder: Path, *command: str) -> tuple[int, str]:
    """Run the script where these are the only programs, besides two that every system has."""
    for name in ("sort", "tail"):
        (folder / name).symlink_to(shutil.which(name) or name)
    for name, text in tools.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    bash = shutil.which("bash") or "bash"
    ended = subprocess.run(
        [bash, str(SCRIPT), *command],
        env={"PATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.stdout == ""
    return ended.returncode, ended.stderr


@pytest.mark.parametrize(
    ("tools", "why"),
    [
        ({}, "there is no apt-get to install it"),
        ({"apt-get": "exit 0", "id": "echo 1000"}, "only root can install it"),
        (
            {"apt-get": "echo 'W: old' >&2; echo 'E: not there' >&2; exit 100", "id": "echo 0"},
            "apt-get cannot install redis-server postgresql: E: not there",
        ),
    ],
)
def test_what_cannot_be_installed_fails_in_one_line(
    tools: dict[str, str], why: str, tmp_path: Path
):
    code, told = run_with({"find": "exit 0", **tools}, tmp_path, "false")
    assert code == 1
    assert told.startswith("debian-servers: ")
    assert told.endswith(f"{why}\n")
    assert told.count("\n") == 1


def test_a_command_is_needed(tmp_path: Path):
    assert run_with({}, tmp_path) == (1, "debian-servers: no command given, such as: make test\n")
