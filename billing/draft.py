"""What a record will say, before it is posted: pure values, drafted by rules and written by `billing.posting`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from billing.lots import Lot
from billing.transfer import Transfer


@dataclass(frozen=True, slots=True)
class Line:
    """One line of an account's statement: units taken from (+) or given back to (-) a source, and what that was worth.

    `counts_at`: the instant to which the units are dated in windows: that of the original grant, also for a return.
    Money is in minor units of `currency`; GPU cost in micro-dollars. `lot_units`: change of the lot's available units.
    `refunded_minor`: unearned money of units that were revoked (below zero: restored); `returned_minor`: what buyers
    got back through Stripe, net of tax (below zero: a refund that failed); `fee_minor`: Stripe's fees.
    """

    source: str = ""
    lot_no: int | None = None
    units: int = 0
    lot_units: int = 0
    counts_at: datetime | None = None
    spend_minor: int = 0
    currency: str | None = None
    sold_minor: int = 0
    revenue_minor: int = 0
    breakage_minor: int = 0
    refunded_minor: int = 0
    returned_minor: int = 0
    fee_minor: int = 0
    gpu_estimated_micro_usd: int = 0
    gpu_micro_usd: int = 0
    gpu_unreported_micro_usd: int = 0


class LotMark(NamedTuple):
    """What a payment has come to for the lot that it bought: see `billing.lots.Lot`."""

    lot_no: int
    returned_minor: int
    charged_back_minor: int
    disputed: bool


@dataclass(frozen=True, slots=True)
class Draft:
    """One record to be: its kind, its own instant, what it says, and what it moves.

    `once`: a key that no other record of the book may have; None for records that may repeat. `opens_payments_in`: the
    currency of a payment, whose accounts the book must have.
    """

    kind: str
    at: datetime
    facts: Mapping[str, Any]
    once: str | None = None
    grant_no: int | None = None
    plan: str = ""
    operation: str = ""
    member: str = ""
    transfers: tuple[Transfer, ...] = ()
    lines: tuple[Line, ...] = ()
    new_lots: tuple[Lot, ...] = ()
    closes_lot: int | None = None
    refunds_lot: bool = field(default=False)
    mark: LotMark | None = None
    opens_payments_in: str | None = None
