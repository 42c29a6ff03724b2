"""What a lower allowance would have denied, sold and saved, had it been in force for a recorded demand.

    .venv/bin/python docs/examples/what_if.py --units 4 2
    .venv/bin/python docs/examples/what_if.py --policies policies.yaml --trace november.csv --units 20 10 5

The demand is a CSV file as docs/how-to/replay-your-demand.md describes it. Each row is decided by the real engine, at
its own instant and under each allowance; a replay begins with nobody having credits. Demand does not react, but for
one guess of yours: of 100 accounts, `--buyers` buy the pack that a denial offers, a few times at most.
"""

import argparse
import json
import sys
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from policies import PolicySet
from policies.words import dollars, money
from quota import Comptroller, ComptrollerError, Denial
from quota.replay import replay
from quota.replay_totals import Totals
from quota.traces import Row, read_trace

HERE = Path(__file__).parent
PACKS_MAX = 3
KIND = "daily_allowance"


@dataclass
class Buyers:
    """Who buys, and what they have bought: packs, and their price in minor units."""

    of_100: int
    packs: Counter[str] = field(default_factory=Counter)
    sold_minor: int = 0

    def __call__(self, comptroller: Comptroller, row: Row, denial: Denial) -> bool:
        """Buy what a denial offers, and use it. The same accounts buy in every replay."""
        offer = next((each for each in denial.offers if each.kind == "buy"), None)
        buys = zlib.crc32(row.account.encode()) % 100 < self.of_100
        if offer is None or offer.pack is None or not buys or self.packs[row.account] >= PACKS_MAX:
            return False
        for _ in range(offer.quantity or 1):
            self.packs[row.account] += 1
            reference = f"{row.account}-{self.packs[row.account]}"
            lot = comptroller.record_purchase(row.account, pack=offer.pack, reference=reference)
            self.sold_minor += lot.price_minor
        comptroller.set_paid_use(row.account, "auto")  # who has bought units wants them used
        return True


def main(arguments: Sequence[str] | None = None) -> None:
    options = parsed(arguments)
    today = PolicySet.load(options.policies)
    first: Totals | None = None
    print(line("free units", "denied", "sold", "earned", "GPU cost", "saved"))
    for units in [None, *options.units]:
        policies = today if units is None else lowered(today, units)
        buyers = Buyers(options.buyers)
        with Path(options.trace).open(encoding="utf-8", newline="") as lines:
            rows = read_trace(lines, "csv", policies, name=options.trace)
            totals = replay(rows, policies, name=options.trace, on_denial=buyers)
        first = first or totals
        shown = line(
            "as today" if units is None else f"{units}",
            f"{totals.denied:,}",
            money(buyers.sold_minor, policies.currency),
            money(totals.revenue_minor, policies.currency),  # of what was sold, that part was used
            dollars(totals.actual_micro_usd),
            dollars(first.actual_micro_usd - totals.actual_micro_usd),
        )
        print(shown)


def line(*cells: str) -> str:
    return f"{cells[0]:<10}" + "".join(f"{cell:>12}" for cell in cells[1:])


def lowered(policies: PolicySet, units: int) -> PolicySet:
    """Return the same policies with a daily allowance of at most so many units in each plan."""
    content = json.loads(policies.canonical)
    for plan in content["plans"].values():
        for source in plan.get("sources", ()):
            if source["kind"] == KIND:
                source["units"] = min(units, source["units"])
    return PolicySet.from_canonical(json.dumps(content))


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--policies", default=str(HERE / "video_app" / "policies.yaml"))
    parser.add_argument("--trace", default=str(HERE / "demand.csv"))
    parser.add_argument("--units", type=int, nargs="+", default=[4, 2], metavar="N")
    parser.add_argument("--buyers", type=int, default=20, metavar="PERCENT")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    try:
        main()
    except (ComptrollerError, OSError) as error:
        sys.exit(f"what_if: {error}")
