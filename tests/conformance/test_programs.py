"""Every store gives the model's answers to generated programs."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.conformance.machine import Machine
from tests.conformance.stores import STORES

SLOW = ("postgresql", "redis, file", "lags, file", "cluster")
QUICK = {"memory": 1.0, "file": 0.4} | {
    store: 0.15 for store in STORES if any(each in store for each in SLOW)
}
"""Share of the profile's examples; what is not named runs a quarter of them."""

USUAL = 60
"""Examples of the usual profile."""

ROUNDS_MAX = 12
"""After so many rounds, something is out of reach. Rare events take four or five."""

REASONS = """
    rate_exceeded concurrency_exceeded usage_exceeded allowance_exhausted credits_exhausted consent_needed paid_use_off
    spend_exceeded budget_exhausted account_frozen
""".split()
INTERESTING = [
    *(f"denied: {reason}" for reason in REASONS),
    *(f"offered: {kind}" for kind in ("wait", "consent", "buy", "smaller", "upgrade")),
    *(f"replay of {status}" for status in ("held", "settled", "released", "expired")),
    *(f"lot died while held: {fate}" for fate in ("refunded", "expired", "ours")),
    "partial delivery",
    "multi-lot hold",
    "split across sources",
    "expiry during hold",
    "late end",
    "late settle charged",
    "lot expired",
    "refund with open holds",
    "replay",
    "conflict",
    "purchase replayed",
    "retry_at",
    "budget overrun",
    "GrantEnded",
]


def machine_on(store: str) -> type[Machine]:
    return type("Program", (Machine,), {"store": staticmethod(STORES[store])})


@pytest.mark.parametrize("store", STORES)
def test_every_answer_is_the_models(store):
    profile = settings()
    examples = max(5, int(profile.max_examples * QUICK.get(store, 0.25)))
    # Shrinking a program takes minutes: ask for it with HYPOTHESIS_PROFILE=deep.
    deep = profile.max_examples > USUAL
    phases = profile.phases if deep else [Phase.explicit, Phase.reuse, Phase.generate]
    program = settings(profile, max_examples=examples, stateful_step_count=40, phases=phases)
    run_state_machine_as_test(machine_on(store), settings=program)


def test_a_long_run_reaches_everything_that_is_interesting():
    """What generated programs cannot reach, they do not test. Rounds of fixed seeds, until all was reached once."""
    Machine.reached.clear()
    round_of_programs = settings(
        max_examples=80,
        stateful_step_count=40,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    missed: list[str] = []
    for number in range(ROUNDS_MAX):
        run_state_machine_as_test(seed(number)(machine_on("memory")), settings=round_of_programs)
        missed = [event for event in INTERESTING if not Machine.reached[event]]
        if not missed:
            return
    raise AssertionError(f"never happened: {missed}; what did: {dict(Machine.reached)}")
