"""Whether units that had come back when a grant expired can still be charged, once its work arrives late."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from policies.decision import Allocation
from policies.request import Circumstances, Request
from policies.rules import Ruleset
from policies.state import State


def still_fits(
    rules: Ruleset,
    request: Request,
    circumstances: Circumstances,
    allocations: Sequence[Allocation],
    state: State,
    now: datetime,
) -> bool:
    """Whether every source and every limit on units would let these allocations be taken now."""
    asked = rules.asked(request, circumstances)
    limits = [limit for limit in rules.limits_of(circumstances.spend_cap) if limit.counts_units]
    units: Counter[str] = Counter()
    for allocation in allocations:
        units[allocation.source] += allocation.units
    guarded: Counter[str] = Counter()
    for source in rules.sources:
        wanted = units.pop(source.label, 0)
        if wanted and not source.check(asked._replace(units=wanted), state, now).ok:
            return False
        for limit in limits if wanted else ():
            if limit.guards(source):
                guarded[limit.label] += wanted
    for limit in limits:
        wanted = guarded[limit.label]
        if wanted and limit.room(asked._replace(units=wanted), state, now) < wanted:
            return False
    total = asked._replace(units=sum(allocation.units for allocation in allocations))
    unguarded = (limit for limit in limits if not limit.is_guard)
    return not +units and all(limit.check(total, state, now).ok for limit in unguarded)
