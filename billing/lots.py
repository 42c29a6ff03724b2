"""Lots: the credits that one purchase or promotion gave, and the money in them. Pure arithmetic.

Every used unit names its lot, and every cent of a lot's price ends in revenue, breakage or a refund, whatever
the order of use, expiry and refund. For N units at price p, R(k) = p*k // N. Used cents after k units are R(k);
removed cents after x units left are p - R(N-x): slicing from both ends. Events post differences, so the sum
closes exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from billing import chart
from billing.transfer import Phase, Transfer


@dataclass(frozen=True, slots=True)
class Lot:
    """A lot as the books have it. Money is in minor units of `currency`.

    `used` units were delivered, `gone` ones expired or were revoked, `held` ones are set aside for open grants.
    """

    number: int
    origin: str
    reference: str
    pack: str | None
    units: int
    price_minor: int
    currency: str
    priority: int
    created_at: datetime
    expires_at: datetime | None
    used: int = 0
    gone: int = 0
    held: int = 0
    refunded: bool = False

    @property
    def available(self) -> int:
        """Units that can be granted: neither used, nor gone, nor held."""
        return self.units - self.used - self.gone - self.held

    @property
    def deferred_minor(self) -> int:
        """Money not yet earned, in minor units."""
        return self._earned(self.units - self.gone) - self._earned(self.used)

    def is_dead(self, now: datetime) -> bool:
        """Whether units that come back now cannot be used any more."""
        return self.refunded or (self.expires_at is not None and self.expires_at <= now)

    def use_minor(self, units: int, *, after: int = 0) -> int:
        """Return what is earned by using `units` more, in minor units, `after` others of the same record."""
        return self._earned(self.used + after + units) - self._earned(self.used + after)

    def remove_minor(self, units: int) -> int:
        """Return the money that leaves with `units` unused ones, in minor units."""
        left = self.units - self.gone
        return self._earned(left) - self._earned(left - units)

    def _earned(self, units: int) -> int:
        return self.price_minor * units // self.units


def issue(lot: Lot) -> list[Transfer]:
    """Return the transfers that bring a lot to life: its units, and the money paid for them."""
    units = Transfer(
        chart.ISSUED, chart.lot_units(lot.number), chart.CREDIT, lot.units, lot_no=lot.number
    )
    paid = _money(
        lot, chart.money(chart.CASH, lot.currency), chart.lot_deferred(lot.number), lot.price_minor
    )
    return [units, *paid]


def hold(lot_no: int, units: int, grant_no: int) -> Transfer:
    """Return the transfer that sets units of a lot aside for a grant."""
    return _units(lot_no, chart.CONSUMED, units, Phase.PENDING, grant_no)


def use(lot: Lot, units: int, grant_no: int) -> tuple[list[Transfer], int]:
    """Return the transfers by which held units are used up, and the revenue recognised, in minor units."""
    if not units:
        return [], 0
    revenue = lot.use_minor(units)
    posted = _units(lot.number, chart.CONSUMED, units, Phase.POST, grant_no)
    return [posted, *_earn(lot, revenue, grant_no)], revenue


def use_now(lot: Lot, units: int, grant_no: int) -> tuple[list[Transfer], int]:
    """Return the transfers that use available units at once, without a hold, and the revenue in minor units."""
    revenue = lot.use_minor(units)
    posted = _units(lot.number, chart.CONSUMED, units, Phase.SINGLE, grant_no)
    return [posted, *_earn(lot, revenue, grant_no)], revenue


def give_back(lot: Lot, units: int, grant_no: int) -> Transfer:
    """Return the transfer by which held units return to their lot."""
    return _units(lot.number, chart.CONSUMED, units, Phase.VOID, grant_no)


def expire(lot: Lot, units: int, grant_no: int | None = None) -> tuple[list[Transfer], int]:
    """Return the transfers by which unused units expire, and the breakage in minor units."""
    return _remove(lot, units, chart.EXPIRED, chart.money(chart.BREAKAGE, lot.currency), grant_no)


def revoke(lot: Lot, units: int, grant_no: int | None = None) -> tuple[list[Transfer], int]:
    """Return the transfers by which unused units go back to the buyer's money, and the refund in minor units."""
    return _remove(lot, units, chart.REVOKED, chart.money(chart.REFUNDED, lot.currency), grant_no)


def carry_over(lot: Lot, units: int, into: int, grant_no: int) -> tuple[list[Transfer], int]:
    """Return the transfers that move unused units to a new lot at the same price basis, and the money (minor units)."""
    amount = lot.remove_minor(units)
    moved = _units(lot.number, chart.lot_units(into), units, Phase.SINGLE, grant_no)
    return [
        moved,
        *_money(lot, chart.lot_deferred(lot.number), chart.lot_deferred(into), amount, grant_no),
    ], amount


def _remove(
    lot: Lot, units: int, to: str, money_to: str, grant_no: int | None
) -> tuple[list[Transfer], int]:
    if not units:
        return [], 0
    amount = lot.remove_minor(units)
    removed = _units(lot.number, to, units, Phase.SINGLE, grant_no)
    return [
        removed,
        *_money(lot, chart.lot_deferred(lot.number), money_to, amount, grant_no),
    ], amount


def _earn(lot: Lot, revenue_minor: int, grant_no: int) -> list[Transfer]:
    revenue = chart.money(chart.REVENUE, lot.currency)
    return _money(lot, chart.lot_deferred(lot.number), revenue, revenue_minor, grant_no)


def _units(lot_no: int, to: str, units: int, phase: Phase, grant_no: int | None) -> Transfer:
    return Transfer(chart.lot_units(lot_no), to, chart.CREDIT, units, phase, grant_no, lot_no)


def _money(
    lot: Lot, debit: str, credit: str, amount: int, grant_no: int | None = None
) -> list[Transfer]:
    # A slice of less than a cent moves no money: the next one makes up for it.
    if not amount:
        return []
    return [Transfer(debit, credit, lot.currency, amount, Phase.SINGLE, grant_no, lot.number)]
