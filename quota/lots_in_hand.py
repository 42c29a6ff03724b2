"""The lots of a book within one transaction, each as the drafts so far have left it."""

from __future__ import annotations

from collections.abc import Iterable

from billing.lots import Lot, moved
from billing.sql import Db
from billing.transfer import Transfer, lot_deltas
from policies.units import div_ceil
from quota.lot_rows import load_lot


class LotsInHand:
    """The lots of a book within one transaction, each as the drafts so far have left it."""

    def __init__(self, db: Db | None, book_id: int, lots: Iterable[Lot] = ()) -> None:
        self._db, self._book_id = db, book_id
        self._lots = {lot.number: lot for lot in lots}

    def get(self, number: int) -> Lot:
        """Return a lot, loading it where it is not in hand."""
        if number not in self._lots:
            lot = None if self._db is None else load_lot(self._db, self._book_id, number)
            if lot is None:
                raise LookupError(f"lot {number} is not in the book")
            self._lots[number] = lot
        return self._lots[number]

    def all(self) -> list[Lot]:
        """Return the lots in hand."""
        return list(self._lots.values())

    def add(self, lot: Lot) -> None:
        """Take a new lot in hand."""
        self._lots[lot.number] = lot

    def apply(self, transfers: Iterable[Transfer]) -> None:
        """Bring the lots up to what these transfers leave."""
        for number, delta in lot_deltas(transfers).items():
            self._lots[number] = moved(self.get(number), delta)


def lot_price(lot: Lot, units: int) -> int:
    """Return what units of a lot cost its buyer, in minor units, rounded up."""
    return div_ceil(lot.price_minor * units, lot.units)
