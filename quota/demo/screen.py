"""The demo's report on a terminal."""

from __future__ import annotations

import sys
from pathlib import Path
from shutil import which
from typing import Final

from rich.console import Console
from rich.table import Table

from billing.report import ReportRow
from billing.statement import StatementLine
from policies.words import money
from quota.demo.main import Facts
from quota.demo.money import cents, gpu_micro_usd, minor_as_micro, revenue_micro_usd, share
from quota.edges.common import attributes_text, escaped
from quota.edges.show_account import table

BAR: Final = 30
LINES: Final = 8
BEFORE: Final = 3


def show(facts: Facts, out: Console, page: Path) -> None:
    """Print the report. Money in dollars to the cent; the books have it exactly."""
    out.print("[bold]One week of Reel, a video app, on one SQLite file[/bold]")
    out.print(
        f"[dim]{facts.accounts} accounts, {facts.pro_accounts} of them Pro; 30 free units a day, "
        "100 for Pro, ten more for $4[/dim]"
    )
    _heading(out, "Asked, and answered")
    out.print(_answered(facts))

    _heading(out, "Units, GPU cost and margin")
    out.print(_sources(facts))
    _deferred(facts, out)

    _heading(out, "The costliest accounts")
    out.print(_costliest(facts))

    _heading(out, f"From the statement of {facts.statement.account}")
    out.print(_statement(facts))
    _what_if(facts, out)

    _heading(out, "The books")
    problems = [*facts.discrepancies, *facts.report.check.problems, *facts.statement.check.problems]
    for each in problems:
        out.print(f"[red]{escaped(each)}[/red]", soft_wrap=True)
    if not problems:
        out.print(
            "[green]verified[/green]: every chain, balance, lot and hold adds up; report and "
            "statement agree to the cent"
        )
    out.print()
    out.print(f"page      {page}", soft_wrap=True)
    out.print(f"books     {facts.database}", soft_wrap=True)
    shown = f"account show {facts.statement.account} --database {facts.database}"
    out.print(f"[dim]next      {escaped(f'{_program()} {shown}')}[/dim]", soft_wrap=True)


def _program() -> str:
    """Return how this program is started from here: it need not be on the PATH."""
    return "comptroller" if which("comptroller") else sys.argv[0]


def _answered(facts: Facts) -> Table:
    outcome = facts.outcome
    made = table("what", "count", "share", right=("count",))
    made.show_header = False
    made.add_row("requests", f"{outcome.asked:,}")
    granted = share(outcome.granted, outcome.asked)
    bar = _bar(outcome.granted, outcome.asked, "green")
    made.add_row("granted", f"[green]{outcome.granted:,}[/green]", f"{bar} {granted}")
    for reason, count in outcome.denied_by_reason.most_common():
        bar = _bar(count, outcome.asked, "red")
        made.add_row("denied", f"[red]{count:,}[/red]", f"{bar} {escaped(reason)}")
    sold = cents(minor_as_micro(outcome.sold_minor))
    bought = f"to {len(outcome.buyers)} of those who were denied, for {sold}"
    made.add_row("packs sold", f"{outcome.packs:,}", bought)
    return made


def _heading(out: Console, text: str) -> None:
    out.print()
    out.print(f"[bold]{escaped(text)}[/bold]")


def _sources(facts: Facts) -> Table:
    made = table(
        "plan", "source", "granted", "units", "GPU est.", "GPU actual", "earned", "margin",
        right=("granted", "units", "GPU est.", "GPU actual", "earned", "margin"),
    )  # fmt: skip
    for row in facts.report.rows:
        made.add_row(row.key["plan"], row.key["source"] or "-", *_amounts(row))
    made.add_section()
    made.add_row("[bold]all[/bold]", "", *_amounts(facts.report.totals))
    return made


def _amounts(row: ReportRow) -> tuple[str, ...]:
    return (
        f"{row.grants:,}",
        f"{row.units_net:,}",
        cents(row.gpu_estimated_micro_usd),
        cents(gpu_micro_usd(row)),
        cents(revenue_micro_usd(row)),
        _signed(row.margin_micro_usd),
    )


def _deferred(facts: Facts, out: Console) -> None:
    for each in facts.report.deferred:
        parts = (
            f"opening {money(each.opening_minor, each.currency)}",
            f"+ sold {money(each.sold_minor, each.currency)}",
            f"- recognised {money(each.recognised_minor, each.currency)}",
            f"- breakage {money(each.breakage_minor, each.currency)}",
            f"- refunded {money(each.refunded_minor, each.currency)}",
            f"= closing {money(each.closing_minor, each.currency)}",
        )
        out.print(f"[dim]unearned  {' '.join(parts)}[/dim]")


def _costliest(facts: Facts) -> Table:
    made = table(
        "account", "plan", "granted", "units", "GPU cost", "earned", "margin",
        right=("granted", "units", "GPU cost", "earned", "margin"),
    )  # fmt: skip
    for row in facts.costliest:
        name = row.key["account"]
        made.add_row(
            escaped(name),
            facts.plans.get(name, ""),
            f"{row.grants:,}",
            f"{row.units_net:,}",
            cents(gpu_micro_usd(row)),
            cents(revenue_micro_usd(row)),
            _signed(row.margin_micro_usd),
        )
    return made


def _statement(facts: Facts) -> Table:
    lines = facts.statement.lines
    bought = next((i for i, line in enumerate(lines) if line.sold_minor), 0)
    first = max(0, min(bought - BEFORE, len(lines) - LINES))
    made = table(
        "when", "what", "clip", "source", "units", "money", "GPU cost", right=("units", "GPU cost")
    )
    for line in lines[first : first + LINES]:
        made.add_row(*_line(line))
    return made


def _line(line: StatementLine) -> tuple[str, ...]:
    currency = line.currency or ""
    moneys = (
        ("sold", line.sold_minor),
        ("earned", line.revenue_minor),
        ("refunded", line.refunded_minor),
    )
    gpu = line.gpu_micro_usd + line.gpu_unreported_micro_usd
    estimate = f"est. {cents(line.gpu_estimated_micro_usd)}" if line.gpu_estimated_micro_usd else ""
    return (
        f"{line.at:%a %H:%M:%S}",
        escaped(line.what),
        escaped(attributes_text(line.attributes)),
        escaped(line.source or (line.lot_id or "")),
        f"{line.units:+d}" if line.units else "",
        ", ".join(f"{name} {money(amount, currency)}" for name, amount in moneys if amount),
        cents(gpu) if gpu else estimate,
    )


def _what_if(facts: Facts, out: Console) -> None:
    found = facts.what_if
    if found is None:
        return
    _heading(out, f"What if: {found.name}?")
    saved = facts.gpu_micro_usd - found.gpu_micro_usd
    more = found.denied - facts.outcome.denied
    out.print(
        f"saves [green]{cents(saved)}[/green] of GPU cost, earns "
        f"{cents(minor_as_micro(found.revenue_minor - facts.revenue_minor))} more, and denies "
        f"[red]{more:,}[/red] more requests: {found.denied_accounts} accounts instead of "
        f"{len(facts.outcome.denied_accounts)} are denied at least once",
        soft_wrap=True,
    )


def _signed(micro_usd: int) -> str:
    return f"[{'green' if micro_usd >= 0 else 'red'}]{cents(micro_usd)}[/]"


def _bar(part: int, whole: int, style: str) -> str:
    filled = BAR * part // whole if whole else 0
    return f"[{style}]{'█' * filled}[/{style}][dim]{'░' * (BAR - filled)}[/dim]"
