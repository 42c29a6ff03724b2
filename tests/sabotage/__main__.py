"""python -m tests.sabotage [--only NAME]... [--list] [--jobs N]: see the package's docstring."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from rich.console import Console
from rich.table import Table

from tests.sabotage.catalogue import PROJECT, Sabotage, read_catalogue
from tests.sabotage.runner import Outcome, Result, failures_without_sabotage, try_out

COLOURS: Final = {
    Result.RED: "green",
    Result.GREEN: "bold red",
    Result.BROKEN: "bold red",
    Result.NOT_APPLIED: "bold red",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Try the sabotages; return 0 where every one of them was noticed, 2 for an unknown name."""
    options = _parser().parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 160)
    catalogue = read_catalogue()
    if unknown := sorted(set(options.only) - {entry.name for entry in catalogue}):
        console.print(f"no such sabotage: {', '.join(unknown)} (--list shows them)", markup=False)
        return 2
    chosen = [entry for entry in catalogue if not options.only or entry.name in options.only]
    if options.list:
        console.print(_listing(chosen))
        return 0
    if not chosen:
        console.print("There is no sabotage in tests/sabotage/sabotages.toml: nothing is proved.")
        return 1
    return _try_all(chosen, options.jobs, console)


def _try_all(chosen: Sequence[Sabotage], jobs: int, console: Console) -> int:
    if red := failures_without_sabotage(chosen, PROJECT):
        console.print("Red before any sabotage, so red would prove nothing:", style="bold red")
        for line in red:
            console.print(f"  {line}", markup=False)
        return 1
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        outcomes = list(pool.map(lambda entry: _tried(entry, console), chosen))
    console.print(_report(outcomes))
    missed = [outcome for outcome in outcomes if outcome.result is not Result.RED]
    console.print(f"{len(outcomes) - len(missed)} of {len(outcomes)} sabotages were noticed")
    return 1 if missed else 0


def _tried(sabotage: Sabotage, console: Console) -> Outcome:
    outcome = try_out(sabotage, PROJECT)
    console.print(f"{outcome.result.value:>12}  {sabotage.name}", style=COLOURS[outcome.result])
    return outcome


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.sabotage",
        description="Break each guarantee on purpose and see its test turn red.",
    )
    parser.add_argument(
        "--only", metavar="NAME", action="append", default=[], help="may be repeated"
    )
    parser.add_argument("--list", action="store_true", help="list the sabotages and do nothing")
    parser.add_argument("--jobs", type=int, default=min(4, os.cpu_count() or 1), metavar="N")
    return parser


def _listing(chosen: Sequence[Sabotage]) -> Table:
    table = Table("sabotage", "guarantee", "file", "the line that changes")
    for entry in chosen:
        table.add_row(entry.name, entry.guarantee, entry.file, entry.find.strip())
    return table


def _report(outcomes: Sequence[Outcome]) -> Table:
    table = Table("sabotage", "guarantee", "result", "noticed by, or why not")
    table.add_column("seconds", justify="right")
    for outcome in outcomes:
        entry, colour = outcome.sabotage, COLOURS[outcome.result]
        result = f"[{colour}]{outcome.result.value}[/]"
        table.add_row(
            entry.name, entry.guarantee, result, _plain(outcome.detail), f"{outcome.seconds:.1f}"
        )
    return table


def _plain(text: str) -> str:
    """Keep `[case]` in a test's name from being read as markup."""
    return text.replace("[", "\\[")


if __name__ == "__main__":
    sys.exit(main())
