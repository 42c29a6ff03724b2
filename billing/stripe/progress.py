"""What a reconciliation asks of the database: how far the last one came, and purchases a page at a time."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import bindparam, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from billing.book import canonical
from billing.sql import Db, Statement
from billing.stripe.purchases import Sale, load_sale
from billing.stripe.reconcile import Reconciliation
from billing.stripe.tables import PURCHASES, STRIPE_CUSTOMERS, STRIPE_EVENTS, STRIPE_PROGRESS

PAGE: Final = 500

_PURCHASE: Final[Any] = PURCHASES
_EVENT: Final[Any] = STRIPE_EVENTS
_FIND: Final = Statement(
    select(*STRIPE_PROGRESS.c).where(STRIPE_PROGRESS.c.mode == bindparam("of_mode"))
)
_FORGET: Final = Statement(
    delete(STRIPE_PROGRESS).where(STRIPE_PROGRESS.c.mode == bindparam("of_mode"))
)
_ROW: Final[dict[str, Any]] = {name: bindparam(name) for name in map(str, STRIPE_PROGRESS.c.keys())}
_IN_FILE: Final = sqlite.insert(STRIPE_PROGRESS).values(_ROW)
_IN_SERVER: Final = postgresql.insert(STRIPE_PROGRESS).values(_ROW)
_NEW: Final = ("saved_at", "place", "after", "found")
_KEEP: Final = Statement(
    _IN_FILE.on_conflict_do_update(
        index_elements=["mode"], set_={name: _IN_FILE.excluded[name] for name in _NEW}
    ),
    postgresql=_IN_SERVER.on_conflict_do_update(
        index_elements=["mode"], set_={name: _IN_SERVER.excluded[name] for name in _NEW}
    ),
    merges=True,
)
_IS_CUSTOMER: Final = Statement(
    select(STRIPE_CUSTOMERS.c.book_id).where(
        STRIPE_CUSTOMERS.c.customer_id == bindparam("customer_id")
    )
)
_PURCHASES_SINCE: Final = Statement(
    select(_PURCHASE.c.id)
    .where(_PURCHASE.c.created_at >= bindparam("since"), _PURCHASE.c.id > bindparam("after"))
    .order_by(_PURCHASE.c.id)
    .limit(bindparam("most"))
)
_QUARANTINED: Final = Statement(
    select(_PURCHASE.c.id)
    .where(_PURCHASE.c.problem.is_not(None), _PURCHASE.c.id > bindparam("after"))
    .order_by(_PURCHASE.c.id)
    .limit(bindparam("most"))
)
_FAILED: Final = Statement(
    select(_EVENT.c.id, _EVENT.c.type, _EVENT.c.status, _EVENT.c.effect)
    .where(
        (_EVENT.c.status == bindparam("failed"))
        | ((_EVENT.c.status == bindparam("received")) & (_EVENT.c.received_at < bindparam("until")))
    )
    .order_by(_EVENT.c.received_at, _EVENT.c.id)
    .limit(bindparam("most"))
)


@dataclass(slots=True)
class Walk:
    """A walk through Stripe's lists: at which of them it is, after which object, and what was found so far.

    `older`: purchases from before it of which something was seen. `failed`: payouts that came back, in words, by id;
    `recovered`: those of them that a later payout has brought after all.
    """

    found: Reconciliation
    place: int = 0
    after: str | None = None
    older: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    recovered: set[str] = field(default_factory=set)

    def text(self) -> str:
        """Return what was found so far, as it is stored."""
        values = {"older": sorted(self.older), "failed": self.failed}
        values |= {"recovered": sorted(self.recovered), "found": self.found.values()}
        return canonical(values).decode()

    @classmethod
    def of(cls, place: int, after: str | None, text: str) -> Walk:
        """Return the walk that was stored."""
        values = json.loads(text)
        sets = set(values["older"]), values["failed"], set(values["recovered"])
        return cls(Reconciliation.of(values["found"]), place, after, *sets)


def load_walk(db: Db, mode: str, not_before: datetime) -> Walk | None:
    """Load an interrupted walk, unless it is too old to go on with."""
    row = db.row(_FIND, of_mode=mode)
    if row is None:
        return None
    saved: dict[str, Any] = dict(zip((each.name for each in STRIPE_PROGRESS.c), row, strict=True))
    if saved["saved_at"] < not_before:
        return None
    return Walk.of(int(saved["place"]), saved["after"], str(saved["found"]))


def save_walk(db: Db, mode: str, walk: Walk, now: datetime) -> None:
    """Remember how far a walk has come."""
    db.run(_KEEP, mode=mode, saved_at=now, place=walk.place, after=walk.after, found=walk.text())


def forget_walk(db: Db, mode: str) -> None:
    """A walk is over: the next one begins anew."""
    db.run(_FORGET, of_mode=mode)


def is_customer(db: Db, customer: str) -> bool:
    """Whether somebody at Stripe is a buyer of ours."""
    return db.row(_IS_CUSTOMER, customer_id=customer) is not None


def purchases_since(db: Db, after: str, since: datetime) -> list[Sale]:
    """Load purchases that were offered since an instant, in order of their ids, after one."""
    rows = db.rows(_PURCHASES_SINCE, since=since, after=after, most=PAGE)
    return _loaded(db, [str(row[0]) for row in rows])


def quarantined(db: Db, after: str) -> list[Sale]:
    """Load purchases that were paid otherwise than they were offered, in order of their ids, after one."""
    return _loaded(db, [str(row[0]) for row in db.rows(_QUARANTINED, after=after, most=PAGE)])


def waiting_events(db: Db, until: datetime, most: int) -> list[tuple[str, str, str, str]]:
    """Load the id, type, status and effect of events that could not be worked off, or were not, oldest first."""
    rows = db.rows(_FAILED, failed="failed", received="received", until=until, most=most)
    return [(str(key), str(kind), str(status), effect or "") for key, kind, status, effect in rows]


def _loaded(db: Db, ids: list[str]) -> list[Sale]:
    found = (load_sale(db, each) for each in ids)
    return [sale for sale in found if sale is not None]
