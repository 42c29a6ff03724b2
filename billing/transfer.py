"""Transfers: one debit account, one credit account, one asset, a positive integer. Balance is structural.

A pending transfer sets units of a lot aside; posting uses them up, voiding gives them back. What transfers do to a
lot's balance row is derived from them here, for the poster that writes it and for the checker that re-derives it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from billing.chart import CONSUMED


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
    """What transfers change in one lot's balance: units in, used, gone (expired, revoked), held; money in, out."""

    units_in: int = 0
    units_used: int = 0
    units_gone: int = 0
    units_held: int = 0
    money_in_minor: int = 0
    money_out_minor: int = 0


def lot_deltas(transfers: Iterable[Transfer]) -> dict[int, LotDelta]:
    """Return what these transfers change, by lot number."""
    deltas: dict[int, LotDelta] = {}
    for transfer in transfers:
        kind, _, number = transfer.debit.partition(":")
        if kind == "lot":
            _debit_units(deltas.setdefault(int(number), LotDelta()), transfer)
        elif kind == "deferred":
            deltas.setdefault(int(number), LotDelta()).money_out_minor += transfer.amount
        kind, _, number = transfer.credit.partition(":")
        if kind == "lot":
            deltas.setdefault(int(number), LotDelta()).units_in += transfer.amount
        elif kind == "deferred":
            deltas.setdefault(int(number), LotDelta()).money_in_minor += transfer.amount
    return deltas


def _debit_units(delta: LotDelta, transfer: Transfer) -> None:
    if transfer.phase is Phase.PENDING:
        delta.units_held += transfer.amount
        return
    if transfer.phase in (Phase.POST, Phase.VOID):
        delta.units_held -= transfer.amount
    if transfer.phase is Phase.VOID:
        return
    if transfer.credit == CONSUMED:
        delta.units_used += transfer.amount
    else:
        delta.units_gone += transfer.amount
