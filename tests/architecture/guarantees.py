"""The guarantees of the design, by name.

Each has a test `test_guarantee_<name>...` and a sabotage in tests/sabotage/sabotages.toml.
"""

from __future__ import annotations

from typing import Final

GUARANTEES: Final = (
    "exact",
    "no-overdraft",
    "balanced",
    "once",
    "ends-once",
    "back-where-it-came-from",
    "traceable",
    "dues-first",
    "chained",
    "explainable",
    "priced",
    "append-only",
    "forgettable",
    "order-free",
    "policy-change-never-resets-usage",
    "no-zone-hopping",
)


def prefix_of(guarantee: str) -> str:
    """Return how the names of a guarantee's tests begin."""
    return f"test_guarantee_{guarantee.replace('-', '_')}"


def proves(test_name: str, guarantee: str) -> bool:
    """Whether a test of that name is a test of that guarantee."""
    prefix = prefix_of(guarantee)
    return test_name == prefix or test_name.startswith(f"{prefix}_")
