"""Credits that are bought, given or refunded: once per reference."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import bindparam, select

from billing.book import canonical
from billing.lots import Lot
from billing.posting import BookState, lock_book_by_id, post, read_book_by_id, save_book
from billing.purchases import PURCHASE, REFUND, Refund, draft_issue, draft_refund
from billing.sql import Db, Statement, insert_into
from billing.tables import PAYMENT_REFERENCES
from policies.errors import IdempotencyConflict, InvalidRequest, UnknownLot
from policies.instants import micros
from quota.accounts import lock_account
from quota.dues import post_dues
from quota.ids import lot_id
from quota.load import load_lot
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
_KEEP: Final = insert_into(PAYMENT_REFERENCES)


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
        """What must be the same when the reference comes again: whose, what, and how much."""
        if self.pack is not None:
            # The pack's units and price are the policy file's, which may have changed since.
            return canonical([self.account, self.pack, self.currency]).decode()
        expiry = None if self.expires_at is None else micros(self.expires_at)
        return canonical([self.account, self.units, expiry]).decode()


def issue(db: Db, asked: Issue, now: datetime) -> Issued:
    """Bring a lot to life, once per origin and reference.

    Raises:
        IdempotencyConflict: the reference was used for other credits, or for another account.
    """
    # The lock comes first, also where the reference turns out to be known: what is read must not be stale.
    book, now = lock_account(db, asked.account, now)
    found = db.row(_FIND, origin=asked.origin, reference=asked.reference)
    if found is not None:
        save_book(db, book)
        return _replayed(db, book, asked, found)
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
    _keep(db, book, asked.origin, asked.reference, lot.number, seq, asked.fingerprint)
    save_book(db, book)
    return _issued(book.id, asked.account, lot)


def refund(db: Db, ids: tuple[int, int], reference: str, now: datetime) -> Refund:
    """Take back what is unused of a lot, once per reference and once per lot.

    Raises:
        UnknownLot: there is no such lot.
        IdempotencyConflict: the reference was used for another lot.
        InvalidRequest: the lot was refunded before, under another reference.
    """
    book = lock_book_by_id(db, ids[0])
    if book is None or ids[1] > book.lots:
        raise UnknownLot(f"there is no lot `{lot_id(*ids)}`")
    now = max(now, book.at)
    post_dues(db, book, now)
    save_book(db, book)
    lot = load_lot(db, *ids)
    if lot is None:
        raise UnknownLot(f"there is no lot `{lot_id(*ids)}`")
    found = db.row(_FIND, origin=REFUND, reference=reference)
    if found is not None:
        if (int(found[0]), int(found[1])) != ids:
            raise IdempotencyConflict(
                f"reference `{reference}` was used for the refund of another lot"
            )
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
    db.run(
        _KEEP,
        origin=origin,
        reference=reference,
        book_id=book.id,
        lot_no=lot_no,
        seq=seq,
        request_hash=book.hashed("payment", fingerprint),
    )


def _replayed(db: Db, book: BookState, asked: Issue, found: tuple[int, int, int, str]) -> Issued:
    book_id, lot_no, _, request_hash = found
    owner = book if book.id == book_id else read_book_by_id(db, book_id)
    lot = load_lot(db, book_id, lot_no)
    if lot is None or owner is None or owner.hashed("payment", asked.fingerprint) != request_hash:
        raise IdempotencyConflict(
            f"reference `{asked.reference}` of {asked.origin} was used for other credits or another account"
        )
    issued = _issued(book_id, asked.account, lot)
    return Issued(
        **{**{name: getattr(issued, name) for name in Issued.__slots__}, "replayed": True}
    )


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
