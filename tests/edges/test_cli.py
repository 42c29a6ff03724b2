"""The command line as a whole: usage, errors, exit codes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.edges.conftest import POLICIES

EVERY_COMMAND = [
    ["demo"],
    ["replay"],
    ["policies", "check"],
    ["policies", "diff"],
    ["policies", "schema"],
    ["policies", "explain"],
    ["account", "show"],
    ["account", "statement"],
    ["account", "grants"],
    ["account", "set-plan"],
    ["account", "add-credits"],
    ["account", "record-purchase"],
    ["account", "set-paid-use"],
    ["account", "freeze"],
    ["account", "unfreeze"],
    ["account", "forget"],
    ["statement"],
    ["grants"],
    ["set-plan"],
    ["add-credits"],
    ["freeze"],
    ["unfreeze"],
    ["grant", "show"],
    ["grant", "explain"],
    ["grant", "release"],
    ["report"],
    ["audit", "verify"],
    ["audit", "export"],
    ["sweep"],
    ["doctor"],
    ["db", "upgrade"],
    ["db", "check"],
]


@pytest.mark.parametrize("command", EVERY_COMMAND, ids=" ".join)
def test_every_command_has_a_help_text(cli, command):
    said = cli(*command, "--help")
    assert said.code == 0
    assert "Usage: comptroller" in said.out


def test_the_version_is_one_line(cli):
    said = cli("--version")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("comptroller ")


def test_no_command_prints_the_help(cli):
    said = cli()
    assert "Commands" in said.out
    assert (said.code, said.err) == (2, "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sing"], "comptroller: no such command"),
        (["replay", "t.csv"], "comptroller replay: missing option '--format'"),
        (["replay", "t.csv", "--format", "xml"], "'xml' is not one of"),
        (["account", "show"], "comptroller account show: missing argument 'ACCOUNT'"),
        (["account", "add-credits", "ada", "many"], "comptroller account add-credits: invalid"),
        (["replay", "t.csv", "--format", "csv"], "policies.yaml: no such file or directory"),
    ],
)
def test_bad_usage_is_one_line_that_says_what_and_where(cli, arguments, message):
    said = cli(*arguments)
    assert said.code == 2
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert message in said.err


def test_a_policy_file_with_errors_gets_a_line_for_each(cli, product):
    (product.folder / "bad.yaml").write_text(POLICIES.replace("units: 2}", "untis: 2}") + "x: 1\n")
    said = cli("account", "show", "ada", "--policies", "bad.yaml")
    assert said.code == 2
    lines = said.err.splitlines()
    assert len(lines) >= 2
    assert all(line.startswith("bad.yaml:") for line in lines)


def test_a_database_that_is_not_there_is_named_and_not_made(cli, product):
    said = cli("account", "show", "ada", "--database", "sqlite:///typo.db")
    assert said.code == 2
    assert "there is no database file typo.db" in said.err
    assert not (product.folder / "typo.db").exists()


def test_a_file_that_is_no_database_is_a_service_that_is_down(cli, product):
    (product.folder / "noise.db").write_bytes(b"noise" * 1000)
    said = cli("account", "show", "ada", "--database", "sqlite:///noise.db")
    assert said.code == 3
    assert said.err.count("\n") == 1


def test_a_database_of_another_kind_is_refused(cli, product):
    said = cli("account", "show", "ada", "--database", "oracle://host/db")
    assert said.code in (2, 3)
    assert said.err.count("\n") == 1


def test_the_environment_names_database_and_policies(cli, product, monkeypatch):
    (product.folder / "policies.yaml").rename(product.folder / "elsewhere.yaml")
    monkeypatch.setenv("COMPTROLLER_POLICIES", "elsewhere.yaml")
    assert cli("account", "show", "ada").code == 0


def test_without_a_policy_file_the_databases_own_policies_are_read(cli, product):
    (product.folder / "policies.yaml").unlink()
    said = cli("account", "show", "ada", "--json")
    assert said.code == 0
    assert said.json["balance"]["plan"] == "free"


def test_the_program_runs_as_a_process_and_leaves_with_its_code(tmp_path):
    program = [sys.executable, "-c", "from quota.edges.cli import main; main()", "account", "show"]
    environment = {**os.environ, "NO_COLOR": "1"}
    done = subprocess.run(
        [*program, "ada"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("comptroller: there is no database file comptroller.db")
    assert "Traceback" not in done.stderr


def test_colours_are_for_terminals(cli, product):
    assert "\x1b" not in cli("account", "show", "ada").out
