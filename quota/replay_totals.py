"""What a replay adds up, as it goes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class AccountTotals:
    """One account's part. Units: net of what came back. GPU cost: estimated, in micro-dollars."""

    requests: int = 0
    granted: int = 0
    denied: int = 0
    units: int = 0
    gpu_cost_micro_usd: int = 0


@dataclass(slots=True)
class Totals:
    """What a replay added up. Units are net of what came back.

    GPU cost is in micro-dollars, `actual` that of settled and released grants; revenue is in minor
    units.
    """

    policy_version: str
    granted: int = 0
    denied: int = 0
    invalid: int = 0
    settled: int = 0
    released: int = 0
    expired: int = 0
    estimated_micro_usd: int = 0
    actual_micro_usd: int = 0
    revenue_minor: int = 0
    denied_by_reason: Counter[str] = field(default_factory=Counter)
    units: Counter[str] = field(default_factory=Counter)
    accounts: dict[str, AccountTotals] = field(default_factory=dict)

    @property
    def requests(self) -> int:
        """How many rows were decided."""
        return self.granted + self.denied

    @property
    def open(self) -> int:
        """How many grants had not ended when the last row was decided."""
        return self.granted - self.settled - self.released - self.expired

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values, for JSON. Money and units are integers."""
        return {
            "requests": self.requests,
            "granted": self.granted,
            "denied": self.denied,
            "invalid": self.invalid,
            "denied_by_reason": dict(sorted(self.denied_by_reason.items())),
            "settled": self.settled,
            "released": self.released,
            "expired": self.expired,
            "open": self.open,
            "units": dict(sorted(self.units.items())),
            "gpu_cost_micro_usd": {
                "estimated": self.estimated_micro_usd,
                "actual": self.actual_micro_usd,
            },
            "revenue_minor": self.revenue_minor,
            "policy_version": self.policy_version,
            "accounts": {
                name: {
                    "requests": each.requests,
                    "granted": each.granted,
                    "denied": each.denied,
                    "units": each.units,
                    "gpu_cost_micro_usd": each.gpu_cost_micro_usd,
                }
                for name, each in sorted(self.accounts.items())
            },
        }
