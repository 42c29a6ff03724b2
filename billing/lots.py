"""Lots: the credits that one purchase or promotion gave, and the money in them. Pure arithmetic.

Every used unit names its lot, and every cent of a lot's price ends in revenue, breakage or a refund, whatever
the order of use, expiry and refund. For N units at price p, R(k) = p*k // N. Used cents after k units are R(k);
removed cents after x units left are p - R(N-x): slicing from both ends. Events post differences, so the sum
closes exactly.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from billing import chart
from billing.transfer import LotDelta, Phase, Transfer, lot_deltas


@dataclass(frozen=True, slots=True)
class Lot:
    """A lot as the books have it. Money is in minor units of `currency`.

    `used` units were delivered, `gone` ones expired or were revoked, `held` ones are set aside: for open grants, or
    `suspended` while its payment is disputed. `revoked` units, with `revoked_minor` of the money, are those gone that
    were taken back.

    `returned_minor`: what the buyer has got back of its price; of that `charged_back_minor` by disputes that were
    lost. The units that this money had bought are `claimed`.
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
    revoked: int = 0
    revoked_minor: int = 0
    suspended: int = 0
    returned_minor: int = 0
    charged_back_minor: int = 0
    disputed: bool = False

    @property
    def available(self) -> int:
        """Units that can be granted: neither used, nor gone, nor held."""
        return self.units - self.used - self.gone - self.held

    @property
    def takes_back(self) -> bool:
        """Whether units that come back to it can be used again. Those of a refunded lot are refunded too."""
        return not self.refunded and not self.disputed

    @property
    def claimed(self) -> int:
        """Units whose money went back. No part of one: rounded down, in the buyer's favour."""
        if not self.price_minor:
            return 0
        return min(self.units, self.returned_minor * self.units // self.price_minor)

    @property
    def owed(self) -> int:
        """Units that are still to be revoked: they were held, or used, when their money went back."""
        return max(0, self.claimed - self.revoked)

    @property
    def chargeback_loss_minor(self) -> int:
        """What lost disputes took beyond the money of units that could be revoked, in minor units."""
        return max(0, min(self.charged_back_minor, self.returned_minor - self.revoked_minor))

    @property
    def deferred_minor(self) -> int:
        """Money not yet earned, in minor units."""
        return self._earned(self.units - self.gone) - self._earned(self.used)

    def has_expired(self, now: datetime) -> bool:
        """Whether units that come back now come too late."""
        return self.expires_at is not None and self.expires_at <= now

    def use_minor(self, units: int, *, after: int = 0) -> int:
        """Return what is earned by using `units` more, in minor units, `after` others of the same record."""
        return self._earned(self.used + after + units) - self._earned(self.used + after)

    def remove_minor(self, units: int) -> int:
        """Return the money that leaves with `units` unused ones, in minor units."""
        left = self.units - self.gone
        return self._earned(left) - self._earned(left - units)

    def restore_minor(self, units: int) -> int:
        """Return the money that comes back with `units` that had been revoked, in minor units."""
        left = self.units - self.gone
        return self._earned(left + units) - self._earned(left)

    def _earned(self, units: int) -> int:
        return self.price_minor * units // self.units


def issue(lot: Lot, paid_to: str = chart.CASH) -> list[Transfer]:
    """Return the transfers that bring a lot to life: its units, and the money that was paid for them to `paid_to`."""
    units = Transfer(
        chart.ISSUED, chart.lot_units(lot.number), chart.CREDIT, lot.units, lot_no=lot.number
    )
    paid = _money(
        lot, chart.money(paid_to, lot.currency), chart.lot_deferred(lot.number), lot.price_minor
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


def restore(lot: Lot, units: int) -> tuple[list[Transfer], int]:
    """Return the transfers by which revoked units come back, and the money that comes with them, in minor units."""
    if not units:
        return [], 0
    amount = lot.restore_minor(units)
    back = Transfer(
        chart.REVOKED, chart.lot_units(lot.number), chart.CREDIT, units, lot_no=lot.number
    )
    refunded = chart.money(chart.REFUNDED, lot.currency)
    return [back, *_money(lot, refunded, chart.lot_deferred(lot.number), amount)], amount


def suspend(lot: Lot, units: int) -> list[Transfer]:
    """Return the transfer that sets available units aside for as long as their payment is disputed."""
    return _suspension(lot, units, Phase.PENDING)


def resume(lot: Lot, units: int) -> list[Transfer]:
    """Return the transfer by which suspended units become available again."""
    return _suspension(lot, units, Phase.VOID)


def _suspension(lot: Lot, units: int, phase: Phase) -> list[Transfer]:
    return [_units(lot.number, chart.REVOKED, units, phase)] if units else []


def chargeback(before: Lot, after: Lot) -> list[Transfer]:
    """Return the transfer that keeps the loss by disputes what it is, when money or units of a lot went back."""
    more = after.chargeback_loss_minor - before.chargeback_loss_minor
    loss, returned = (
        chart.money(name, after.currency) for name in (chart.CHARGEBACK_LOSS, chart.RETURNED)
    )
    debit, credit = (loss, returned) if more > 0 else (returned, loss)
    return _money(after, debit, credit, abs(more))


def moved(lot: Lot, delta: LotDelta) -> Lot:
    """Return a lot as transfers leave it."""
    return replace(
        lot,
        used=lot.used + delta.units_used,
        gone=lot.gone + delta.units_gone,
        held=lot.held + delta.units_held,
        revoked=lot.revoked + delta.units_revoked,
        revoked_minor=lot.revoked_minor + delta.money_revoked_minor,
        suspended=lot.suspended + delta.units_suspended,
    )


def after(lot: Lot, transfers: Iterable[Transfer]) -> Lot:
    """Return a lot as these transfers leave it."""
    delta = lot_deltas(transfers).get(lot.number)
    return lot if delta is None else moved(lot, delta)


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


def _units(lot_no: int, to: str, units: int, phase: Phase, grant_no: int | None = None) -> Transfer:
    return Transfer(chart.lot_units(lot_no), to, chart.CREDIT, units, phase, grant_no, lot_no)


def _money(
    lot: Lot, debit: str, credit: str, amount: int, grant_no: int | None = None
) -> list[Transfer]:
    # A slice of less than a cent moves no money: the next one makes up for it.
    if not amount:
        return []
    return [Transfer(debit, credit, lot.currency, amount, Phase.SINGLE, grant_no, lot.number)]
