"""Bought and given units, in lots with a price and an expiry."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Literal

from policies.decision import Allocation, Reason
from policies.policy import Asked, Check, Source
from policies.state import History, LotView, State


class Credits(Source):
    """Units from the account's lots, in burn order. Using them is paid use."""

    kind: Literal["credits"] = "credits"

    exhausted: ClassVar[str] = Reason.CREDITS_EXHAUSTED
    paid: ClassVar[bool] = True

    def check(self, asked: Asked, state: State, now: datetime) -> Check:
        """Compare what the lots have available with what is asked."""
        available = sum(lot.available for lot in state.lots(now))
        return Check(used=0, limit=available, asked=asked.units, ok=asked.units <= available)

    def allocate(self, asked: Asked, state: State, now: datetime) -> tuple[Allocation, ...]:
        """Take the units from the lots in burn order."""
        return tuple(
            Allocation(self.label, units, lot.id, lot.price_of(units), lot.currency)
            for lot, units in slices(state.lots(now), asked.units)
        )

    def next_chance(self, asked: Asked, history: History, now: datetime) -> datetime | None:  # noqa: ARG002
        """Return when the next open grant may give units back."""
        return history.next_expiry(now)


def slices(lots: tuple[LotView, ...], units: int) -> list[tuple[LotView, int]]:
    """Divide `units` over the lots in their order; what they do not have is left out."""
    parts: list[tuple[LotView, int]] = []
    for lot in lots:
        taken = min(lot.available, units)
        if taken <= 0:
            break
        parts.append((lot, taken))
        units -= taken
    return parts
