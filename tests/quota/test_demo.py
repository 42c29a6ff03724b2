"""The demo: the same week for the same seed, and a report that agrees with its books."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import pytest
from rich.console import Console

from quota import Comptroller
from quota.demo.main import Facts, cut_policies, load_policies, run_demo
from quota.demo.money import about, cents, share
from quota.demo.page import page
from quota.demo.screen import show
from quota.demo.trace import DAYS, START, make_demand
from quota.edges.cli import run

SMALL = 24
VOID = {"meta", "br", "hr", "img", "link", "input"}


@pytest.fixture(scope="module")
def database(tmp_path_factory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('demo') / 'demo.db'}"


@pytest.fixture(scope="module")
def facts(database) -> Facts:
    return run_demo(database, seed=5, accounts=SMALL)


def comparable(facts: Facts) -> dict:
    return {**facts.as_dict(), "database": ""}


def test_the_demand_is_the_same_for_the_same_seed():
    assert make_demand(5, SMALL) == make_demand(5, SMALL)
    assert make_demand(5, SMALL) != make_demand(6, SMALL)


def test_the_demand_is_in_order_within_its_week_and_has_a_heavy_tail():
    demand = make_demand()
    times = [job.at for job in demand.jobs]
    assert times == sorted(times)
    assert times[0] >= START
    assert times[-1] < demand.ends_at
    asks = sorted((person.asks for person in demand.people), reverse=True)
    assert asks[len(asks) // 2] < 10, "most accounts ask a handful of times"
    assert asks[0] > 70 * DAYS, "a few ask all day"
    assert len({person.name for person in demand.people}) == len(demand.people)


def test_a_demo_is_the_same_for_the_same_seed(facts):
    assert comparable(run_demo("sqlite://", seed=5, accounts=SMALL)) == comparable(facts)


def test_the_report_agrees_with_the_books(facts, database):
    assert facts.discrepancies == ()
    assert facts.report.check.ok
    assert facts.statement.check.ok
    totals, outcome = facts.report.totals, facts.outcome
    assert totals.grants == outcome.granted == sum(outcome.fates.values())
    assert totals.grants == totals.settled + totals.released + totals.expired
    assert sum(row.units_net for row in facts.by_day) == totals.units_net
    assert sum(row.units_net for row in facts.by_source) == totals.units_net
    assert sum(row.gpu_micro_usd for row in facts.by_plan) == totals.gpu_micro_usd
    (money,) = facts.report.deferred
    assert money.sold_minor == outcome.sold_minor
    assert money.refunded_minor == outcome.refunded_minor
    with Comptroller.open(load_policies(), database) as comptroller:
        assert not comptroller.verify()


def test_everything_that_a_product_lives_through_happens(facts):
    outcome = facts.outcome
    assert {"delivered", "infrastructure_failure"} <= outcome.fates.keys()
    assert outcome.denied_by_reason["allowance_exhausted"]
    assert outcome.packs
    assert facts.revenue_minor
    assert facts.report.totals.expired


def test_the_cut_denies_more_and_costs_less(facts):
    assert facts.what_if is not None
    assert facts.what_if.denied > facts.outcome.denied
    assert facts.what_if.gpu_micro_usd < facts.gpu_micro_usd
    assert facts.what_if.changes
    assert cut_policies().version != load_policies().version


def test_the_page_is_whole_and_needs_nothing_from_elsewhere(facts):
    text = page(facts)
    for reference in ("http://", "https://", "<script", "<link", "@import", "url(", "src="):
        assert reference not in text, reference
    parser = Balanced()
    parser.feed(text)
    parser.close()
    assert parser.open == []
    assert parser.charts >= 5
    for heading in ("Units by source", "GPU cost", "Margin per plan", "Denials by reason"):
        assert heading in text
    assert facts.statement.account in text
    assert "No discrepancies" in text


def test_the_page_says_so_when_the_books_are_not_sound(facts):
    broken = Facts(
        **{
            **{name: getattr(facts, name) for name in Facts.__slots__},
            "discrepancies": ("book 1: <bad>",),
        }
    )
    text = page(broken)
    assert "1 discrepancies" in text
    assert "book 1: &lt;bad&gt;" in text
    assert "No discrepancies" not in text


def test_the_report_is_shown_on_a_terminal(facts, tmp_path):
    out = Console(record=True, width=120)
    with out.capture() as shown:
        show(facts, out, tmp_path / "demo.html")
    for text in ("Asked, and answered", "GPU cost", "costliest", "verified", "demo.html"):
        assert text in shown.get()


@pytest.mark.parametrize(
    ("path", "program"), [("", ".venv/bin/comptroller"), (None, "comptroller")], ids=str
)
def test_what_to_do_next_names_the_program_so_that_it_is_found(
    facts, tmp_path, monkeypatch, path, program
):
    installed = tmp_path / "comptroller"
    installed.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path) if path is None else path)
    monkeypatch.setattr("sys.argv", [".venv/bin/comptroller", "demo"])
    with (tmp_path / "out").open("w+") as file:
        show(facts, Console(file=file, width=200), tmp_path / "demo.html")
        file.seek(0)
        assert f"\nnext      {program} account show {facts.statement.account} " in file.read()


def test_the_command_writes_the_page_and_leaves_a_database(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small = ["demo", "--accounts", str(SMALL), "--no-what-if", "--json"]
    assert run(small) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["discrepancies"] == []
    assert (tmp_path / "build" / "demo.html").exists()
    assert (tmp_path / "build" / "demo.db").exists()
    mine = f"sqlite:///{tmp_path / 'build' / 'demo.db'}"
    assert run([*small, "--database", mine]) == 2, "a database of the user's is never replaced"
    assert "is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("micro_usd", "text"),
    [
        (0, "$0.00"),
        (4_999, "$0.00"),
        (5_000, "$0.01"),
        (-5_000, "-$0.01"),
        (1_234_567_890, "$1,234.57"),
        (-4_999, "$0.00"),
    ],
)
def test_cents_are_rounded_halves_away_from_zero(micro_usd, text):
    assert cents(micro_usd) == text


def test_axes_and_shares_are_short():
    assert (about(20_000_000), about(500_000)) == ("$20", "$0.50")
    assert (share(1, 3), share(0, 0)) == ("33 %", "0 %")


class Balanced(HTMLParser):
    """Checks that every element that is opened is closed in its turn."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.charts = 0

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        self.charts += tag == "svg" and ("role", "img") in attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
