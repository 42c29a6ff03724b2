"""Credits that come and go outside of grants: bought, given, refunded. Pure drafts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from billing import lots as lot_rules
from billing.book import canonical
from billing.draft import Draft, Line
from billing.lots import Lot

PURCHASE: Final = "purchase"
REFUND: Final = "refund"


@dataclass(frozen=True, slots=True)
class Refund:
    """What a refund takes back: `units` that were unused, and `amount_minor` to return, in minor units of `currency`.

    Units held by open grants are not part of it: each is refunded when its grant gives it back.
    """

    lot_id: str
    reference: str
    units: int
    amount_minor: int
    currency: str
    by_this_call: bool


def draft_issue(lot: Lot, kind: str, at: datetime) -> Draft:
    """Draft the record that brings a lot to life: a purchase, or credits that were given."""
    line = Line(
        lot_no=lot.number, lot_units=lot.units, currency=lot.currency, sold_minor=lot.price_minor
    )
    facts = {"lot": lot.number, "origin": lot.origin, "reference": lot.reference, "pack": lot.pack}
    return Draft(
        kind,
        at,
        facts,
        # Origins are the host's own words: spelt so that none can be taken for another record's key.
        once="lot:" + canonical([lot.origin, lot.reference]).decode(),
        transfers=tuple(lot_rules.issue(lot)),
        lines=(line,),
        new_lots=(lot,),
    )


def draft_refund(lot: Lot, reference: str, at: datetime) -> tuple[Draft, int, int]:
    """Draft the refund of a lot's available units. Returns the draft, the units and the amount in minor units."""
    units = lot.available
    transfers, amount = lot_rules.revoke(lot, units)
    line = Line(lot_no=lot.number, lot_units=-units, currency=lot.currency, refunded_minor=amount)
    facts = {"lot": lot.number, "reference": reference, "units": units, "refunded_minor": amount}
    draft = Draft(
        REFUND,
        at,
        facts,
        once=f"refund:{lot.number}",
        transfers=tuple(transfers),
        lines=(line,),
        closes_lot=lot.number,
    )
    return replace(draft, refunds_lot=True), units, amount
