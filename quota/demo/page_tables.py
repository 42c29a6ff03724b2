"""The tables of the demo's page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

from billing.statement import Statement, StatementLine
from policies.words import money
from quota.demo.charts import meter
from quota.demo.main import Facts, WhatIf
from quota.demo.money import cents, gpu_micro_usd, minor_as_micro, revenue_micro_usd
from quota.edges.common import attributes_text

LINES: Final = 16
BEFORE: Final = 5
Cell = str | tuple[str, str]
"""Text that is safe already, or the class of a cell and such text."""


def deferred(facts: Facts) -> str:
    """Return the roll-forward of money that is not earned yet: minor units, spelt in dollars."""
    shown = []
    for each in facts.report.deferred:
        parts = (
            ("", "opening", each.opening_minor),
            ("+", "sold", each.sold_minor),
            ("&minus;", "recognised", each.recognised_minor),
            ("&minus;", "expired unused", each.breakage_minor),
            ("&minus;", "refunded", each.refunded_minor),
            ("=", "closing", each.closing_minor),
        )
        shown.append(
            "".join(
                (f"<i>{sign}</i>" if sign else "")
                + f"<div><b>{money(amount, each.currency)}</b><span>{name}</span></div>"
                for sign, name, amount in parts
            )
        )
    return "".join(f'<div class="sum">{parts}</div>' for parts in shown)


def costliest(facts: Facts) -> str:
    """Return the accounts that cost most, with what they earned."""
    most = max((gpu_micro_usd(row) for row in facts.costliest), default=0)
    rows = []
    for row in facts.costliest:
        name, cost, earned = row.key["account"], gpu_micro_usd(row), revenue_micro_usd(row)
        rows.append(
            (
                escape(name),
                f'<span class="tag">{escape(facts.plans.get(name, ""))}</span>',
                ("n", f"{row.grants:,}"),
                ("n", f"{row.units_net:,}"),
                ("n", cents(cost)),
                meter(cost, most, "actual"),
                ("n", cents(earned) if earned else '<span class="dim">&ndash;</span>'),
                ("n", _signed(earned - cost)),
            )
        )
    names = ("account", "plan", "granted", "units", "GPU cost", "", "earned", "margin")
    return _table(names, rows, right={"granted", "units", "GPU cost", "earned", "margin"})


def what_if(facts: Facts, found: WhatIf) -> str:
    """Return the two policies side by side."""
    outcome, gpu = facts.outcome, facts.gpu_micro_usd
    earned, then_earned = minor_as_micro(facts.revenue_minor), minor_as_micro(found.revenue_minor)
    lines = (
        ("granted", outcome.granted, found.granted, False, False),
        ("denied", outcome.denied, found.denied, False, True),
        ("accounts denied at least once", len(outcome.denied_accounts), found.denied_accounts,
         False, True),
        ("GPU cost", gpu, found.gpu_micro_usd, True, True),
        ("earned from packs", earned, then_earned, True, False),
        ("margin", earned - gpu, then_earned - found.gpu_micro_usd, True, False),
    )  # fmt: skip
    rows = []
    for name, now, then, is_money, less_is_better in lines:
        good = (then < now) == less_is_better if now != then else True
        spelled = cents if is_money else "{:,}".format
        change = (
            f"{'+' if then > now else '&minus;'}{spelled(abs(then - now))}"
            if now != then
            else "same"
        )
        style = "plus" if good else "minus"
        rows.append(
            (
                name,
                ("n", spelled(now)),
                ("n", spelled(then)),
                ("n", f'<span class="{style}">{change}</span>'),
            )
        )
    return _table(("", "as it was", "cut", "change"), rows, right={"as it was", "cut", "change"})


def statement(found: Statement) -> str:
    """Return the part of a statement around its first purchase."""
    bought = next((i for i, line in enumerate(found.lines) if line.sold_minor), 0)
    first = max(0, min(bought - BEFORE, len(found.lines) - LINES))
    lines = found.lines[first : first + LINES]
    names = (
        "when (UTC)",
        "what",
        "clip",
        "source",
        "units",
        "window",
        "money",
        "GPU cost",
        "credits",
    )
    table = _table(
        names, [_line(line) for line in lines], right={"units", "window", "GPU cost", "credits"}
    )
    totals = found.totals
    units = ", ".join(f"{count:,} {escape(source)}" for source, count in totals.units.items())
    return (
        f'{table}<p class="dim" style="margin:12px 0 0">{len(lines)} of {len(found.lines):,} lines. '
        f"In the week: {totals.grants:,} grants, {units or 'no units'}; earned "
        f"{_amounts(totals.revenue_minor)}; GPU cost "
        f"{cents(totals.gpu_micro_usd + totals.gpu_unreported_micro_usd)}; credits "
        f"{found.opening_credits} at its start, {found.closing_credits} at its end.</p>"
    )


def _line(line: StatementLine) -> tuple[Cell, ...]:
    moneys = (
        ("sold", line.sold_minor),
        ("earned", line.revenue_minor),
        ("expired", line.breakage_minor),
        ("refunded", line.refunded_minor),
    )
    spelled = ", ".join(
        f"{name} {money(amount, line.currency or '')}" for name, amount in moneys if amount
    )
    gpu = line.gpu_micro_usd + line.gpu_unreported_micro_usd
    cost = cents(gpu) if gpu else ""
    if not gpu and line.gpu_estimated_micro_usd:
        cost = f'<span class="dim">est. {cents(line.gpu_estimated_micro_usd)}</span>'
    what = escape(line.what) + (
        f' <span class="dim">{escape(line.detail)}</span>' if line.detail else ""
    )
    return (
        ("n", f"{line.at:%a %H:%M:%S}"),
        what,
        escape(attributes_text(line.attributes)),
        escape(" ".join(filter(None, (line.source, line.lot_id)))),
        ("n", f"{line.units:+d}" if line.units else ""),
        ("n", "" if line.limit is None else f"{line.used_after} of {line.limit}"),
        spelled,
        ("n", cost),
        ("n", f"{line.credits_after:,}"),
    )


def _amounts(amounts: object) -> str:
    listed = dict(amounts) if isinstance(amounts, dict) else {}
    return ", ".join(money(amount, currency) for currency, amount in listed.items()) or "nothing"


def _signed(micro_usd: int) -> str:
    return f'<span class="{"plus" if micro_usd >= 0 else "minus"}">{cents(micro_usd)}</span>'


def _table(names: Sequence[str], rows: Sequence[Sequence[Cell]], right: set[str]) -> str:
    head = "".join(
        f'<th class="n">{name}</th>' if name in right else f"<th>{name}</th>" for name in names
    )
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(cell: Cell) -> str:
    if isinstance(cell, tuple):
        return f'<td class="{cell[0]}">{cell[1]}</td>'
    return f"<td>{cell}</td>"
