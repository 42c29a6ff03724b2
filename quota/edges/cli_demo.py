"""`comptroller demo`: the main job on an embedded database, with a report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from policies.errors import InvalidRequest
from quota.edges.common import FOUND, console, print_json
from quota.scratch import sqlite_path


def add_to(root: typer.Typer) -> None:
    """Add the command."""
    root.command()(demo)


def demo(
    database: Annotated[
        str | None,
        typer.Option(
            "--database",
            "-d",
            metavar="URL",
            help="Keep the books here: an SQLite file that is not there yet. The default is "
            "build/demo.db, which each demo makes anew.",
        ),
    ] = None,
    html: Annotated[
        Path, typer.Option("--html", metavar="FILE", help="Where the page goes.")
    ] = Path("build/demo.html"),
    seed: Annotated[int, typer.Option("--seed", help="Another seed is another week.")] = 2026,
    accounts: Annotated[
        int, typer.Option("--accounts", min=20, max=5000, help="How many accounts ask.")
    ] = 300,
    what_if: Annotated[
        bool,
        typer.Option(
            "--what-if/--no-what-if", help="Play the same week under a cut policy as well."
        ),
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Play one week of a video app through the real engine, and report on it.

    A few hundred accounts ask for clips under a launch policy of 30 free ones a day. Every grant
    carries its GPU cost, packs are bought and drawn down, failed jobs give their units back, and
    the books are verified. The demand is made up from a seed.

    [dim]Example: comptroller demo --html demo.html[/dim]
    """
    from quota.demo.main import DEFAULT_DATABASE, run_demo
    from quota.demo.page import page
    from quota.demo.screen import show

    chosen = database or DEFAULT_DATABASE
    path = sqlite_path(chosen)
    if path is not None and path.exists():
        if database is not None:
            raise InvalidRequest(f"{path} is there already: a demo makes a new database")
        for name in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
            name.unlink(missing_ok=True)
    facts = run_demo(chosen, seed=seed, accounts=accounts, what_if=what_if)
    html.parent.mkdir(parents=True, exist_ok=True)
    html.write_text(page(facts), encoding="utf-8")
    if as_json:
        print_json(facts.as_dict())
    else:
        show(facts, console(), html)
    if facts.discrepancies or not facts.report.check.ok:
        raise typer.Exit(FOUND)
