"""How an account looks to people: its balance, its grants, and why it was denied."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from rich.table import Table

from policies.words import dollars, money
from quota.denials import DenialRecord
from quota.edges.common import (
    attributes_text,
    clock_text,
    console,
    escaped,
    print_table,
    several,
)
from quota.grants import Grant
from quota.views import Balance

STATUS_STYLES: Final = {
    "held": "cyan",
    "settled": "green",
    "released": "yellow",
    "expired": "red",
}
BAR: Final = 24


def table(*columns: str, right: Sequence[str] = ()) -> Table:
    """Return a quiet table. `right`: the columns that are aligned to the right."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return made


def heading(text: str) -> None:
    """Print a heading with a line of air above it."""
    console().print()
    console().print(f"[bold]{escaped(text)}[/bold]")


def balance(found: Balance, tags: Mapping[str, str]) -> None:
    """Print what an account has now. Units as integers, money with its currency."""
    out = console()
    frozen = "  [bold red]frozen[/bold red]" if found.frozen else ""
    out.print(f"[bold]{escaped(found.account)}[/bold]  plan {escaped(found.plan)}{frozen}")
    facts = [f"paid use {found.paid_use}", f"time zone {found.timezone}"]
    facts += [f"{name}={value}" for name, value in sorted(tags.items())]
    out.print(f"[dim]{escaped(', '.join(facts))}; as of {clock_text(found.at)} UTC[/dim]")
    out.print()
    for each in found.allowances:
        back = f"  next back {clock_text(each.next_return_at)}" if each.next_return_at else ""
        name = escaped(each.source)
        left = f"{each.remaining} of {each.limit} left"
        out.print(f"{name:<18} {_bar(each.used, each.limit)} {left}[dim]{back}[/dim]")
    lots = several(len(found.lots), "lot")
    out.print(f"{'credits':<18} {several(found.credits, 'unit')} in {lots}")
    for lot in found.lots:
        price = money(lot.price_minor, lot.currency) if lot.price_minor else "free"
        until = f"until {clock_text(lot.expires_at)}" if lot.expires_at else "for ever"
        held = f", {lot.held} held" if lot.held else ""
        what = f"{lot.available} of {lot.units} left{held}, {price}, {until}"
        out.print(f"  [dim]{lot.id}[/dim]  {what}  [dim]{escaped(lot.origin)}[/dim]")
    if found.open_grants:
        held = several(found.held, "unit")
        out.print(f"{'open':<18} {several(found.open_grants, 'grant')} holding {held}")
    if found.spend.cap_minor is not None:
        spent = f"{found.spend.used_minor} of {found.spend.cap_minor} minor units"
        out.print(f"{'spend':<18} {spent} this {found.spend.per}")


def grants(found: Sequence[Grant], title: str) -> None:
    """Print grants, one a line. GPU cost as estimated."""
    heading(title)
    if not found:
        console().print("[dim]none[/dim]")
        return
    columns = ("granted", "id", "status", "operation", "attributes", "units", "GPU cost", "key")
    rows = table(*columns, right=("GPU cost",))
    for grant in found:
        style = STATUS_STYLES[grant.status]
        rows.add_row(
            clock_text(grant.at),
            grant.id,
            f"[{style}]{grant.status}[/{style}]",
            escaped(grant.operation),
            escaped(attributes_text(grant.attributes)),
            escaped(", ".join(f"{n} {source}" for source, n in grant.units_by_source.items())),
            dollars(grant.gpu_cost_micro_usd),
            escaped(grant.key),
        )
    print_table(rows)


def denials(found: Sequence[DenialRecord], title: str, *, budgets: Collection[str] = ()) -> None:
    """Print why somebody was denied: when, for what reason, and what each policy found.

    `budgets` names those of the policies that count GPU cost in micro-dollars.
    """
    heading(title)
    if not found:
        console().print("[dim]none[/dim]")
    for each in found:
        console().print(_denied(each), soft_wrap=True)
        for finding in each.findings:
            text = finding_text(finding, is_budget=finding["policy"] in budgets)
            style = "red" if finding["reason"] else "dim"
            console().print(f"    [{style}]{escaped(text)}[/{style}]", soft_wrap=True)


def around(
    account: str,
    moment: datetime,
    span: str,
    granted: Sequence[Grant],
    denied: Sequence[DenialRecord],
    before: Sequence[DenialRecord],
    *,
    budgets: Collection[str] = (),
) -> None:
    """Print what happened around a moment; `before`: the last denial of all before it."""
    console().print(f"[bold]{escaped(account)}[/bold] around {clock_text(moment)} UTC ({span})")
    if not denied:
        console().print("no denial is recorded there")
        if before:
            denials(before, "the last one before it", budgets=budgets)
    else:
        nearest = min(denied, key=lambda each: _distance(each, moment))
        denials([nearest], "the denial nearest to it", budgets=budgets)
        others = [each for each in denied if each is not nearest]
        if others:
            denials(others, "others", budgets=budgets)
    grants(granted, "grants")


def finding_text(finding: Mapping[str, Any], *, is_budget: bool = False) -> str:
    """Say in words what one policy found on the way to a denial, which took nothing. A budget counts micro-dollars."""
    spelled = dollars if is_budget else str
    limit = "without limit" if finding["limit"] is None else f"of {spelled(finding['limit'])}"
    numbers = f"{spelled(finding['used'])} {limit} used, {spelled(finding['asked'])} asked"
    why = f": {finding['reason']}" if finding["reason"] else ""
    outcome = "would give" if finding["outcome"] == "gave" else finding["outcome"].replace("_", " ")
    return f"{finding['policy']} {outcome} ({numbers}){why}"


def _denied(each: DenialRecord) -> str:
    times = ""
    if each.count > 1:
        times = f" ({each.count} times until {clock_text(each.last_at)})"
    member = f" for {each.member}" if each.member else ""
    retry = f"; would be granted at {clock_text(each.retry_at)}" if each.retry_at else ""
    what = escaped(f"{each.operation} on plan {each.plan}{member}")
    return (
        f"{clock_text(each.first_at)}{times}  [red]{escaped(each.reason)}[/red]  "
        f"{what}[dim]{retry}[/dim]"
    )


def _distance(each: DenialRecord, moment: datetime) -> Any:
    if each.first_at <= moment <= each.last_at:
        return moment - moment
    return min(abs(each.first_at - moment), abs(each.last_at - moment))


def _bar(used: int, limit: int) -> str:
    filled = min(BAR, -(-BAR * used // limit)) if limit else BAR
    style = "red" if used >= limit else "yellow" if 4 * used >= 3 * limit else "green"
    return f"[{style}]{'█' * filled}[/{style}][dim]{'░' * (BAR - filled)}[/dim]"
