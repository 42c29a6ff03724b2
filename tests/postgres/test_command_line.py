"""The command line on PostgreSQL: it says what is wrong, and never the password."""

from __future__ import annotations

import pytest
from sqlalchemy.engine import make_url

from quota.edges.cli import run
from tests.world import POLICIES

SECRET = "hunter2-s3cret"


@pytest.fixture
def url(database):
    return make_url(database).set(password=SECRET).render_as_string(hide_password=False)


@pytest.fixture
def told(tmp_path, monkeypatch, capsys):
    """Run a command beside a policy file, and return its exit code and what it said."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policies.yaml").write_text(POLICIES)

    def command(*arguments: str) -> tuple[int, str]:
        code = run(list(arguments))
        said = capsys.readouterr()
        return code, said.out + said.err

    return command


def test_every_command_about_the_database_keeps_its_password_to_itself(told, url):
    for arguments in (
        ("db", "upgrade"),
        ("db", "check"),
        ("doctor",),
        ("audit", "verify"),
        ("sweep",),
        ("account", "show", "u"),
    ):
        code, said = told(*arguments, "--database", url)
        assert code == 0, said
        assert SECRET not in said


def test_the_doctor_names_the_server_and_says_when_it_is_down(told, url):
    code, said = told("doctor", "--database", url)
    assert (code, "PostgreSQL 1" in said) == (0, True)
    code, said = told("doctor", "--database", f"postgresql://u:{SECRET}@127.0.0.1:1/x")
    assert (code, "cannot be reached" in said, SECRET in said) == (3, True, False)


def test_what_is_no_url_is_refused_without_being_repeated(told):
    for wrong in (f"postgres//u:{SECRET}@h/x", f"postgresql://u:{SECRET}@h:port/x"):
        code, said = told("doctor", "--database", wrong)
        assert (code, SECRET in said) == (1, False)
