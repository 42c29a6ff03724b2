"""`comptroller replay`, `sweep`, `doctor`, `db`."""

from __future__ import annotations

import io
import json
import sqlite3

import pytest

TRACE = """at,account,operation,status,gpu_seconds,attr.images
2026-03-01T12:00:00Z,eve,image.generate,succeeded,10,2
2026-03-01T12:00:00Z,eve,image.generate,failed,10,1
2026-03-01T13:00:00Z,eve,image.generate,open,,1
"""
FRESH = "sqlite:///replayed.db"


@pytest.fixture
def trace(product):
    (product.folder / "t.csv").write_text(TRACE)
    return ("replay", "t.csv", "--format", "csv", "--database", "sqlite://")


def test_a_replay_prints_its_totals_and_writes_them(cli, trace, product):
    said = cli(*trace, "--json", "out.json")
    assert (said.code, said.err) == (0, ""), "there is no progress bar where there is no terminal"
    assert "requests" in said.out
    totals = json.loads((product.folder / "out.json").read_text())
    assert (totals["requests"], totals["granted"], totals["denied"]) == (3, 1, 2)
    assert cli(*trace, "--json", "-").json == totals


def test_a_replay_keeps_its_books_where_it_is_told(cli, trace, product):
    kept = (*trace[:-1], FRESH)
    assert cli(*kept).code == 0
    assert len(cli("grants", "eve", "--database", FRESH, "--json").json) == 1
    said = cli(*kept)
    assert said.code == 2
    assert "holds grants already" in said.err


def test_an_invalid_row_stops_a_replay_with_its_line_or_is_counted(cli, trace, product):
    (product.folder / "t.csv").write_text(TRACE.replace(",open,,1", ",open,,9"))
    said = cli(*trace)
    assert said.code == 2
    assert "t.csv:4: `images` must be between 1 and 4" in said.err
    totals = cli(*trace, "--skip-invalid", "--json", "-").json
    assert (totals["requests"], totals["invalid"]) == (2, 1)


def test_a_trace_is_read_from_stdin(cli, trace, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(TRACE))
    assert cli("replay", "-", *trace[2:], "--json", "-").json["requests"] == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.csv"], "nowhere.csv: no such file or directory"),
        (["."], ".: is a folder, not a trace"),
        (["t.csv", "--json", "no/such/out.json"], "--json no/such/out.json: no such file"),
        (["t.csv", "--plan", "gold"], "unknown plan `gold`"),
        (["t.csv", "--redis", "http://localhost"], "the Redis URL cannot be read"),
    ],
)
def test_what_cannot_be_replayed_is_said_in_one_line(cli, trace, arguments, message):
    said = cli("replay", *arguments, *trace[2:])
    assert said.code == 2
    assert said.err.count("\n") == 1
    assert message in said.err


def test_a_sweep_writes_what_fell_due(cli, product):
    assert cli("doctor", "--json").json["ok"]
    assert "1 expired grant not written yet" in cli("doctor").out
    assert cli("sweep").out == "1 record written\n"
    assert cli("sweep", "--json").json == {"records": 0}
    assert cli("sweep", "--every", "often").code == 2
    assert cli("sweep", "--every", "1mo").code == 2


def test_the_doctor_finds_what_is_wrong(cli, product):
    assert cli("doctor").code == 0
    (product.folder / "policies.yaml").write_text("schema: 1\n")
    said = cli("doctor")
    assert said.code == 1
    assert "policies.yaml" in said.out
    (product.folder / "noise.db").write_bytes(b"noise" * 1000)
    (product.folder / "policies.yaml").unlink()
    assert cli("doctor", "--database", "sqlite:///noise.db").code == 3


def test_a_database_is_made_and_checked(cli, product):
    assert cli("db", "check", "--database", FRESH).code == 2
    assert "schema version" in cli("db", "upgrade", "--database", FRESH).out
    assert cli("db", "check", "--database", FRESH, "--json").json["ok"] is True
    assert cli("db", "upgrade", "--database", FRESH, "--json").json["ok"] is True


def test_another_schema_is_found(cli, product):
    with sqlite3.connect(product.folder / "other.db") as other:
        other.execute("CREATE TABLE host (id INTEGER)")
    other.close()
    said = cli("db", "check", "--database", "sqlite:///other.db")
    assert said.code == 1
    assert "run `comptroller db upgrade`" in said.err
    assert cli("db", "check", "--database", "sqlite:///other.db", "--json").json["ok"] is False
    assert cli("account", "show", "ada", "--database", "sqlite:///other.db").code == 2


def test_a_trace_that_is_no_text_is_refused_with_its_line(cli, trace, product):
    (product.folder / "t.csv").write_bytes(TRACE.encode() + b"\xff\xfe,eve\n")
    said = cli(*trace)
    assert said.code == 2
    assert "is not UTF-8 text" in said.err
    (product.folder / "t.csv").write_text(TRACE + '"2026-03-01T14:00:00Z"x,eve\n')
    assert "t.csv:5: cannot be read as CSV" in cli(*trace).err


def test_a_failed_replay_leaves_no_file_behind(cli, trace, product):
    (product.folder / "t.csv").write_text(TRACE.replace(",open,,1", ",open,,9"))
    assert cli(*trace, "--json", "out.json").code == 2
    assert not (product.folder / "out.json").exists()


def test_a_byte_order_mark_is_no_part_of_the_header(cli, trace, product):
    (product.folder / "t.csv").write_text(TRACE, encoding="utf-8-sig")
    assert cli(*trace, "--json", "-").json["requests"] == 3
