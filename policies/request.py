"""What is asked for, and the circumstances of the account that asks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from policies.window import Zones

AttributeValue = str | int | bool | Decimal
PaidUse = Literal["auto", "ask", "never"]
CapPeriod = Literal["day", "week", "month"]


@dataclass(frozen=True, slots=True)
class Request:
    """One request, its attributes normalised: defaults filled in, values of their declared types.

    `consent`: whether credits may be used where the account asks first, or at most how many units of them.
    """

    operation: str
    attributes: Mapping[str, AttributeValue]
    member: str | None = None
    consent: bool | int = False


@dataclass(frozen=True, slots=True)
class SpendCap:
    """The most that an account lets be spent per calendar `per` (`day`, `week`, `month`), in minor units."""

    minor: int
    per: CapPeriod


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What the books know of the account, apart from its usage."""

    plan: str
    zones: Zones = Zones()
    paid_use: PaidUse | None = None
    spend_cap: SpendCap | None = None
    frozen: bool = False
