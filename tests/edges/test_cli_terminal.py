"""The command line beside other programs: pipes, narrow terminals, Ctrl-C, questions that nobody answers."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from datetime import datetime

import pytest

from quota import Comptroller
from quota.audit.workers import uninterrupted
from quota.edges.cli_operations import keep_sweeping
from quota.policy_file import PolicyFile
from quota.stores.opening import open_store
from quota.stores.sqlite import SqliteStore

PROGRAM = [sys.executable, "-c", "from quota.edges.cli import main; main()"]
TAMPER = "UPDATE comptroller_lot_balance SET units_used = units_used + 1"


def read_no_further(*arguments: str) -> tuple[int, str]:
    """Run a command whose reader has gone away before it begins, as `head` does after a line."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*PROGRAM, *arguments], stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["report", "--since", "2026-01-01"],
        ["account", "show", "ada", "--json"],
        ["audit", "export"],
    ],
    ids=" ".join,
)
def test_whoever_reads_no_further_is_no_error(product, arguments):
    assert read_no_further(*arguments) == (0, "")


def test_whoever_reads_no_further_still_gets_the_exit_code_of_what_was_found(cli, product):
    cli("add-credits", "ada", "5")
    with open_store(product.database).writing() as db:
        db.driver_sql(TAMPER)
    assert cli("audit", "verify").code == 1
    assert read_no_further("audit", "verify") == (1, "")
    assert read_no_further("audit", "verify", "--json") == (1, "")


def without_streams(*arguments: str) -> int:
    """Run a command as some supervisors do: with stdin, stdout and stderr closed."""
    shell = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *PROGRAM, *arguments]
    return subprocess.run(shell, check=False).returncode


def test_a_command_needs_no_stdin_stdout_or_stderr(cli, product):
    assert without_streams("sweep") == 0
    assert cli("sweep", "--json").json == {"records": 0}, "it was written"
    assert without_streams("report", "--by", "wat") == 2
    assert without_streams("account", "forget", "ada") == 2


@pytest.mark.parametrize(
    "command",
    [
        ["report", "--month", "2026-01", "--by", "plan,operation,source"],
        ["statement", "ada", "--month", "2026-01"],
        ["grants", "ada"],
    ],
    ids=" ".join,
)
def test_a_narrow_terminal_cuts_no_word_and_no_number(cli, product, monkeypatch, command):
    wide = cli(*command).out
    monkeypatch.setenv("COLUMNS", "40")
    narrow = cli(*command).out
    assert "$0.00" in wide or "settled" in wide
    assert words(wide) - words(narrow) == set()


def words(text: str) -> set[str]:
    """Return the words of a table, without its rules."""
    return {word for word in text.split() if "─" not in word}


class Interrupted(io.StringIO):
    """A terminal at which somebody presses Ctrl-C."""

    def __next__(self):
        raise KeyboardInterrupt

    def readline(self, *_):
        raise KeyboardInterrupt


def test_ctrl_c_is_one_word(cli, product, monkeypatch):
    monkeypatch.setattr("sys.stdin", Interrupted())
    said = cli("replay", "-", "--format", "csv", "--database", "sqlite://")
    assert (said.code, said.out, said.err) == (130, "", "interrupted\n")


def test_processes_that_verify_leave_ctrl_c_to_the_one_that_waits():
    ask = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))"
    with uninterrupted():
        said = subprocess.run(
            [sys.executable, "-c", ask], capture_output=True, text=True, check=True
        )
    assert said.stdout == "True\n"
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


@pytest.mark.parametrize("answer", ["", "n\n"], ids=["nobody answers", "no"])
def test_nothing_is_erased_without_a_yes(cli, product, monkeypatch, answer):
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    said = cli("account", "forget", "ada")
    assert (said.code, said.out) == (2, "")
    assert said.err.endswith("comptroller: nothing was erased: answer y, or give --yes\n")
    assert len(cli("grants", "ada", "--json").json) == 2


def test_an_account_is_erased_after_a_yes(cli, product, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert cli("account", "forget", "ada").out == "ada is forgotten\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["account", "show", "ada", "--at", "yesterday 25:99"],
        ["account", "show", "ada", "--at", "999999999d ago"],
        ["account", "show", "ada", "--at", "0001-01-01"],
        ["statement", "ada", "--until", "9999-12-31"],
        ["report", "--month", "0001-01", "--timezone", "Asia/Tokyo"],
        ["report", "--month", "9999-12", "--timezone", "America/New_York"],
    ],
    ids=" ".join,
)
def test_a_time_that_nobody_means_is_one_line(cli, product, arguments):
    said = cli(*arguments)
    assert said.code == 2
    assert said.err.count("\n") == 1
    assert "` is no " in said.err


def test_a_month_ago_is_a_time(cli, product):
    assert cli("statement", "ada", "--since", "2mo ago", "--json").json["since"] > "2026"


def test_a_sweeper_goes_on_where_the_database_is_busy_for_a_while(product, capsys):
    """It is a service: it must not end where its next try may succeed."""
    policies = PolicyFile(product.folder / "policies.yaml", on_change=lambda *_, **__: None)
    impatient = SqliteStore(open_store(product.database).engine.url, busy_seconds=0)
    clock = product.clock
    clock.advance(hours=2)
    with Comptroller(policy_file=policies, db=impatient, clock=clock) as comptroller:
        somebody = open_store(product.database).writing()
        somebody.__enter__()
        tries: list[datetime] = []

        def pause() -> bool:
            if not tries:
                somebody.__exit__(None, None, None)
            tries.append(clock.now)
            return len(tries) == 2

        keep_sweeping(comptroller, pause)
    said = capsys.readouterr()
    assert said.err == (
        "the database stayed locked past the timeout: try again; the next sweep tries again\n"
    )
    assert said.out == "1 record written\n"
