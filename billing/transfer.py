"""Transfers: one debit account, one credit account, one asset, a positive integer. Balance is structural.

A pending transfer sets units of a lot aside; posting uses them up, voiding gives them back. What transfers do to a
lot's balance row is derived from them here, for the poster that writes it and for the checker that re-derives it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

from billing.chart import CONSUMED, REFUNDED, REVOKED

_REFUNDED: Final = f"{REFUNDED}:"


class Phase(IntEnum):
    """How a transfer moves: at once, or in two steps."""

    SINGLE = 0
    PENDING = 1
    POST = 2
    VOID = 3


class Transfer(NamedTuple):
    """One movement of `amount` of `asset`, from the debit account to the credit account.

    `grant_no` names the grant that it belongs to, `lot_no` the lot whose units or money move.
    """

    debit: str
    credit: str
    asset: str
    amount: int
    phase: Phase = Phase.SINGLE
    grant_no: int | None = None
    lot_no: int | None = None


@dataclass(slots=True)
class LotDelta:
    """What transfers change in one lot's balance: units in, used, gone (expired, revoked), held; money in, out.

    Of the units gone, and of the money out, some were revoked: a refund that fails gives them back. Of the units held
    some are suspended: they belong to no grant, but to a dispute.
    """

    units_in: int = 0
    units_used: int = 0
    units_gone: int = 0
    units_held: int = 0
    units_revoked: int = 0
    units_suspended: int = 0
    money_in_minor: int = 0
    money_out_minor: int = 0
    money_revoked_minor: int = 0


def lot_deltas(transfers: Iterable[Transfer]) -> dict[int, LotDelta]:
    """Return what these transfers change, by lot number."""
    deltas: dict[int, LotDelta] = {}
    for transfer in transfers:
        kind, _, number = transfer.debit.partition(":")
        if kind == "lot":
            _debit_units(deltas.setdefault(int(number), LotDelta()), transfer)
        elif kind == "deferred":
            _debit_money(deltas.setdefault(int(number), LotDelta()), transfer)
        kind, _, number = transfer.credit.partition(":")
        if kind == "lot":
            _credit_units(deltas.setdefault(int(number), LotDelta()), transfer)
        elif kind == "deferred":
            _credit_money(deltas.setdefault(int(number), LotDelta()), transfer)
    return deltas


def _debit_units(delta: LotDelta, transfer: Transfer) -> None:
    amount, revoked = transfer.amount, transfer.credit == REVOKED
    if transfer.phase is not Phase.SINGLE:
        held = amount if transfer.phase is Phase.PENDING else -amount
        delta.units_held += held
        if revoked:  # a dispute sets units aside towards being revoked, a grant towards being used
            delta.units_suspended += held
        if transfer.phase is not Phase.POST:
            return
    if transfer.credit == CONSUMED:
        delta.units_used += amount
        return
    delta.units_gone += amount
    if revoked:
        delta.units_revoked += amount


def _credit_units(delta: LotDelta, transfer: Transfer) -> None:
    if transfer.debit == REVOKED:
        delta.units_gone -= transfer.amount
        delta.units_revoked -= transfer.amount
    else:
        delta.units_in += transfer.amount


def _debit_money(delta: LotDelta, transfer: Transfer) -> None:
    delta.money_out_minor += transfer.amount
    if transfer.credit.startswith(_REFUNDED):
        delta.money_revoked_minor += transfer.amount


def _credit_money(delta: LotDelta, transfer: Transfer) -> None:
    if transfer.debit.startswith(_REFUNDED):
        delta.money_out_minor -= transfer.amount
        delta.money_revoked_minor -= transfer.amount
    else:
        delta.money_in_minor += transfer.amount
