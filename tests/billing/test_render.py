"""Statements and reports as text: exact for machines, readable for people, harmless."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime

import pytest

from billing.render import FORMULA_STARTS, render, safe
from policies.errors import InvalidRequest
from tests.world import World, a_world, plan

MARCH = datetime(2026, 3, 1, tzinfo=UTC)
APRIL = datetime(2026, 4, 1, tzinfo=UTC)
PAID = "{paid_use: auto, sources: [{kind: daily_allowance, units: 5}, {kind: credits}]}"
HOSTILE = '=HYPERLINK("x")'


@pytest.fixture
def world():
    with a_world(plan(PAID)) as made:
        made.buy("three", reference="@order", account=HOSTILE)
        made.grant(5, account=HOSTILE, member="-ann", attributes={"prompt": "+1"})
        paid = made.grant(1, account=HOSTILE)
        made.comptroller.settle(paid.id, gpu_seconds=2)
        yield made


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def a_statement(world: World, how: str) -> str:
    return render(world.comptroller.statement(HOSTILE, MARCH, APRIL), how)


def a_report(world: World, how: str) -> str:
    return render(world.comptroller.report(MARCH, APRIL, ["account", "source"]), how)


def test_no_cell_of_csv_is_a_formula(world):
    for text in (a_statement(world, "csv"), a_report(world, "csv")):
        for row in csv.reader(io.StringIO(text)):
            for cell in row:
                is_number = cell.lstrip("-").isdigit()
                assert is_number or not cell.startswith(FORMULA_STARTS), cell
    assert rows_of(a_statement(world, "csv"))[0]["account"] == f"'{HOSTILE}"


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@x", "\t=1", "\r=1", "\n=1"])
def test_a_text_that_could_be_run_gets_a_quote_before_it(text):
    assert safe(text) == f"'{text}"


@pytest.mark.parametrize("value", [0, -5, "plain", "a=b", "1-2", ""])
def test_numbers_and_harmless_texts_stay_what_they_are(value):
    assert safe(value) == value


def test_csv_of_a_statement_holds_integers_with_their_units(world):
    rows = rows_of(a_statement(world, "csv"))
    assert [row["what"] for row in rows] == ["purchase", "granted", "granted", "settled"]
    assert (rows[0]["sold_minor"], rows[0]["currency"]) == ("100", "usd")
    assert (rows[3]["revenue_minor"], rows[3]["gpu_micro_usd"]) == ("33", "2000")
    assert rows[1]["at"] == "2026-03-02T12:00:00Z"
    assert rows[1]["attributes"] == "n=5, prompt=+1"


def test_csv_of_a_report_has_groups_a_total_and_unearned_money(world):
    rows = rows_of(a_report(world, "csv"))
    assert [row["row"] for row in rows] == ["group", "group", "total", "deferred"]
    assert sum(int(row["units_net"]) for row in rows[:2]) == int(rows[2]["units_net"]) == 6
    assert rows[2]["revenue_usd_minor"] == "33"
    assert (rows[3]["deferred_currency"], rows[3]["deferred_closing_minor"]) == ("usd", "67")


def test_json_holds_integers_and_says_whether_it_agrees_with_the_books(world):
    found = json.loads(a_report(world, "json"))
    assert found["totals"]["revenue_minor"] == {"usd": 33}
    assert found["totals"]["margin_micro_usd"] == 330_000 - 2_000
    assert found["check"] == {"ok": True, "problems": []}
    assert found["deferred"][0]["closing_minor"] == 67
    assert json.loads(a_statement(world, "json"))["lines"][3]["credits_after"] == 2


def test_people_read_money_as_money(world):
    statement, report = a_statement(world, "table"), a_report(world, "table")
    assert "sold $1.00" in statement
    assert "earned $0.33" in statement
    assert "$0.67" in report
    assert all("Agrees with the books" in text for text in (statement, report))


def test_a_name_is_no_markup():
    with a_world(plan(PAID)) as world:
        world.grant(1, account="[red]x[/red]")
        text = render(world.comptroller.report(MARCH, APRIL, ["account"]), "table")
        assert "[red]x[/red]" in text


def test_a_format_that_there_is_not_is_refused(world):
    with pytest.raises(InvalidRequest, match="must be one of table, csv, json"):
        a_report(world, "pdf")
