"""`comptroller statement`, `report` and `audit`: what happened, for people, spreadsheets and audits."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from billing.render import render, tables
from policies.errors import InvalidRequest
from policies.instants import add_months, zone_named
from quota.clock import system_clock
from quota.edges import cli_account
from quota.edges.common import (
    DATABASE_DEFAULT,
    FOUND,
    POLICIES_DEFAULT,
    YEARS,
    Account,
    AsJson,
    Database,
    Policies,
    console,
    counted,
    escaped,
    instant,
    opened,
    print_json,
    print_table,
    say,
    several,
    write,
)

if TYPE_CHECKING:
    from billing.report import Report
    from billing.statement import Statement

audit = typer.Typer(
    help="Prove the books, and hand them over.", no_args_is_help=True, rich_markup_mode="rich"
)
MICROSECOND: Final = timedelta(microseconds=1)
LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)

Since = Annotated[
    str | None, typer.Option("--since", metavar="TIME", help="From this time on (UTC).")
]
Until = Annotated[
    str | None, typer.Option("--until", metavar="TIME", help="Before this time (UTC).")
]
Month = Annotated[
    str | None, typer.Option("--month", metavar="YYYY-MM", help="One calendar month.")
]
Format = Annotated[
    Literal["table", "csv", "json"] | None,
    typer.Option("--format", "-f", help="For people, spreadsheets or machines."),
]


def add_to(root: typer.Typer) -> None:
    """Add the commands of the top level."""
    root.command()(statement)
    root.command()(report)


@cli_account.app.command()
def statement(
    account: Account,
    since: Since = None,
    until: Until = None,
    month: Month = None,
    form: Format = None,
    database: Database = DATABASE_DEFAULT,
    policies: Policies = POLICIES_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Print an account's statement: every line dated, what it took, earned and cost.

    Without a period: everything up to now. Exits with 1 where it disagrees with the books.

    [dim]Example: comptroller statement u_42 --month 2026-09 --format csv[/dim]
    """
    start, end = _period(since, until, month, "UTC", LONG_AGO)
    with opened(database, policies) as comptroller:
        found = comptroller.statement(account, start, end)
    _print(found, form, as_json=as_json)


def report(
    month: Month = None,
    since: Since = None,
    until: Until = None,
    by: Annotated[
        str,
        typer.Option(
            "--by", help="Any of plan, operation, source, account, member, currency, day or month."
        ),
    ] = "plan,operation",
    timezone: Annotated[
        str, typer.Option("--timezone", help="Whose days and months these are.")
    ] = "UTC",
    form: Format = None,
    database: Database = DATABASE_DEFAULT,
    policies: Policies = POLICIES_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Report the business: units, GPU cost, revenue, margin, and unearned money rolled forward.

    Without a period: this month. Exits with 1 where it disagrees with the books.

    [dim]Example: comptroller report --month 2026-09 --by plan,operation,source[/dim]
    """
    zone = zone_named(timezone)
    this_month = system_clock().astimezone(zone).replace(
        day=1, hour=0, minute=0, second=0, microsecond=0
    )  # fmt: skip
    start, end = _period(since, until, month, timezone, this_month.astimezone(UTC))
    names = [name.strip() for name in by.split(",") if name.strip()]
    with opened(database, policies) as comptroller:
        found = comptroller.report(start, end, names, timezone)
    _print(found, form, as_json=as_json)


@audit.command()
def verify(
    database: Database = DATABASE_DEFAULT,
    policies: Policies = POLICIES_DEFAULT,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", min=1, help="Processes that verify; default: one per core, if worth it."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Re-derive everything from the chained records, and report each discrepancy.

    Exits with 1 where there is any.

    [dim]Example: comptroller audit verify --database sqlite:///comptroller.db[/dim]
    """
    with opened(database, policies) as comptroller, counted("records") as progress:
        found = comptroller.verify(progress=progress, workers=workers)
    if as_json:
        print_json({"sound": not found, "discrepancies": found})
    else:
        for each in found:
            say(f"[red]{escaped(each)}[/red]")
        if found:
            say(f"[bold red]{several(len(found), 'discrepancy', 'discrepancies')}[/bold red]")
        else:
            say("[green]the books are sound[/green]: every record, balance and lot adds up")
    if found:
        raise typer.Exit(FOUND)


@audit.command()
def export(
    form: Annotated[
        Literal["csv"], typer.Option("--format", "-f", help="How the rows are written.")
    ] = "csv",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write to this file instead of stdout.")
    ] = None,
    database: Database = DATABASE_DEFAULT,
    policies: Policies = POLICIES_DEFAULT,
) -> None:
    """Hand the books over: every record with its exact bytes and hashes, and every transfer.

    [dim]Example: comptroller audit export --format csv --out books.csv[/dim]
    """
    del form  # It is the only one so far.
    with opened(database, policies) as comptroller, ExitStack() as stack:
        stream: IO[str] = sys.stdout
        if out is not None:
            stream = stack.enter_context(out.open("w", encoding="utf-8", newline=""))
        stream.writelines(comptroller.export())


def _print(found: Statement | Report, form: str | None, *, as_json: bool) -> None:
    how = form or ("json" if as_json else "table")
    if how == "table":
        for table in tables(found):
            print_table(table)
    else:
        text = render(found, how)
        write(text if text.endswith("\n") or not text else text + "\n")
    if found.check.ok:
        if how == "table":
            say("[green]agrees with the books to the unit and the cent[/green]")
        return
    for problem in found.check.problems:
        console(stderr=True).print(f"disagrees with the books: {escaped(problem)}", soft_wrap=True)
    raise typer.Exit(FOUND)


def _period(
    since: str | None, until: str | None, month: str | None, timezone: str, default: datetime
) -> tuple[datetime, datetime]:
    """Return the period that was asked for: a month, or from one time to another."""
    if month is not None:
        if since is not None or until is not None:
            raise InvalidRequest("give --month, or --since and --until, not both")
        return _month(month, timezone)
    start: Any = instant(since, "since") or default
    # What happens at this very instant is asked for too.
    return start, instant(until, "until") or system_clock() + MICROSECOND


def _month(text: str, timezone: str) -> tuple[datetime, datetime]:
    try:
        first = datetime.strptime(text, "%Y-%m")  # noqa: DTZ007 - a month of whatever zone
    except ValueError:
        first = datetime.min  # noqa: DTZ901 - of no year that people mean
    if first.year not in YEARS:
        raise InvalidRequest(f"--month `{text:.20}` is no month: write 2026-09")
    zone = zone_named(timezone)
    start = first.replace(tzinfo=zone)
    end = add_months(first.replace(tzinfo=UTC), 1).replace(tzinfo=zone)
    return start.astimezone(UTC), end.astimezone(UTC)
