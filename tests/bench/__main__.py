"""Run the benchmarks and print their ratios."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench import decision, durable, history
from tests.bench.rounds import Ratio

ALL = {"decision": decision.run, "durable": durable.run, "history": history.run}


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
    if options.json:
        options.json.write_text(json.dumps([asdict(ratio) for ratio in ratios], indent=1))


if __name__ == "__main__":
    main()
