"""The answers: a grant, a denial, and how a grant ended. `if decision:` tells type checkers which of the two it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from policies.decision import Allocation, Finding, Offer
from policies.errors import ComptrollerError
from policies.request import AttributeValue

Status = Literal["held", "settled", "released", "expired"]


@dataclass(frozen=True, slots=True)
class Grant:
    """An admitted request. True where a denial is false.

    Work only on a `live` one: held and not expired at the instant of the answer. `replayed`: it was granted before,
    under the same key. `gpu_cost_micro_usd` is the estimate, in micro-dollars.
    """

    id: str
    account: str
    operation: str
    attributes: Mapping[str, AttributeValue]
    at: datetime
    policy_version: str
    findings: Sequence[Finding]
    plan: str
    member: str | None
    key: str
    allocations: tuple[Allocation, ...]
    gpu_cost_micro_usd: int
    expires_at: datetime
    status: Status
    live: bool
    started_at: datetime | None = None
    replayed: bool = False
    decided_by: Literal["sql", "redis", "local"] = "sql"

    @property
    def granted(self) -> Literal[True]:
        """Always true."""
        return True

    @property
    def units_by_source(self) -> dict[str, int]:
        """The units taken, by source."""
        units: Counter[str] = Counter()
        for allocation in self.allocations:
            units[allocation.source] += allocation.units
        return dict(units)

    def __bool__(self) -> Literal[True]:
        return True


@dataclass(frozen=True, slots=True)
class Denial:
    """A refused request: it took nothing anywhere. False where a grant is true.

    `retry_at`: the first instant at which the same request is granted if nothing else happens until then (open grants
    run into their expiry); None where waiting does not help.
    """

    id: str
    account: str
    operation: str
    attributes: Mapping[str, AttributeValue]
    at: datetime
    policy_version: str
    findings: tuple[Finding, ...]
    plan: str
    member: str | None
    reason: str
    retry_at: datetime | None
    offers: tuple[Offer, ...]
    decided_by: Literal["sql", "redis", "local"] = "sql"

    @property
    def granted(self) -> Literal[False]:
        """Always false."""
        return False

    def __bool__(self) -> Literal[False]:
        return False


Decision = Grant | Denial


class Denied(ComptrollerError):  # noqa: N818 - the contract's name
    """The request of a `job` was refused. `denial` says why, and what would help."""

    def __init__(self, message: str, *, denial: Denial) -> None:
        self.denial = denial
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Ending:
    """How a grant ended, and whether this call ended it.

    `late`: the work finished after the grant had expired. `units_charged`: units that were not given back.
    `gpu_cost_micro_usd`: the cost that was booked; `gpu_reported`: whether it comes from a stated GPU time.
    `refunded_minor`: money to be returned because units came back to a lot that was refunded meanwhile.
    """

    grant_id: str
    status: Status
    by_this_call: bool
    late: bool
    units_charged: int
    gpu_cost_micro_usd: int
    gpu_reported: bool
    at: datetime
    reason: str | None = None
    refunded_minor: int = 0


@dataclass(slots=True)
class Job:
    """A live grant inside `with comptroller.job(...)`: set what the end of the work will report.

    `gpu_seconds`: time on the GPU. `gpu`: its type, if another than the operation's. `delivered`: attributes of
    what was delivered, if less than asked for.
    """

    grant: Grant
    gpu_seconds: Decimal | float | None = None
    gpu: str | None = None
    delivered: Mapping[str, object] | None = None
    ending: Ending | None = field(default=None)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.grant, name)
