"""What policies read, and the state that answers.

A policy declares its reads; a store answers each with one whole number. `Readings` holds such answers for one
instant: it is what a grant's record keeps, and what `explain` decides again from. `History` holds the rows behind
them and can answer for any later instant too: it finds out when waiting helps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, NamedTuple, Protocol

from policies.units import div_ceil
from policies.window import LONG_AGO, Window

Measure = Literal["units", "spend"]


@dataclass(frozen=True, slots=True)
class UsageRead:
    """Units (or the minor money they cost) not returned, taken from `sources` within a window.

    No sources: all of them. A member: only what that member took. A currency: only money in it.
    """

    sources: tuple[str, ...]
    window: Window
    member: str | None = None
    measure: Measure = "units"
    currency: str | None = None
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # A read is a key of every state that is asked: its hash is worked out once.
        key = (self.sources, self.window, self.member, self.measure, self.currency)
        object.__setattr__(self, "_hash", hash(key))

    def __hash__(self) -> int:
        return self._hash


class OpenRead(NamedTuple):
    """Live grants of the account, or of one member."""

    member: str | None = None


class RateRead(NamedTuple):
    """The theoretical arrival time of a rate limit, in microseconds times `scale`: an exact integer."""

    policy: str
    scale: int
    member: str | None = None


@dataclass(frozen=True, slots=True)
class BudgetRead:
    """Micro-dollars that a budget has spent on the local day that holds now."""

    budget: str
    window: Window


Read = UsageRead | OpenRead | RateRead | BudgetRead


@dataclass(frozen=True, slots=True)
class LotView:
    """A lot as the waterfall sees it: what it held when bought, and what is available now."""

    id: str
    units: int
    price_minor: int
    currency: str
    available: int
    priority: int
    expires_at: datetime | None
    created_at: datetime
    number: int

    def price_of(self, units: int) -> int:
        """Return what `units` of this lot cost, in minor units of its currency, rounded up."""
        return div_ceil(self.price_minor * units, self.units)


def burn_order(lot: LotView) -> tuple[int, bool, datetime, bool, datetime, int]:
    """Sort key of the order in which lots are used.

    Priority, then expiry (never-expiring last), then free before paid, then age, then number.
    """
    never = lot.expires_at is None
    return (
        lot.priority,
        never,
        lot.expires_at or LONG_AGO,
        lot.price_minor > 0,
        lot.created_at,
        lot.number,
    )


class State(Protocol):
    """What a decision may read."""

    def read(self, read: Read, now: datetime) -> int:
        """Return the number that this read asks for, as of `now`."""

    def lots(self, now: datetime) -> tuple[LotView, ...]:
        """Return the lots that are alive and have units available, in burn order."""


@dataclass(frozen=True, slots=True)
class Readings:
    """The numbers of one instant. A read that was not loaded is a mistake of the policy that declared its reads.

    `steady_until`: before it the same numbers would be read, if nothing else happens.
    """

    numbers: Mapping[Read, int]
    open_lots: tuple[LotView, ...] = ()
    steady_until: datetime = LONG_AGO

    def read(self, read: Read, now: datetime) -> int:  # noqa: ARG002 - of one instant
        """Return the number that was loaded for this read."""
        try:
            return self.numbers[read]
        except KeyError:
            raise LookupError(f"the policy did not declare that it reads {read}") from None

    def lots(self, now: datetime) -> tuple[LotView, ...]:  # noqa: ARG002 - of one instant
        """Return the lots that were loaded, in burn order."""
        return self.open_lots


@dataclass(frozen=True, slots=True)
class Use:
    """Units that a grant took from a source and did not give back, dated to the grant.

    `returns_at`: while the grant is open and its expiry would give the units back, the instant at which it does.
    """

    source: str
    at: datetime
    units: int
    member: str | None = None
    spend_minor: int = 0
    currency: str | None = None
    lot_id: str | None = None
    returns_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class OpenGrant:
    """A grant that has not ended, live until it expires."""

    expires_at: datetime
    member: str | None = None


@dataclass(frozen=True, slots=True)
class History:
    """The rows behind the numbers. Answers for `now` and for any later instant, if nothing else happens until then."""

    uses: tuple[Use, ...] = ()
    grants: tuple[OpenGrant, ...] = ()
    all_lots: tuple[LotView, ...] = ()
    rates: Mapping[tuple[str, str | None], tuple[int, int]] = field(default_factory=dict)
    budgets: Mapping[tuple[str, datetime], int] = field(default_factory=dict)

    def read(self, read: Read, now: datetime) -> int:
        """Return the number that this read asks for, as of `now`."""
        match read:
            case UsageRead():
                return sum(amount for _, amount in self._counted(read, now))
            case OpenRead(member=member):
                return sum(
                    1
                    for grant in self.grants
                    if now < grant.expires_at and _of(member, grant.member)
                )
            case RateRead():
                tat, scale = self.rates.get((read.policy, read.member), (0, 1))
                return rescaled(tat, scale, read.scale)
            case BudgetRead():
                return self.budgets.get((read.budget, read.window.bounds(now)[0]), 0)

    def lots(self, now: datetime) -> tuple[LotView, ...]:
        """Return the lots alive at `now`, with what expired grants gave back, in burn order."""
        alive = (lot for lot in self.all_lots if lot.expires_at is None or now < lot.expires_at)
        views = (self._with_returned(lot, now) for lot in alive)
        return tuple(sorted((lot for lot in views if lot.available > 0), key=burn_order))

    def falls_to(self, read: UsageRead, target: int, now: datetime) -> datetime | None:
        """Return the first instant after `now` at which usage is at most `target`; None: never by waiting."""
        if target < 0:
            return None
        counted = sorted(self._counted(read, now), key=lambda use: self._leaves(read, use[0], now))
        left = sum(amount for _, amount in counted)
        for use, amount in counted:
            left -= amount
            if left <= target:
                return self._leaves(read, use, now)
        return None

    def leaving(self, read: UsageRead, now: datetime) -> list[datetime]:
        """Return the instants after `now` at which units that count stop counting, in order."""
        return sorted({self._leaves(read, use, now) for use, _ in self._counted(read, now)})

    def next_return(self, read: UsageRead, now: datetime) -> datetime | None:
        """Return the first instant after `now` at which any unit that counts stops counting."""
        return min(
            (self._leaves(read, use, now) for use, _ in self._counted(read, now)), default=None
        )

    def next_lot_expiry(self, now: datetime) -> datetime | None:
        """Return the first instant after `now` at which a lot expires, and others are used in its place."""
        expiries = (lot.expires_at for lot in self.all_lots if lot.expires_at is not None)
        return min((instant for instant in expiries if instant > now), default=None)

    def next_expiry(self, now: datetime, member: str | None = None) -> datetime | None:
        """Return the first instant after `now` at which an open grant expires."""
        live = (grant.expires_at for grant in self.grants if _of(member, grant.member))
        return min((instant for instant in live if instant > now), default=None)

    def _counted(self, read: UsageRead, now: datetime) -> Iterator[tuple[Use, int]]:
        for use in self.uses:
            returned = use.returns_at is not None and use.returns_at <= now
            named = not read.sources or use.source in read.sources
            if (
                returned
                or not named
                or not _of(read.member, use.member)
                or not read.window.counts(use.at, now)
            ):
                continue
            if read.measure == "units":
                yield use, use.units
            elif use.currency == read.currency:
                yield use, use.spend_minor

    @staticmethod
    def _leaves(read: UsageRead, use: Use, now: datetime) -> datetime:
        leaves = read.window.leaves(use.at, now)
        return leaves if use.returns_at is None else min(leaves, use.returns_at)

    def _with_returned(self, lot: LotView, now: datetime) -> LotView:
        returned = sum(
            use.units
            for use in self.uses
            if use.lot_id == lot.id and use.returns_at is not None and use.returns_at <= now
        )
        if not returned:
            return lot
        values = {name: getattr(lot, name) for name in LotView.__slots__}
        return LotView(**{**values, "available": lot.available + returned})


def rescaled(tat: int, scale: int, to_scale: int) -> int:
    """Express a theoretical arrival time at another scale, rounded up: a changed limit never forgives a request."""
    return tat if scale == to_scale else div_ceil(tat * to_scale, scale)


def _of(asked: str | None, member: str | None) -> bool:
    return asked is None or asked == (member or "")
