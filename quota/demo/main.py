"""The demo as a whole: the week is played, what it came to is gathered, and a cut is tried on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from importlib.resources import files
from typing import Any, Final

from sqlalchemy import Engine

from billing.report import Report, ReportRow
from billing.statement import Statement
from policies.diff import diff
from policies.policy_set import PolicySet
from quota.demo.run import Outcome, World
from quota.demo.trace import START, Demand, make_demand
from quota.edges.common import counted, plain
from quota.engine import Comptroller
from quota.scratch import scratch, sqlite_path
from quota.stores.opening import without_password

DEFAULT_DATABASE: Final = "sqlite:///build/demo.db"
POLICIES: Final = "policies.yaml"
CUT_FROM, CUT_TO = "units: 30,", "units: 6,"
CUT_NAME: Final = "6 free units a day instead of 30 on the standard plan"
COSTLIEST: Final = 10
AFTER: Final = timedelta(hours=4)
"""How long after the week the last jobs have ended, whatever became of them."""


@dataclass(frozen=True, slots=True)
class WhatIf:
    """The same people under another policy. GPU cost in micro-dollars, revenue in minor units."""

    name: str
    changes: tuple[str, ...]
    granted: int
    denied: int
    denied_accounts: int
    gpu_micro_usd: int
    revenue_minor: int


@dataclass(frozen=True, slots=True)
class Facts:
    """What the week came to. GPU cost is in micro-dollars; money in minor units of `currency`."""

    database: str
    seed: int
    since: datetime
    until: datetime
    accounts: int
    pro_accounts: int
    outcome: Outcome
    report: Report
    by_day: tuple[ReportRow, ...]
    by_source: tuple[ReportRow, ...]
    by_plan: tuple[ReportRow, ...]
    costliest: tuple[ReportRow, ...]
    plans: Mapping[str, str]
    statement: Statement
    discrepancies: tuple[str, ...]
    policy_version: str
    currency: str
    what_if: WhatIf | None

    @property
    def gpu_micro_usd(self) -> int:
        """What the GPUs cost, in micro-dollars: as reported, or as estimated where nobody did."""
        return self.report.totals.gpu_micro_usd + self.report.totals.gpu_unreported_micro_usd

    @property
    def revenue_minor(self) -> int:
        """What was earned, in minor units: of packs, as their units were used."""
        return self.report.totals.revenue_minor.get(self.currency, 0)

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
        values: dict[str, Any] = plain(replace(self, what_if=None))
        return {**values, "what_if": plain(self.what_if)}


def load_policies() -> PolicySet:
    """Return the demo's own policies.

    Raises:
        PolicyError: the installed file is damaged.
    """
    return PolicySet.parse(policy_text(), name=POLICIES)


def policy_text() -> str:
    """Return the text of the demo's policy file."""
    return (files("quota.demo") / POLICIES).read_text(encoding="utf-8")


def cut_policies() -> PolicySet:
    """Return the policies that the demo tries on the same demand."""
    return PolicySet.parse(policy_text().replace(CUT_FROM, CUT_TO), name="cut.yaml")


def run_demo(
    database: str,
    *,
    seed: int,
    accounts: int,
    what_if: bool = True,
) -> Facts:
    """Play the week into a database, and gather what it came to.

    Raises:
        StoreUnavailable: the database cannot be written.
    """
    demand, policy_set = make_demand(seed, accounts), load_policies()
    path = sqlite_path(database)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    with scratch(database) as engine, counted("requests") as progress:
        world, comptroller = _world(demand, policy_set, engine)
        with comptroller:
            outcome = world.play(comptroller, progress)
            facts = _gather(comptroller, demand, outcome, policy_set, database, seed)
    if not what_if:
        return facts
    with counted("requests again, under another policy") as progress:
        return replace(facts, what_if=_what_if(demand, policy_set, progress))


def _world(
    demand: Demand, policy_set: PolicySet, database: str | Engine
) -> tuple[World, Comptroller]:
    world = World(demand, policy_set)
    return world, Comptroller.open(policy_set, database, clock=world.clock)


def _gather(
    comptroller: Comptroller,
    demand: Demand,
    outcome: Outcome,
    policy_set: PolicySet,
    database: str,
    seed: int,
) -> Facts:
    since, until = START, demand.ends_at + AFTER
    costliest = comptroller.report(since, until, ["account"]).rows[:COSTLIEST]
    shown = _worth_showing(outcome, costliest)
    return Facts(
        database=without_password(database),
        seed=seed,
        since=since,
        until=until,
        accounts=len(demand.people),
        pro_accounts=sum(person.plan == "pro" for person in demand.people),
        outcome=outcome,
        report=comptroller.report(since, until, ["plan", "source"]),
        by_day=comptroller.report(since, until, ["day", "source"]).rows,
        by_source=comptroller.report(since, until, ["source"]).rows,
        by_plan=comptroller.report(since, until, ["plan"]).rows,
        costliest=costliest,
        plans={person.name: person.plan for person in demand.people},
        statement=comptroller.statement(shown, since, until),
        discrepancies=tuple(str(each) for each in comptroller.verify()),
        policy_version=policy_set.version,
        currency=policy_set.currency,
        what_if=None,
    )


def _worth_showing(outcome: Outcome, costliest: tuple[ReportRow, ...]) -> str:
    """Return the account whose statement tells most: one that bought packs, and not too many."""
    buyers = [name for name, packs in sorted(outcome.buyers.items()) if packs > 1]
    small = [row.key["account"] for row in reversed(costliest) if row.key["account"] in buyers]
    return (small or buyers or [row.key["account"] for row in costliest] or ["nobody"])[0]


def _what_if(
    demand: Demand, policy_set: PolicySet, progress: Callable[[int, int], None] | None
) -> WhatIf:
    cut = cut_policies()
    world, comptroller = _world(demand, cut, "sqlite://")
    with comptroller:
        outcome = world.play(comptroller, progress)
        totals = comptroller.report(START, demand.ends_at + AFTER, []).totals
    return WhatIf(
        name=CUT_NAME,
        changes=tuple(str(change) for change in diff(policy_set, cut)),
        granted=outcome.granted,
        denied=outcome.denied,
        denied_accounts=len(outcome.denied_accounts),
        gpu_micro_usd=totals.gpu_micro_usd + totals.gpu_unreported_micro_usd,
        revenue_minor=totals.revenue_minor.get(cut.currency, 0),
    )
