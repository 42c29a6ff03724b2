"""Credits that are bought, given or refunded: once per reference."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from sqlalchemy import bindparam, select

from billing.book import canonical
from billing.books import BookState, lock_book_by_id, save_book
from billing.lots import Lot
from billing.posting import post
from billing.purchases import PURCHASE, REFUND, Refund, draft_issue, draft_refund
from billing.sql import Db, Statement, insert_once
from billing.tables import LOTS, PAYMENT_REFERENCES
from policies.errors import IdempotencyConflict, InvalidRequest, UnknownLot
from quota.accounts import lock_account
from quota.clock import Clock
from quota.dues import post_dues
from quota.ids import lot_id
from quota.lot_rows import load_lot
from quota.records import record_facts

_FIND: Final = Statement(
    select(
        PAYMENT_REFERENCES.c.book_id,
        PAYMENT_REFERENCES.c.lot_no,
        PAYMENT_REFERENCES.c.seq,
        PAYMENT_REFERENCES.c.request_hash,
    ).where(
        PAYMENT_REFERENCES.c.origin == bindparam("origin"),
        PAYMENT_REFERENCES.c.reference == bindparam("reference"),
    )
)
_GIVEN: Final = Statement(
    select(LOTS.c.number).where(
        LOTS.c.book_id == bindparam("book_id"),
        LOTS.c.origin == bindparam("origin"),
        LOTS.c.reference == bindparam("reference"),
    )
)
_KEEP: Final = insert_once(PAYMENT_REFERENCES)


@dataclass(frozen=True, slots=True)
class Issued:
    """A lot that was brought to life. Money in minor units of `currency`. `replayed`: it was there before."""

    id: str
    account: str
    units: int
    price_minor: int
    currency: str
    expires_at: datetime | None
    origin: str
    reference: str
    pack: str | None
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Issue:
    """Credits to be issued, their values checked. Money in minor units of `currency`."""

    account: str
    origin: str
    reference: str
    units: int
    price_minor: int
    currency: str
    expires_at: datetime | None
    created_at: datetime | None = None
    pack: str | None = None
    priority: int = 0

    @property
    def fingerprint(self) -> str:
        """What must be the same when a payment is recorded again.

        The pack's units and price are the policy file's, which may have changed since: they are no part of it.
        """
        return canonical([self.pack, self.currency]).decode()


def issue(db: Db, asked: Issue, clock: Clock) -> Issued:
    """Bring a lot to life: a purchase once per reference, given credits once per account, origin and reference.

    Raises:
        IdempotencyConflict: the reference was used for other credits, or a purchase's for another account.
    """
    # The lock comes first, also where the reference turns out to be known: what is read must not be stale.
    book, now = lock_account(db, asked.account, clock)
    before = _bought(db, book, asked) if asked.origin == PURCHASE else _given(db, book, asked)
    if before is not None:
        save_book(db, book)
        return replace(before, replayed=True)
    book.lots += 1
    lot = Lot(
        number=book.lots,
        origin=asked.origin,
        reference=asked.reference,
        pack=asked.pack,
        units=asked.units,
        price_minor=asked.price_minor,
        currency=asked.currency,
        priority=asked.priority,
        created_at=asked.created_at or now,
        expires_at=asked.expires_at,
    )
    kind = PURCHASE if asked.origin == PURCHASE else "credits"
    seq = post(db, book, draft_issue(lot, kind, now), now)
    if asked.origin == PURCHASE:
        _keep(db, book, PURCHASE, asked.reference, lot.number, seq, asked.fingerprint)
    save_book(db, book)
    return _issued(book.id, asked.account, lot)


def refund(db: Db, ids: tuple[int, int], reference: str, clock: Clock) -> Refund:
    """Take back what is unused of a lot, once per reference and once per lot.

    Raises:
        UnknownLot: there is no such lot.
        IdempotencyConflict: the reference was used for another lot.
        InvalidRequest: the lot was refunded before, under another reference.
    """
    book = lock_book_by_id(db, ids[0])
    if book is None or ids[1] > book.lots:
        raise UnknownLot(f"there is no lot `{lot_id(*ids)}`")
    now = max(clock(), book.at)
    post_dues(db, book, now)
    save_book(db, book)
    lot = load_lot(db, *ids)
    if lot is None:
        raise UnknownLot(f"there is no lot `{lot_id(*ids)}`")
    found = db.row(_FIND, origin=REFUND, reference=reference)
    if found is not None:
        if (int(found[0]), int(found[1])) != ids:
            raise _other_use(REFUND, reference)
        facts = record_facts(db, int(found[0]), int(found[2]))
        return Refund(
            lot_id(*ids),
            reference,
            facts["units"],
            facts["refunded_minor"],
            lot.currency,
            by_this_call=False,
        )
    if lot.refunded:
        raise InvalidRequest(f"lot `{lot_id(*ids)}` was refunded before, under another reference")
    draft, units, amount = draft_refund(lot, reference, now)
    seq = post(db, book, draft, now)
    save_book(db, book)
    _keep(db, book, REFUND, reference, lot.number, seq, "")
    return Refund(lot_id(*ids), reference, units, amount, lot.currency, by_this_call=True)


def _keep(
    db: Db, book: BookState, origin: str, reference: str, lot_no: int, seq: int, fingerprint: str
) -> None:
    """Keep a reference. Its key is what two accounts compete for that use it at the same moment.

    Raises:
        IdempotencyConflict: another account has used it.
    """
    kept = db.count(
        _KEEP,
        origin=origin,
        reference=reference,
        book_id=book.id,
        lot_no=lot_no,
        seq=seq,
        request_hash=book.hashed("payment", fingerprint),
    )
    if not kept:
        raise _other_use(origin, reference)


def _other_use(origin: str, reference: str) -> IdempotencyConflict:
    if origin == REFUND:
        return IdempotencyConflict(
            f"reference `{reference}` was used for the refund of another lot"
        )
    return IdempotencyConflict(
        f"payment `{reference}` was recorded for another purchase, or for another account"
    )


def _bought(db: Db, book: BookState, asked: Issue) -> Issued | None:
    """Return what a payment has brought before, over all accounts: nobody's payment pays twice."""
    found = db.row(_FIND, origin=PURCHASE, reference=asked.reference)
    if found is None:
        return None
    book_id, lot_no, _, request_hash = found
    lot = load_lot(db, book_id, lot_no)
    if (
        lot is None
        or book_id != book.id
        or book.hashed("payment", asked.fingerprint) != request_hash
    ):
        raise _other_use(PURCHASE, asked.reference)
    return _issued(book_id, asked.account, lot)


def _given(db: Db, book: BookState, asked: Issue) -> Issued | None:
    """Return the credits that this account was given before under this origin and reference."""
    row = db.row(_GIVEN, book_id=book.id, origin=asked.origin, reference=asked.reference)
    lot = None if row is None else load_lot(db, book.id, int(row[0]))
    if lot is None:
        return None
    if (lot.units, lot.expires_at, lot.priority) != (asked.units, asked.expires_at, asked.priority):
        raise IdempotencyConflict(
            f"reference `{asked.reference}` of {asked.origin} was used for other credits of this account"
        )
    return _issued(book.id, asked.account, lot)


def _issued(book_id: int, account: str, lot: Lot) -> Issued:
    return Issued(
        id=lot_id(book_id, lot.number),
        account=account,
        units=lot.units,
        price_minor=lot.price_minor,
        currency=lot.currency,
        expires_at=lot.expires_at,
        origin=lot.origin,
        reference=lot.reference,
        pack=lot.pack,
    )
