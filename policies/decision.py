"""The answer to a request: how much is allowed, out of what, at what GPU cost, and what each policy found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Literal, NamedTuple

from policies.request import AttributeValue
from policies.state import BudgetRead, RateRead


class Reason(StrEnum):
    """Why a request was denied."""

    RATE_EXCEEDED = "rate_exceeded"
    CONCURRENCY_EXCEEDED = "concurrency_exceeded"
    USAGE_EXCEEDED = "usage_exceeded"
    ALLOWANCE_EXHAUSTED = "allowance_exhausted"
    CREDITS_EXHAUSTED = "credits_exhausted"
    CONSENT_NEEDED = "consent_needed"
    PAID_USE_OFF = "paid_use_off"
    SPEND_EXCEEDED = "spend_exceeded"
    BUDGET_EXHAUSTED = "budget_exhausted"
    ACCOUNT_FROZEN = "account_frozen"


Outcome = Literal["passed", "refused", "gave", "passed_over", "not_needed"]


class Finding(NamedTuple):
    """What one policy found.

    A limit `passed` or `refused`; a source `gave`, was `passed_over`, or was `not_needed`. `used`, `limit` and
    `asked` are in the policy's own quantity: requests, live grants, units, minor money or micro-dollars.
    `limit` is None where there is none; `reason` is set where the policy stood in the way.
    """

    policy: str
    outcome: Outcome
    used: int
    limit: int | None
    asked: int
    reason: str | None = None


class Allocation(NamedTuple):
    """Units of a grant and where they came from. `price_minor`: what they cost, in minor units of `currency`."""

    source: str
    units: int
    lot_id: str | None = None
    price_minor: int = 0
    currency: str | None = None


@dataclass(frozen=True, slots=True)
class Price:
    """A price in minor units of its currency."""

    minor: int
    currency: str


@dataclass(frozen=True, slots=True)
class Offer:
    """What would get the request through.

    `wait` until `at`; `consent` to using `units` of `source`; `buy` `quantity` of `pack` (`units` in all) for
    `price`; ask for something `smaller` with `attributes`; `upgrade` to `plan` at `price`.
    """

    kind: Literal["wait", "consent", "buy", "smaller", "upgrade"]
    at: datetime | None = None
    source: str | None = None
    units: int | None = None
    pack: str | None = None
    quantity: int | None = None
    price: Price | None = None
    attributes: Mapping[str, AttributeValue] | None = None
    plan: str | None = None


class Decision(NamedTuple):
    """What the waterfall decided. A refused request has no allocations: it takes nothing anywhere.

    `rates`: the rate limits' new state, to be stored with the grant. `budgets`: those that the estimate is
    charged to. `gpu_cost_micro_usd`: the estimate, in micro-dollars.
    """

    reason: Reason | str | None
    findings: tuple[Finding, ...]
    allocations: tuple[Allocation, ...]
    gpu_cost_micro_usd: int
    rates: tuple[tuple[RateRead, int], ...] = ()
    budgets: tuple[BudgetRead, ...] = ()

    @property
    def granted(self) -> bool:
        """Whether the request is admitted."""
        return self.reason is None
