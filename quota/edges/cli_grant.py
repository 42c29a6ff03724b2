"""`comptroller grant`: one grant."""

from __future__ import annotations

from typing import Annotated

import typer

from policies.errors import InvalidRequest
from policies.words import dollars
from quota.edges import show_account
from quota.edges.common import (
    DATABASE_DEFAULT,
    FOUND,
    POLICIES_DEFAULT,
    AsJson,
    Database,
    Policies,
    clock_text,
    console,
    escaped,
    grant_json,
    opened,
    print_json,
    say,
)
from quota.traces import seconds_of

app = typer.Typer(help="One grant.", no_args_is_help=True, rich_markup_mode="rich")
GrantId = Annotated[str, typer.Argument(metavar="ID", help="The grant's id: gr_1_7.")]


@app.command()
def show(
    grant_id: GrantId,
    database: Database = DATABASE_DEFAULT,
    policies: Policies = POLICIES_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Show a grant as it stands now.

    [dim]Example: comptroller grant show gr_1_7[/dim]
    """
    with opened(database, policies) as comptroller:
        grant = comptroller.get(grant_id)
    if as_json:
        print_json(grant_json(grant))
        return
    say(f"[bold]{grant.id}[/bold]  {escaped(grant.account)}, plan {escaped(grant.plan)}")
    show_account.grants([grant], "grant")
    until = "lives" if grant.live else "would have lived"
    say(f"\n{until} until {clock_text(grant.expires_at)} UTC")


@app.command()
def explain(
    grant_id: GrantId,
    database: Database = DATABASE_DEFAULT,
    policies: Policies = POLICIES_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Say what each policy read and found, and whether deciding again gives the same.

    Exits with 1 where deciding again gives another answer.

    [dim]Example: comptroller grant explain gr_1_7[/dim]
    """
    with opened(database, policies) as comptroller:
        found = comptroller.explain(grant_id)
    if as_json:
        print_json(found)
    else:
        for line in str(found).splitlines():
            console().print(f"{_style(line, same=found.same)}{escaped(line)}", soft_wrap=True)
    if not found.same:
        raise typer.Exit(FOUND)


@app.command()
def release(
    grant_id: GrantId,
    reason: Annotated[
        str, typer.Option("--reason", "-r", help="Why: a reason of the policy file's on_release.")
    ],
    gpu_seconds: Annotated[
        str | None,
        typer.Option("--gpu-seconds", help="Time on the GPU; without it the estimate is booked."),
    ] = None,
    database: Database = DATABASE_DEFAULT,
    policies: Policies = POLICIES_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """End a grant whose work was not delivered. The policy file says what comes back.

    [dim]Example: comptroller grant release gr_1_7 --reason infrastructure_failure[/dim]
    """
    spent = None if gpu_seconds is None else seconds_of(gpu_seconds)
    if not reason.strip():
        raise InvalidRequest("--reason must not be empty")
    with opened(database, policies) as comptroller:
        ending = comptroller.release(grant_id, reason=reason, gpu_seconds=spent)
    if as_json:
        print_json(ending)
        return
    how = ending.status if ending.by_this_call else f"had ended already: {ending.status}"
    cost = dollars(ending.gpu_cost_micro_usd)
    say(f"{ending.grant_id} {how}, {ending.units_charged} units charged, GPU cost {cost}")


def _style(line: str, *, same: bool) -> str:
    if line.lower().startswith("decided again"):
        return "[green]" if same else "[bold red]"
    return "[bold]" if line.endswith(":") and not line.startswith(" ") else ""
