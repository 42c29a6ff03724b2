"""What a period did to credits, money and GPU cost: once from lines, once from transfers. Pure.

Statements and reports are made of lines, the ledger moves by transfers. Both tell of the same
events, so their sums must be equal to the unit, the cent and the micro-dollar: that is the check
which every statement and report carries.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from billing import chart
from billing.draft import Line
from billing.transfer import Phase, Transfer

MONEY_FIELDS: Final = (
    *("sold_minor", "revenue_minor", "breakage_minor"),
    *("refunded_minor", "returned_minor", "fee_minor"),
)


@dataclass(frozen=True, slots=True)
class Check:
    """Whether something agrees with the books: `problems` says in one line each what does not."""

    problems: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether everything agrees."""
        return not self.problems


@dataclass(slots=True)
class Sums:
    """Changes of available credits in units, of GPU cost in micro-dollars, of money.

    Money is in minor units, by currency.
    """

    credits: int = 0
    gpu_micro_usd: int = 0
    sold_minor: Counter[str] = field(default_factory=Counter)
    revenue_minor: Counter[str] = field(default_factory=Counter)
    breakage_minor: Counter[str] = field(default_factory=Counter)
    refunded_minor: Counter[str] = field(default_factory=Counter)
    returned_minor: Counter[str] = field(default_factory=Counter)
    fee_minor: Counter[str] = field(default_factory=Counter)

    def add_line(self, line: Line) -> None:
        """Add what a line says."""
        self.credits += line.lot_units
        self.gpu_micro_usd += line.gpu_micro_usd + line.gpu_unreported_micro_usd
        for name in MONEY_FIELDS:
            amount = getattr(line, name)
            if amount:
                getattr(self, name)[line.currency or ""] += amount

    def add_transfer(self, transfer: Transfer) -> None:
        """Add what a transfer moves."""
        self._move(transfer.debit, transfer.asset, transfer.amount, transfer.phase, debit=True)
        self._move(transfer.credit, transfer.asset, transfer.amount, transfer.phase, debit=False)

    def add_moved(
        self, account: str, asset: str, amount: int, phase: Phase, *, debit: bool
    ) -> None:
        """Add what was debited to, or credited to, one ledger account, in units of its asset."""
        self._move(account, asset, amount, phase, debit=debit)

    def add(self, other: Sums) -> None:
        """Add other changes to these."""
        self.credits += other.credits
        self.gpu_micro_usd += other.gpu_micro_usd
        for name in MONEY_FIELDS:
            getattr(self, name).update(getattr(other, name))

    @property
    def currencies(self) -> list[str]:
        """The currencies in which money moved, in order."""
        return sorted({currency for name in MONEY_FIELDS for currency in getattr(self, name)})

    def deferred_minor(self, currency: str) -> int:
        """Return by how much unearned money grew, in minor units."""
        out = (self.revenue_minor, self.breakage_minor, self.refunded_minor)
        return self.sold_minor[currency] - sum(amounts[currency] for amounts in out)

    def _move(self, account: str, asset: str, amount: int, phase: Phase, *, debit: bool) -> None:
        kind, _, currency = account.partition(":")
        if asset == chart.GPU:
            if kind != chart.GPU_ACCRUED:
                self.gpu_micro_usd += amount if debit else -amount
        elif asset == chart.CREDIT:
            self._move_units(kind, amount, phase, debit=debit)
        elif debit and kind == chart.CASH:
            self.sold_minor[currency] += amount
        elif not debit and kind in _EARNED:
            getattr(self, _EARNED[kind])[currency] += amount
        elif kind in _SPENT:
            getattr(self, _SPENT[kind])[currency] += amount if debit else -amount
        elif debit and kind in _TAKEN_BACK:
            getattr(self, _TAKEN_BACK[kind])[currency] -= amount

    def _move_units(self, kind: str, amount: int, phase: Phase, *, debit: bool) -> None:
        if kind != "lot":
            return
        if not debit or phase is Phase.VOID:
            self.credits += amount
        elif phase is not Phase.POST:  # what is posted was set aside before
            self.credits -= amount


_EARNED: Final = {
    chart.REVENUE: "revenue_minor",
    chart.BREAKAGE: "breakage_minor",
    chart.REFUNDED: "refunded_minor",
}
_TAKEN_BACK: Final = {
    chart.REVENUE: "revenue_minor",  # a change of plan credits time that was earned already
    chart.REFUNDED: "refunded_minor",  # a refund failed, and its units were restored
}
_SPENT: Final = {
    chart.RETURNED: "returned_minor",
    chart.CHARGEBACK_LOSS: "returned_minor",
    chart.FEES: "fee_minor",
}


def sums_of(lines: Iterable[Line]) -> Sums:
    """Return what lines add up to."""
    sums = Sums()
    for line in lines:
        sums.add_line(line)
    return sums


def differences(lines: Sums, ledger: Sums, when: str) -> list[str]:
    """Say where lines and ledger disagree, one line each; empty where they agree."""
    found = []
    if lines.credits != ledger.credits:
        found.append(
            f"{when}: credits changed by {lines.credits} units, the ledger says {ledger.credits}"
        )
    if lines.gpu_micro_usd != ledger.gpu_micro_usd:
        found.append(
            f"{when}: GPU cost is {lines.gpu_micro_usd} micro-USD, "
            f"the ledger says {ledger.gpu_micro_usd}"
        )
    for name in MONEY_FIELDS:
        ours, theirs = getattr(lines, name), getattr(ledger, name)
        found.extend(
            f"{when}: {name.removesuffix('_minor')} is {ours[currency]} {currency} (minor units), "
            f"the ledger says {theirs[currency]}"
            for currency in sorted({*ours, *theirs})
            if ours[currency] != theirs[currency]
        )
    return found
