"""Run the benchmarks and print their ratios."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench import (
    budgets,
    decision,
    durable,
    group_commit,
    history,
    peers,
    postgres,
    redis_front,
    scale,
    verifying,
)
from tests.bench.rounds import Ratio

ALL = {
    "budgets": budgets.run,
    "decision": decision.run,
    "durable": durable.run,
    "group_commit": group_commit.run,
    "history": history.run,
    "postgres": postgres.run,
    "redis": redis_front.run,
    "peers": peers.run,
    "scale": scale.run,
    "verify": verifying.run,
}


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "names", nargs="*", choices=[*ALL, []], help="which benchmarks; all by default"
    )
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    console, ratios = Console(width=160), list[Ratio]()
    table = Table(
        "benchmark",
        "ours",
        "us",
        "against",
        "us",
        "ratio",
        "range",
        "wanted",
        title="Speed, as ratios",
    )
    for name in options.names or ALL:
        with console.status(f"{name} ..."):
            for ratio in ALL[name]():
                ratios.append(ratio)
                spread = f"{ratio.least:.2f} to {ratio.greatest:.2f}"
                figures = (
                    f"{ratio.ours_us:.0f}",
                    ratio.other,
                    f"{ratio.other_us:.0f}",
                    f"{ratio.median:.2f}",
                )
                table.add_row(ratio.name, ratio.ours, *figures, spread, ratio.wanted)
    console.print(table)
    if "peers" in (options.names or ALL):
        console.print(_faults())
    if options.json:
        options.json.write_text(json.dumps([asdict(ratio) for ratio in ratios], indent=1))


def _faults() -> Table:
    """Return what other limiters do where a limit refuses, and where a reply is lost."""
    columns = ("limiter", "2 a minute, 30 a day: admitted of 10", "gone of the day's 30")
    table = Table(*columns, "2 requests, a reply lost", "counted", title="Peers on faults")
    for seen in peers.behaviours():
        table.add_row(seen.name, str(seen.admitted), str(seen.used), seen.lost, str(seen.counted))
    return table


if __name__ == "__main__":
    main()
