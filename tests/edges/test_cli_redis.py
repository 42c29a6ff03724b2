"""Redis on the command line: `replay --redis`, and what COMPTROLLER_REDIS means to the other commands."""

from __future__ import annotations

import json

import pytest

from policies import PolicySet
from quota import Comptroller, Denial, Grant
from tests.edges.conftest import POLICIES

TRACE = "at,account,operation,status,gpu_seconds,attr.images\n" + "".join(
    f"2026-03-01T12:0{minute}:00Z,eve,image.generate,succeeded,10,1\n" for minute in range(6)
)


def test_a_replay_behind_redis_says_what_it_says_without(cli, product, redis_url):
    (product.folder / "t.csv").write_text(TRACE)
    replay = ("replay", "t.csv", "--format", "csv", "--database", "sqlite://", "--json", "-")
    without = cli(*replay).json
    assert cli(*replay, "--redis", redis_url).json == without
    assert (without["granted"], without["denied"]) == (2, 4)


def test_a_replay_whose_redis_is_away_says_so_and_comes_to_the_same(cli, product):
    (product.folder / "t.csv").write_text(TRACE)
    replay = ("replay", "t.csv", "--format", "csv", "--database", "sqlite://", "--json", "-")
    said = cli(*replay, "--redis", "redis://127.0.0.1:1")
    assert said.json == cli(*replay).json
    assert said.err.startswith("redis at 127.0.0.1:1 cannot be reached")
    assert said.err.endswith("SQL decides everything meanwhile\n")
    assert said.err.count("\n") == 1


def test_help_says_how_to_put_redis_in_front_of_a_replay(cli):
    said = cli("replay", "--help").out
    assert "--redis" in said
    assert "COMPTROLLER_REDIS" in said


def test_a_url_that_cannot_be_read_is_bad_input(cli, product, monkeypatch):
    monkeypatch.setenv("COMPTROLLER_REDIS", "http://localhost")
    said = cli("account", "show", "ada")
    assert (said.code, said.out) == (2, "")
    assert "the Redis URL cannot be read" in said.err


@pytest.mark.parametrize(
    ("url", "is_", "says"),
    [
        (None, "ok", "not configured"),
        ("up", "ok", "up"),
        ("stranger", "warning", ""),
        ("redis://127.0.0.1:1", "warning", "away: redis at 127.0.0.1:1 cannot be reached"),
    ],
)
def test_doctor_says_whether_redis_answers(cli, product, monkeypatch, redis_url, url, is_, says):
    known = {"up": redis_url, "stranger": redis_url.replace("redis://", "redis://nobody:guess@")}
    if url is not None:
        monkeypatch.setenv("COMPTROLLER_REDIS", known.get(url, url))
    said = cli("doctor", "--json")
    (check,) = (each for each in said.json["checks"] if each["check"] == "redis")
    assert check["is"] == is_
    assert check["says"].startswith(says)
    assert said.code == 0, "without Redis everything works"


def test_what_a_command_writes_redis_is_told(cli, product, monkeypatch, redis_url):
    policies = PolicySet.parse(POLICIES)
    with Comptroller.open(policies, product.database, redis_url, clock=product.clock) as server:

        def ask(key: str) -> Grant | Denial:
            decision = server.admit(account="ada", operation="image.generate", key=key)
            assert server._front is not None
            server._front.news.flush()
            return decision

        # By the third time Redis knows that there is nothing left.
        assert [ask(f"more-{number}").decided_by for number in range(3)][-1] == "redis"
        monkeypatch.setenv("COMPTROLLER_REDIS", redis_url)
        assert cli("account", "show", "ada").code == 0
        assert cli("set-plan", "ada", "pro").code == 0
        assert ask("once more").granted


def test_json_of_a_replay_is_the_same_on_a_file(cli, product, redis_url):
    (product.folder / "t.csv").write_text(TRACE)
    replay = ("replay", "t.csv", "--format", "csv", "--redis", redis_url)
    assert cli(*replay, "--database", "sqlite:///replayed.db", "--json", "out.json").code == 0
    totals = json.loads((product.folder / "out.json").read_text())
    assert totals["accounts"]["eve"]["granted"] == 2
