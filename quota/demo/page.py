"""The demo's report as one HTML page that needs nothing else: no scripts, no fonts, no network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import date, timedelta
from html import escape
from importlib.resources import files
from typing import Final

from billing.report import ReportRow
from quota.demo import page_tables
from quota.demo.charts import Bar, Series, bars, grouped, legend, stacked
from quota.demo.main import Facts
from quota.demo.money import (
    about,
    cents,
    days_of,
    gpu_micro_usd,
    minor_as_micro,
    revenue_micro_usd,
    share,
)
from quota.demo.trace import DAYS
from quota.version import ENGINE

SOURCES: Final = (("daily_allowance", "free", "free, of the daily allowance"),
                  ("credits", "paid", "credits, bought or given"))  # fmt: skip
REASONS: Final = {
    "allowance_exhausted": "daily units used up",
    "credits_exhausted": "credits used up",
    "concurrency_exceeded": "too many at a time",
    "rate_exceeded": "too fast",
    "budget_exhausted": "free GPU budget spent",
}
OFFERS: Final = {
    "wait": "wait until a certain time",
    "buy": "buy a pack",
    "upgrade": "another plan",
    "smaller": "a shorter clip",
    "consent": "agree to use credits",
}


def page(facts: Facts) -> str:
    """Return the whole page. Money is in dollars; GPU cost and margins are exact in the books."""
    sections = (
        _pair(_units(facts), _gpu(facts)),
        _pair(_margin(facts), _denials(facts)),
        _card("Unearned money, rolled forward", _DEFERRED, page_tables.deferred(facts)),
        _card("The ten costliest accounts", _COSTLIEST, page_tables.costliest(facts)),
        _what_if(facts),
        _card(
            f"A statement: {escape(facts.statement.account)}",
            _STATEMENT.format(plan=escape(facts.plans.get(facts.statement.account, ""))),
            page_tables.statement(facts.statement),
        ),
        _proof(facts),
    )
    style = (files("quota.demo") / "style.css").read_text(encoding="utf-8")
    body = "\n".join((_head(facts), *filter(None, sections), _foot(facts)))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Comptroller: one week of a video app</title>\n<style>\n{style}</style>\n"
        f"</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


_DEFERRED = "What packs brought in is earned as their units are used. To the cent, it adds up:"
_COSTLIEST = "What their clips cost on GPUs, and what the packs that they used up earned."
_STATEMENT = (
    "Every line dated: what it took, out of what, what it earned, and what it cost. "
    "<span class=tag>{plan} plan</span>"
)


def _head(facts: Facts) -> str:
    outcome, totals = facts.outcome, facts.report.totals
    margin = totals.margin_micro_usd
    sound = not facts.discrepancies and facts.report.check.ok
    tiles = (
        (f"{outcome.asked:,}", "requests, each answered in real time"),
        (f"{outcome.granted:,}", f"granted, {share(outcome.granted, outcome.asked)}"),
        (f"{totals.units_net:,}", "units used, net of what came back"),
        (cents(facts.gpu_micro_usd), "GPU cost"),
        (cents(minor_as_micro(facts.revenue_minor)), "earned from packs"),
        (cents(margin), "margin before subscriptions"),
        (_verdict(sound=sound), "the books, verified"),
    )
    drawn = "".join(
        f'<div class="tile"><b>{value}</b><span>{says}</span></div>' for value, says in tiles
    )
    first, last = facts.since, facts.since + timedelta(days=DAYS - 1)
    return (
        "<header><h1>One week of Reel, a video app</h1>"
        f"<p>{facts.accounts} accounts, {facts.pro_accounts} of them Pro, asked for clips from "
        f"{first:%-d} to {last:%-d %B %Y}. Every request went through the real engine: 30 free units a "
        "day for everybody, 100 for Pro, ten more for $4. The demand is made up; each number below "
        f"is read from the books.</p></header>\n<section class='tiles'>{drawn}</section>"
    )


def _verdict(*, sound: bool) -> str:
    return (
        f'<span class="{"plus" if sound else "minus"}">{"sound" if sound else "not sound"}</span>'
    )


def _units(facts: Facts) -> str:
    days = days_of(facts.by_day)
    series = _by_source(facts, days, lambda row: max(0, row.units_net))
    chart = stacked("Units used by source and day", _labels(days), series, lambda n: f"{n:,}")
    says = "Net of the units that failed, moderated and cancelled clips gave back."
    return _card("Units by source", says, legend(series) + chart)


def _by_source(
    facts: Facts, days: Sequence[str], value: Callable[[ReportRow], int]
) -> list[Series]:
    found = {(row.key["day"], row.key["source"]): value(row) for row in facts.by_day}
    return [
        Series(says, colour, tuple(found.get((day, source), 0) for day in days))
        for source, colour, says in SOURCES
    ]


def _gpu(facts: Facts) -> str:
    days = days_of(facts.by_day)
    series = [
        Series("estimated when granted", "estimate",
               _daily(facts.by_day, days, lambda row: row.gpu_estimated_micro_usd)),
        Series("actual", "actual", _daily(facts.by_day, days, gpu_micro_usd)),
    ]  # fmt: skip
    chart = grouped("GPU cost by day", _labels(days), series, about)
    totals = facts.report.totals
    estimated, actual = totals.gpu_estimated_micro_usd, facts.gpu_micro_usd
    unknown = totals.gpu_unreported_micro_usd
    says = (
        f"{cents(estimated)} estimated, {cents(actual)} actual; of that {cents(unknown)} are "
        "estimates of jobs whose worker never reported. Unknown is never zero."
    )
    return _card("GPU cost, estimated against actual", says, legend(series) + chart)


def _daily(
    rows: Iterable[ReportRow], days: Sequence[str], value: Callable[[ReportRow], int]
) -> tuple[int, ...]:
    sums = dict.fromkeys(days, 0)
    for row in rows:
        sums[row.key["day"]] += value(row)
    return tuple(sums.values())


def _labels(days: Sequence[str]) -> list[str]:
    return [f"{date.fromisoformat(day):%a} {date.fromisoformat(day).day}" for day in days]


def _margin(facts: Facts) -> str:
    rows = []
    for row in facts.by_plan:
        name = row.key["plan"]
        earned, cost = revenue_micro_usd(row), gpu_micro_usd(row)
        rows += [
            Bar(f"{name}: earned", earned, cents(earned), "good"),
            Bar(f"{name}: GPU cost", -cost, cents(-cost), "estimate"),
            Bar(f"{name}: margin", earned - cost, cents(earned - cost),
                "good" if earned >= cost else "bad"),
        ]  # fmt: skip
    says = (
        "Earned from packs, less GPU cost, free clips included. The Pro subscription, $20.00 a "
        f"month from {facts.pro_accounts} accounts, is paid outside of these books."
    )
    return _card("Margin per plan", says, bars("Margin per plan", rows, label_width=130))


def _denials(facts: Facts) -> str:
    outcome = facts.outcome
    rows = [
        Bar(REASONS.get(reason, reason), count, f"{count:,}", "bad")
        for reason, count in outcome.denied_by_reason.most_common()
    ]
    packs = f"{outcome.packs} packs for {cents(minor_as_micro(outcome.sold_minor))}"
    says = (
        f"{outcome.denied:,} denials met {len(outcome.denied_accounts)} accounts. Each denial said "
        f"when waiting helps and what could be bought: {len(outcome.buyers)} of them bought {packs}."
    )
    offers = [
        Bar(OFFERS.get(kind, kind), count, f"{count:,}", "free")
        for kind, count in outcome.offered.most_common()
    ]
    told = f"<h3>What they were told would help</h3>{bars('Offers by kind', offers)}"
    return _card("Denials by reason", says, bars("Denials by reason", rows) + told)


def _what_if(facts: Facts) -> str:
    found = facts.what_if
    if found is None:
        return ""
    changes = "".join(f"<li>{escape(change)}</li>" for change in found.changes)
    says = (
        "The same people, asking for the same clips, under another policy file: played through the "
        "same engine in memory, before anybody feels it."
    )
    body = f'<ul class="changes">{changes}</ul>{page_tables.what_if(facts, found)}'
    return _card(f"What if: {escape(found.name)}?", says, body)


def _proof(facts: Facts) -> str:
    problems = [*facts.discrepancies, *facts.report.check.problems, *facts.statement.check.problems]
    if problems:
        listed = "".join(f"<li><code>{escape(each)}</code></li>" for each in problems)
        body, mark = f"<ul>{listed}</ul>", f"{len(problems)} discrepancies"
    else:
        mark = "No discrepancies"
        body = (
            "<p>Every record of every account was read again: each chain of hashes is whole, every "
            "balance, lot and hold was derived once more and is the one stored, and this report and "
            "the statement above agree with the ledger to the unit and the cent.</p>"
        )
    how = f"comptroller audit verify --database {facts.database}"
    return (
        f'<section class="card proof{" broken" if problems else ""}"><h2>Verified: '
        f'<span class="mark">{mark}</span></h2>{body}<pre><code>{escape(how)}</code></pre></section>'
    )


def _foot(facts: Facts) -> str:
    return (
        f"<footer>Comptroller {escape(ENGINE)}, seed {facts.seed}, policy version "
        f"<code>{escape(facts.policy_version[:16])}</code>, books in "
        f"<code>{escape(facts.database)}</code>.</footer>"
    )


def _card(title: str, says: str, body: str) -> str:
    return f'<section class="card"><h2>{title}</h2><p>{says}</p>{body}</section>'


def _pair(left: str, right: str) -> str:
    return f'<div class="grid2">{left}{right}</div>'
