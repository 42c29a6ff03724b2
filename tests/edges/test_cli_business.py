"""`comptroller statement`, `report` and `audit`."""

from __future__ import annotations

import csv
import io
import sqlite3

import pytest


def test_a_statement_is_a_table_csv_or_json(cli, product):
    table = cli("statement", "ada")
    assert table.code == 0
    assert "agrees with the books to the unit and the cent" in table.out
    rows = list(csv.DictReader(io.StringIO(cli("statement", "ada", "--format", "csv").out)))
    assert [row["what"] for row in rows] == ["granted", "granted", "settled", "expired"]
    lines = cli("account", "statement", "ada", "--json").json["lines"]
    assert [line["what"] for line in lines] == [row["what"] for row in rows]
    assert cli("statement", "ada", "--format", "json").json["check"]["ok"] is True


def test_a_statement_has_a_period(cli, product):
    period = ("--since", "2026-01-01 12:01", "--until", "2026-01-01 12:02")
    assert len(cli("statement", "ada", *period, "--json").json["lines"]) == 1
    assert len(cli("statement", "ada", "--month", "2026-01", "--json").json["lines"]) == 4
    assert cli("statement", "ada", "--month", "2026-02", "--json").json["lines"] == []
    assert cli("statement", "ada", "--month", "2026-01", *period).code == 2
    assert "no month" in cli("statement", "ada", "--month", "January").err


def test_a_report_groups_by_what_is_asked(cli, product):
    by = ("report", "--month", "2026-01", "--by")
    assert "agrees with the books" in cli(*by, "plan,operation,source").out
    rows = cli(*by, "plan, source", "--json").json["rows"]
    assert rows[0]["key"] == {"plan": "free", "source": "daily_allowance"}
    assert rows[0]["grants"] == 2
    assert cli(*by, "day", "--format", "csv").out.startswith("row,day,grants")
    said = cli(*by, "plan,colour")
    assert said.code == 2
    assert "colour" in said.err


def test_a_month_is_that_of_its_time_zone(cli, product):
    report = cli("report", "--month", "2026-01", "--timezone", "Asia/Shanghai", "--json").json
    assert report["since"].startswith("2025-12-31T16:00:00")
    assert report["until"].startswith("2026-01-31T16:00:00")
    assert cli("report", "--timezone", "Mars/Olympus").code == 2
    assert cli("report").code == 0, "this month"


def test_sound_books_are_proved(cli, product):
    said = cli("audit", "verify")
    assert said.code == 0
    assert "the books are sound" in said.out
    assert cli("audit", "verify", "--json").json == {"sound": True, "discrepancies": []}


def test_books_that_were_tampered_with_are_found(cli, product):
    with sqlite3.connect(product.folder / "books.db") as books:
        books.execute("UPDATE comptroller_book SET grants = grants + 1")
    books.close()
    said = cli("audit", "verify")
    assert said.code == 1
    assert "discrepanc" in said.out
    assert cli("audit", "verify", "--json").json["sound"] is False


def test_the_books_are_handed_over(cli, product):
    rows = list(csv.DictReader(io.StringIO(cli("audit", "export").out)))
    assert {row["row"] for row in rows} == {"record", "transfer"}
    cli("audit", "export", "--format", "csv", "--out", "books.csv")
    assert (product.folder / "books.csv").read_text().startswith("row,book,seq")


@pytest.mark.parametrize("as_json", [(), ("--json",)])
def test_a_grant_is_explained(cli, product, as_json):
    said = cli("grant", "explain", product.grant.id, *as_json)
    assert said.code == 0
    if as_json:
        assert said.json["same"] is True
    else:
        assert "what was found:" in said.out
        assert "the same" in said.out
