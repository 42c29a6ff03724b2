"""`comptroller replay`: recorded demand through the real engine."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Annotated, Literal

import typer

from policies.errors import InvalidRequest
from policies.policy_set import PolicySet
from policies.suggest import one_line
from policies.words import dollars, money
from quota.edges import show_account
from quota.edges.common import (
    POLICIES_DEFAULT,
    REDIS_VARIABLE,
    console,
    escaped,
    print_table,
    several,
    write,
)
from quota.replay import replay as run_replay
from quota.replay_totals import Totals
from quota.traces import read_trace

STDIO = "-"
TOP = 5


PlanOfAll = Annotated[
    str | None, typer.Option("--plan", help="The plan of every row, whatever the rows say.")
]
Out = Annotated[
    str | None,
    typer.Option("--json", metavar="FILE", help="Write the totals here as JSON; - is stdout."),
]
Redis = Annotated[
    str | None,
    typer.Option(
        "--redis",
        envvar=REDIS_VARIABLE,
        metavar="URL",
        help="Put Redis in front: redis://... or redis+cluster://... Nothing is left there.",
    ),
]
SkipInvalid = Annotated[
    bool,
    typer.Option("--skip-invalid", help="Count rows that are no requests instead of stopping."),
]


def add_to(root: typer.Typer) -> None:
    """Add the command."""
    root.command()(replay)


def replay(
    trace: Annotated[str, typer.Argument(metavar="TRACE", help="The file; - reads stdin.")],
    form: Annotated[
        Literal["gentd26", "csv"],
        typer.Option(
            "--format",
            "-f",
            help="csv: columns at, account, operation, status, gpu_seconds, and plan, member, "
            "attr.NAME where there are such; gentd26: the GenTD26 dataset's own columns.",
        ),
    ],
    policies: Annotated[
        str,
        typer.Option(
            "--policies",
            "-p",
            envvar="COMPTROLLER_POLICIES",
            metavar="FILE",
            help="The policy file, in force for the whole of it.",
        ),
    ] = POLICIES_DEFAULT,
    plan: PlanOfAll = None,
    database: Annotated[
        str | None,
        typer.Option(
            "--database",
            "-d",
            envvar="COMPTROLLER_DATABASE",
            metavar="URL",
            help="Keep the books here; no grants yet. The default is a temporary database.",
        ),
    ] = None,
    redis: Redis = None,
    out: Out = None,
    skip_invalid: SkipInvalid = False,
) -> None:
    """Run recorded demand through the real engine, on a clock set to the recording's own instants.

    Each row is admitted at its time and ends when its recording says; what nobody ended expires.
    The same trace under two policy files shows what a change would do, before anybody feels it.

    [dim]Example: comptroller replay november.csv --format gentd26 --policies policies.yaml --json
    out.json[/dim]
    """
    policy_set = PolicySet.load(policies)
    if out not in (None, STDIO):
        _writable(Path(str(out)))
    if redis is not None:
        _warn_if_away(redis)
    with _lines(trace) as (lines, tell, size), _progress(size, tell) as progress:
        totals = run_replay(
            read_trace(lines, form, policy_set, name=trace),
            policy_set,
            name=trace,
            plan=plan,
            database=database,
            redis=redis,
            skip_invalid=skip_invalid,
            progress=progress,
        )
    if out is not None:
        _write(totals, out)
    if out != STDIO:
        _show(totals, policy_set)


def _warn_if_away(redis: str) -> None:
    """Say on stderr where Redis does not answer: the totals are the same, and whoever named it should know.

    Raises:
        InvalidRequest: the URL cannot be read.
    """
    from quota.redis import open_sync
    from quota.redis.errors import RedisUnavailable, ScriptFailed

    with closing(open_sync(redis)) as client:
        try:
            client.command("PING")
        except (RedisUnavailable, ScriptFailed) as error:
            said = f"{one_line(str(error))}: SQL decides everything meanwhile"
            console(stderr=True).print(escaped(said), soft_wrap=True)


def _write(totals: Totals, out: str) -> None:
    text = json.dumps(totals.as_dict(), indent=1, ensure_ascii=False) + "\n"
    if out == STDIO:
        write(text)
    else:
        Path(out).write_text(text, encoding="utf-8")


def _writable(path: Path) -> None:
    """Make sure that a file can be written: better now than after an hour.

    Raises:
        InvalidRequest: it cannot.
    """
    was_there = path.exists()
    try:
        with path.open("a", encoding="utf-8"):
            pass
        if not was_there:
            path.unlink()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InvalidRequest(f"--json {path}: {reason}") from None


@contextmanager
def _lines(trace: str) -> Iterator[tuple[IO[str], Callable[[], int], int]]:
    """Open a trace: its lines, how many bytes of it are read, and how many there are."""
    if trace == STDIO:
        yield sys.stdin, lambda: 0, 0
        return
    path = Path(trace)
    if path.is_dir():
        raise InvalidRequest(f"{trace}: is a folder, not a trace")
    with path.open("rb") as raw, io.TextIOWrapper(raw, "utf-8-sig", newline="") as lines:
        # `tell` of the text itself is switched off while it is iterated; the bytes below go on.
        yield lines, raw.tell, path.stat().st_size


@contextmanager
def _progress(size: int, tell: Callable[[], int]) -> Iterator[Callable[[int], None] | None]:
    """Show a progress bar on a terminal, and nothing elsewhere."""
    screen = console(stderr=True)
    if not screen.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.fields[rows]:>10,} rows"),
        BarColumn(None),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=screen, transient=True) as bar:
        task = bar.add_task("", total=size or None, rows=0)
        yield lambda rows: bar.update(task, completed=tell(), rows=rows)


def _show(totals: Totals, policy_set: PolicySet) -> None:
    out = console()
    rows = show_account.table("what", "how many", "of it", right=("how many",))
    rows.show_header = False
    denied = ", ".join(f"{n:,} {why}" for why, n in totals.denied_by_reason.most_common())
    ended = (
        f"{totals.settled:,} settled, {totals.released:,} released, {totals.expired:,} expired, "
        f"{totals.open:,} open"
    )
    rows.add_row("requests", f"{totals.requests:,}", several(len(totals.accounts), "account"))
    rows.add_row("granted", f"[green]{totals.granted:,}[/green]", ended)
    rows.add_row("denied", f"[red]{totals.denied:,}[/red]", escaped(denied))
    if totals.invalid:
        rows.add_row("invalid", f"[yellow]{totals.invalid:,}[/yellow]", "rows that are no requests")
    for source, units in sorted(totals.units.items()):
        rows.add_row("units", f"{units:,}", escaped(source))
    rows.add_row("GPU cost", dollars(totals.estimated_micro_usd), "estimated, of all grants")
    rows.add_row("", dollars(totals.actual_micro_usd), "actual, of settled and released ones")
    rows.add_row("revenue", money(totals.revenue_minor, policy_set.currency), "")
    out.print(rows)
    heaviest = sorted(totals.accounts.items(), key=lambda each: (-each[1].requests, each[0]))[:TOP]
    if heaviest:
        top = show_account.table(
            "account", "requests", "granted", "denied", "units", "GPU cost",
            right=("requests", "granted", "denied", "units", "GPU cost"),
        )  # fmt: skip
        for name, each in heaviest:
            cost = dollars(each.gpu_cost_micro_usd)
            counts = (each.requests, each.granted, each.denied, each.units)
            top.add_row(escaped(name), *(f"{count:,}" for count in counts), cost)
        show_account.heading("those who asked most")
        print_table(top)
    out.print(f"\n[dim]policy version {totals.policy_version}[/dim]")
