"""In front of SQL, Redis really answers: in generated programs it denies for every reason that it can know."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from quota.prefilter.answers import Verdict
from tests.conformance.machine import Machine
from tests.conformance.test_programs import REASONS, machine_on

KNOWN = [reason for reason in REASONS if reason != "budget_exhausted"]
"""What budgets have spent, all accounts share, and no account's key can hold."""

IN_SQL = [Verdict.LATE, Verdict.REPLAYED, Verdict.CONFLICT, Verdict.OTHER_WINDOW]
"""Of operations that are limits only, or of times that these programs do not come to: test_script_*.py has them."""

EXPECTED = {
    "redis, memory": [
        *(f"redis denied: {reason}" for reason in KNOWN),
        *(f"script: {verdict.name}" for verdict in Verdict if verdict not in IN_SQL),
        "undone",
    ],
    "redis that lags, memory": ["lost", "flushed", "redis denied: allowance_exhausted"],
    "redis that knows few keys, memory": [
        "front: Refused",  # whether an old key has brought a grant, SQL is asked
        "redis denied: allowance_exhausted",
    ],
}
ROUNDS_MAX = 12


def test_generated_programs_reach_everything_that_redis_may_answer():
    Machine.reached.clear()
    missed: dict[str, list[str]] = dict(EXPECTED)
    round_of_programs = settings(
        max_examples=30,
        stateful_step_count=40,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    for number in range(ROUNDS_MAX):
        for store, events in list(missed.items()):
            Machine.reached.clear()
            run_state_machine_as_test(seed(number)(machine_on(store)), settings=round_of_programs)
            missed[store] = [event for event in events if not Machine.reached[event]]
            if not missed[store]:
                del missed[store]
        if not missed:
            return
    raise AssertionError(f"never happened: {missed}")
