"""`comptroller policies`: check, compare, describe and explain policy files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from policies.diff import diff as changes_between
from policies.errors import InvalidRequest
from policies.explain import Explanation, PlanLine
from policies.explain import explain as explained
from policies.json_schema import json_schema
from policies.policy_set import PolicySet
from quota.edges.common import (
    FOUND,
    AsJson,
    attributes_text,
    console,
    escaped,
    print_json,
    print_table,
    say,
    write,
)
from quota.traces import typed_attributes

app = typer.Typer(
    help="Check, compare and explain policy files.", no_args_is_help=True, rich_markup_mode="rich"
)
EFFECTS = {"tightens": ("red", "takes"), "loosens": ("green", "gives"), "neutral": ("", "changes")}
PolicyFile = Annotated[Path, typer.Argument(metavar="FILE", help="A policy file.")]


@app.command()
def check(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Policy files.")],
    as_json: AsJson = False,
) -> None:
    """Check policy files: everything that is wrong, each with its line and what would be right.

    Exits with 1 where something is wrong.

    [dim]Example: comptroller policies check policies.yaml[/dim]
    """
    checked = [(path, PolicySet.check(path)) for path in files]
    if as_json:
        reports = [
            {
                "file": str(path),
                "ok": result.policy_set is not None,
                "version": None if result.policy_set is None else result.policy_set.version,
                "problems": result.problems,
                "notes": result.notes,
            }
            for path, result in checked
        ]
        print_json(reports[0] if len(reports) == 1 else reports)
    else:
        out = console()
        for path, result in checked:
            for problem in result.problems:
                out.print(f"[red]{escaped(problem)}[/red]", soft_wrap=True)
            for remark in result.notes:
                out.print(f"[yellow]{escaped(remark)}[/yellow]", soft_wrap=True)
            if result.policy_set is not None:
                out.print(f"[green]{escaped(path)}: ok[/green]  {_summary(result.policy_set)}")
    if any(result.policy_set is None for _, result in checked):
        raise typer.Exit(FOUND)


@app.command()
def diff(old: PolicyFile, new: PolicyFile, as_json: AsJson = False) -> None:
    """Say in words what changes for whom from one policy file to another.

    [dim]Example: comptroller policies diff live.yaml proposed.yaml[/dim]
    """
    before, after = PolicySet.load(old), PolicySet.load(new)
    changes = changes_between(before, after)
    if as_json:
        print_json(
            {
                "old": before.version,
                "new": after.version,
                "changes": [change.as_dict() for change in changes],
            }
        )
        return
    if not changes:
        say("nothing changes: both files are the same policy version")
    for change in changes:
        style, effect = EFFECTS[change.effect]
        text = escaped(change)
        console().print(
            f"[{style}]{effect:<8}{text}[/{style}]" if style else f"{effect:<8}{text}",
            soft_wrap=True,
        )


@app.command()
def schema(
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write it to a file instead.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print the JSON Schema of policy files, for editors. Installed plug-ins are part of it.

    [dim]Example: comptroller policies schema --out policies.schema.json, and begin the policy file
    with: # yaml-language-server: $schema=policies.schema.json[/dim]
    """
    del as_json  # It is JSON in any case.
    text = json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    if out is None:
        write(text)
    else:
        out.write_text(text, encoding="utf-8")


@app.command()
def explain(
    file: PolicyFile,
    more: Annotated[
        list[str] | None, typer.Argument(metavar="K=V", help="More attributes.")
    ] = None,
    operation: Annotated[
        str | None, typer.Option("--operation", "-o", help="What is asked for.")
    ] = None,
    attributes: Annotated[
        list[str] | None,
        typer.Option("--attributes", "-a", metavar="K=V", help="Its attributes; repeat it."),
    ] = None,
    plan: Annotated[
        str | None, typer.Option("--plan", help="Under one plan; the default is every plan.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what one request would take from each source, what limits it, and what it would cost.

    [dim]Example: comptroller policies explain policies.yaml --operation video.generate
    --attributes seconds=25 quality=high --plan pro[/dim]
    """
    policy_set = PolicySet.load(file)
    wanted = operation or _only_operation(policy_set)
    pairs = _pairs([*(attributes or []), *(more or [])])
    found = explained(policy_set, wanted, typed_attributes(policy_set, wanted, pairs), plan)
    if as_json:
        print_json(found.as_dict())
    else:
        _show(found)


def _only_operation(policy_set: PolicySet) -> str:
    if len(policy_set.operations) != 1:
        names = ", ".join(policy_set.operations)
        raise InvalidRequest(f"give --operation: the policy file has {names}")
    return next(iter(policy_set.operations))


def _pairs(texts: list[str]) -> dict[str, str]:
    pairs = {}
    for text in (part for each in texts for part in each.split(",")):
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise InvalidRequest(f"attribute `{text:.60}` must be written as name=value")
        pairs[name.strip()] = value
    return pairs


def _summary(policy_set: PolicySet) -> str:
    counts = [
        f"{len(section)} {name if len(section) != 1 else name[:-1]}"
        for name, section in (
            ("plans", policy_set.plans),
            ("operations", policy_set.operations),
            ("packs", policy_set.packs),
            ("budgets", policy_set.budgets),
        )
        if section
    ]
    return f"[dim]{', '.join(counts)}, version {policy_set.version[:12]}[/dim]"


def _show(found: Explanation) -> None:
    out = console()
    with_attributes = attributes_text(found.attributes)
    out.print(f"[bold]{escaped(found.operation)}[/bold] {escaped(with_attributes)}")
    seconds = f" ({found.gpu_seconds} s of {found.gpu})" if found.gpu_seconds else ""
    out.print(f"GPU cost  {found.gpu_cost}{escaped(seconds)}, estimated")
    out.print(f"hold      {escaped(found.hold)}")
    for plan in found.plans:
        out.print()
        out.print(f"[bold]plan {escaped(plan.plan)}[/bold]  paid use: {plan.paid_use}")
        print_table(_plan_table(plan))
        for limit in plan.limits:
            named = f" (guards {', '.join(limit.sources)})" if limit.sources else ""
            out.print(f"  limit {escaped(limit.name)}: {escaped(limit.allows + named)}")
    out.print()
    for reason, words in found.releases.items():
        out.print(f"released as {escaped(reason)}: {escaped(words)}")
    out.print(f"expired: {escaped(found.on_expire)}")


def _plan_table(plan: PlanLine) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("  source")
    table.add_column("takes", justify="right")
    table.add_column("because it weighs")
    table.add_column("gives")
    table.add_column("such requests", justify="right")
    for source in plan.sources:
        table.add_row(
            f"  {escaped(source.name)}",
            str(source.units),
            escaped(source.weight),
            escaped(source.gives),
            "-" if source.requests is None else str(source.requests),
        )
    return table
