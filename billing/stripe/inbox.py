"""The inbox: every event that Stripe has signed, kept as it came, then worked off in the transaction of its effects."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal

from sqlalchemy import bindparam, literal_column, null, select, update

from billing.sql import Db, Row, Statement, insert_once
from billing.stripe.events import Event
from billing.stripe.tables import STRIPE_EVENTS

Status = Literal["received", "done", "ignored", "failed"]
EFFECT_MAX: Final = 500

_EVENT: Final[Any] = STRIPE_EVENTS
_COLUMNS: Final = tuple(STRIPE_EVENTS.c)
_KEEP: Final = insert_once(STRIPE_EVENTS)
_ONE: Final = select(*_COLUMNS).where(_EVENT.c.id == bindparam("id"))
_FIND: Final = Statement(_ONE)
_LOCK: Final = Statement(_ONE.with_for_update())
_END: Final = Statement(
    update(_EVENT)
    .where(_EVENT.c.id == bindparam("of_event"))
    .values(
        status=bindparam("new_status"),
        effect=bindparam("new_effect"),
        payment=bindparam("new_payment"),
        attempts=_EVENT.c.attempts + 1,
    )
)
_LATEST: Final = (
    select(*_COLUMNS).order_by(_EVENT.c.received_at.desc(), _EVENT.c.id).limit(bindparam("most"))
)
_IN_INBOX: Final = Statement(_LATEST)
_OF_STATUS: Final = Statement(_LATEST.where(_EVENT.c.status == bindparam("status")))
_OPEN: Final = Statement(
    select(_EVENT.c.id)
    .where(
        _EVENT.c.status.in_((literal_column("'received'"), literal_column("'failed'"))),
        _EVENT.c.attempts < bindparam("tries"),
        _EVENT.c.payload.is_not(None),
    )
    .order_by(_EVENT.c.received_at, _EVENT.c.id)
    .limit(bindparam("most"))
)
_OLD_IGNORED: Final = Statement(
    select(_EVENT.c.id)
    .where(
        _EVENT.c.status == literal_column("'ignored'"),
        _EVENT.c.payload.is_not(None),
        _EVENT.c.received_at < bindparam("before"),
    )
    .order_by(_EVENT.c.received_at)
    .limit(bindparam("most"))
)
_ERASE: Final = Statement(
    update(_EVENT).where(_EVENT.c.id == bindparam("of_event")).values(payload=null())
)
_ERASE_OF_PAYMENT: Final = Statement(
    update(_EVENT).where(_EVENT.c.payment == bindparam("of_payment")).values(payload=null())
)
_ERASE_OF_CUSTOMER: Final = Statement(
    update(_EVENT).where(_EVENT.c.customer == bindparam("of_customer")).values(payload=null())
)


@dataclass(frozen=True, slots=True)
class Letter:
    """An event in the inbox. `payload`: None once it was erased. `effect`: what it did, or why it failed."""

    id: str
    type: str
    created: datetime
    api_version: str | None
    payment: str | None
    customer: str | None
    payload: bytes | None = field(repr=False)
    received_at: datetime
    attempts: int
    status: Status
    effect: str | None


def keep(db: Db, event: Event, payload: bytes, now: datetime) -> bool:
    """Put an event into the inbox. Returns whether it was not there before."""
    return bool(
        db.count(
            _KEEP,
            id=event.id,
            type=event.type,
            created=event.created,
            api_version=event.api_version,
            payment=None,
            customer=event.customer,
            payload=payload,
            received_at=now,
            attempts=0,
            status="received",
            effect=None,
        )
    )


def letter(db: Db, event_id: str) -> Letter | None:
    """Load an event of the inbox."""
    row = db.row(_FIND, id=event_id)
    return None if row is None else _letter(row)


def lock_letter(db: Db, event_id: str) -> Letter | None:
    """Lock an event in the inbox, so that nobody else works it off meanwhile."""
    row = db.row(_LOCK, id=event_id)
    return None if row is None else _letter(row)


def end(db: Db, event_id: str, status: Status, effect: str, payment: str | None = None) -> None:
    """Say what became of an event."""
    db.run(
        _END,
        of_event=event_id,
        new_status=status,
        new_effect=effect[:EFFECT_MAX],
        new_payment=payment,
    )


def letters(db: Db, status: Status | None = None, most: int = 50) -> list[Letter]:
    """Load the events that came last, latest first."""
    if status is None:
        return [_letter(row) for row in db.rows(_IN_INBOX, most=most)]
    return [_letter(row) for row in db.rows(_OF_STATUS, status=status, most=most)]


def open_letters(db: Db, *, tries: int, most: int = 500) -> list[str]:
    """Load the ids of events that are still to be worked off, oldest first. Not those erased, or tried so often."""
    return [str(row[0]) for row in db.rows(_OPEN, tries=tries, most=most)]


def old_ignored(db: Db, before: datetime, *, most: int = 500) -> list[str]:
    """Load the ids of ignored events that came before an instant and have their bytes still, oldest first."""
    return [str(row[0]) for row in db.rows(_OLD_IGNORED, before=before, most=most)]


def erase(db: Db, event_id: str) -> None:
    """Erase the bytes of an event."""
    db.run(_ERASE, of_event=event_id)


def erase_of_payment(db: Db, payment: str) -> None:
    """Erase the bytes of a payment's events: they name the buyer."""
    db.run(_ERASE_OF_PAYMENT, of_payment=payment)


def erase_of_customer(db: Db, customer: str) -> None:
    """Erase the bytes of all events about a customer."""
    db.run(_ERASE_OF_CUSTOMER, of_customer=customer)


def _letter(row: Row) -> Letter:
    values: dict[str, Any] = dict(zip((column.name for column in _COLUMNS), row, strict=True))
    payload = values["payload"]
    return Letter(**{**values, "payload": None if payload is None else bytes(payload)})
