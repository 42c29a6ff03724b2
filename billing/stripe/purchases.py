"""Purchases and what Stripe has said of their payments, in SQL.

Whoever learns something of a payment locks that payment's row first, then the book: what two learn at one moment is
put together, and the second of them sees the whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import bindparam, delete, or_, select, update

from billing.book import canonical
from billing.payments import Payment, Purchase
from billing.plans import PLAN, Standing
from billing.sql import Db, Row, Statement, insert_into, insert_once
from billing.stripe.facts import Facts, Terms, all_of, facts_from, joined, text_of
from billing.stripe.inbox import erase_of_customer, erase_of_payment
from billing.stripe.plan_rows import invoice_payments, purchase_of_invoice
from billing.stripe.tables import PURCHASES, STRIPE_CUSTOMERS, STRIPE_FACTS

_COLUMNS: Final = tuple(PURCHASES.c)
_INSERT: Final = insert_into(PURCHASES)
_ONE: Final = Statement(select(*_COLUMNS).where(PURCHASES.c.id == bindparam("id")))
_BY_PAYMENT: Final = Statement(
    select(*_COLUMNS).where(
        or_(
            PURCHASES.c.session_id == bindparam("payment"),
            PURCHASES.c.payment == bindparam("payment"),
        )
    )
)
_OF_BOOK: Final = Statement(
    select(*_COLUMNS)
    .where(PURCHASES.c.book_id == bindparam("book_id"))
    .order_by(PURCHASES.c.created_at, PURCHASES.c.id)
)
_THIS: Final = PURCHASES.c.id == bindparam("this")
_SET_SESSION: Final = Statement(
    update(PURCHASES).where(_THIS).values(session_id=bindparam("new_session"))
)
_SET_PAYMENT: Final = Statement(
    update(PURCHASES).where(_THIS).values(payment=bindparam("new_payment"))
)
_STATE: Final = ("lot_no", "revision", "state", "problem")
_SET_STATE: Final = Statement(
    update(PURCHASES).where(_THIS).values({name: bindparam(f"new_{name}") for name in _STATE})
)
_KNOW: Final = insert_once(STRIPE_FACTS)
_LOCK_FACTS: Final = Statement(
    select(STRIPE_FACTS.c.facts)
    .where(STRIPE_FACTS.c.payment == bindparam("payment"))
    .with_for_update()
)
_LEARN: Final = Statement(
    update(STRIPE_FACTS)
    .where(STRIPE_FACTS.c.payment == bindparam("of_payment"))
    .values(facts=bindparam("new_facts"))
)
_FACTS: Final = Statement(
    select(STRIPE_FACTS.c.facts).where(STRIPE_FACTS.c.payment == bindparam("payment"))
)
_CUSTOMER: Final = Statement(
    select(STRIPE_CUSTOMERS.c.customer_id).where(STRIPE_CUSTOMERS.c.book_id == bindparam("book_id"))
)
_KEEP_CUSTOMER: Final = insert_once(STRIPE_CUSTOMERS)
_REPLACE_CUSTOMER: Final = Statement(
    update(STRIPE_CUSTOMERS)
    .where(
        STRIPE_CUSTOMERS.c.book_id == bindparam("of_book"),
        STRIPE_CUSTOMERS.c.customer_id == bindparam("gone"),
    )
    .values(customer_id=bindparam("new_customer"))
)
_FORGET_CUSTOMER: Final = Statement(
    delete(STRIPE_CUSTOMERS).where(STRIPE_CUSTOMERS.c.book_id == bindparam("of_book"))
)


@dataclass(frozen=True, slots=True)
class Sale:
    """A purchase as its row has it. `state`: the last state of its payment that was posted.

    Of a plan, `payment` is the subscription, and `standing` what was posted last of what it gives.
    """

    id: str
    book_id: int
    kind: str
    item: str
    units: int
    price_minor: int
    currency: str
    priority: int
    valid_for: str | None
    policy_version: str
    created_at: datetime
    session_id: str | None
    payment: str | None
    lot_no: int | None
    revision: int
    state: Payment
    problem: str | None
    standing: Standing = field(default_factory=Standing)

    @property
    def purchase(self) -> Purchase:
        """What was offered."""
        return Purchase(
            id=self.id,
            pack=self.item,
            units=self.units,
            price_minor=self.price_minor,
            currency=self.currency,
            priority=self.priority,
            valid_for=self.valid_for,
            policy_version=self.policy_version,
            kind=self.kind,
        )

    @property
    def terms(self) -> Terms:
        """What its payment must agree with."""
        return Terms(self.price_minor, self.currency)


def add_sale(db: Db, book_id: int, purchase: Purchase, at: datetime) -> None:
    """Write down an offer, before Stripe is asked for anything."""
    db.run(
        _INSERT,
        id=purchase.id,
        book_id=book_id,
        kind=purchase.kind,
        item=purchase.pack,
        units=purchase.units,
        price_minor=purchase.price_minor,
        currency=purchase.currency,
        priority=purchase.priority,
        valid_for=purchase.valid_for,
        policy_version=purchase.policy_version,
        created_at=at,
        session_id=None,
        payment=None,
        lot_no=None,
        revision=0,
        state="{}",
        problem=None,
    )


def load_sale(db: Db, purchase_id: str) -> Sale | None:
    """Load a purchase by its id."""
    row = db.row(_ONE, id=purchase_id)
    return None if row is None else _sale(row)


def sale_of_payment(db: Db, payment: str) -> Sale | None:
    """Load the purchase whose Checkout Session or PaymentIntent this is; of a plan, also an invoice or what paid it."""
    row = db.row(_BY_PAYMENT, payment=payment)
    if row is not None:
        return _sale(row)
    owner = purchase_of_invoice(db, payment)
    return None if owner is None else load_sale(db, owner)


def sales_of(db: Db, book_id: int) -> list[Sale]:
    """Load a book's purchases, oldest first."""
    return [_sale(row) for row in db.rows(_OF_BOOK, book_id=book_id)]


def set_session(db: Db, purchase_id: str, session_id: str) -> None:
    """Say which Checkout Session was made for a purchase."""
    db.run(_SET_SESSION, this=purchase_id, new_session=session_id)


def set_payment(db: Db, purchase_id: str, payment: str) -> None:
    """Say which PaymentIntent a purchase has led to."""
    db.run(_SET_PAYMENT, this=purchase_id, new_payment=payment)


def save_state(
    db: Db,
    sale: Sale,
    lot_no: int | None,
    revision: int,
    state: Payment | Standing,
    problem: str | None,
) -> None:
    """Write down what was posted last of a purchase's payment."""
    db.run(
        _SET_STATE,
        this=sale.id,
        new_lot_no=lot_no,
        new_revision=revision,
        new_state=canonical(state.facts()).decode(),
        new_problem=problem,
    )


def learn(db: Db, payment: str, facts: Facts) -> None:
    """Lock what is known of a payment, and add to it. Nobody else adds anything before our commit."""
    if not db.count(_KNOW, payment=payment, facts=text_of(facts)):
        row = db.row(_LOCK_FACTS, payment=payment)
        known = {} if row is None else facts_from(str(row[0]))
        both = joined(known, facts)
        if both != known:
            db.run(_LEARN, of_payment=payment, new_facts=text_of(both))


def known_of(db: Db, payments: Iterable[str | None]) -> Facts:
    """Load all that is known under these ids of Stripe's."""
    rows = [db.row(_FACTS, payment=payment) for payment in payments if payment is not None]
    return all_of(facts_from(str(row[0])) for row in rows if row is not None)


def is_known(db: Db, payment: str) -> bool:
    """Whether anything was heard under an id of Stripe's, or is expected to be."""
    return db.row(_FACTS, payment=payment) is not None


def customer_of(db: Db, book_id: int) -> str | None:
    """Load who a book's buyer is at Stripe."""
    row = db.row(_CUSTOMER, book_id=book_id)
    return None if row is None else str(row[0])


def keep_customer(db: Db, book_id: int, customer_id: str) -> None:
    """Remember who a book's buyer is at Stripe, unless it is known."""
    db.run(_KEEP_CUSTOMER, book_id=book_id, customer_id=customer_id)


def replace_customer(db: Db, book_id: int, gone: str, customer_id: str) -> None:
    """Remember another customer in the place of one that is gone, unless somebody else has done so."""
    db.run(_REPLACE_CUSTOMER, of_book=book_id, gone=gone, new_customer=customer_id)


def forget_buyer(db: Db, book_id: int) -> None:
    """Erase who a book's buyer is, and the bytes of the events that name them. What was bought stays."""
    customer = customer_of(db, book_id)
    if customer is not None:
        erase_of_customer(db, customer)
    for sale in sales_of(db, book_id):
        for payment in (sale.session_id, sale.payment):
            if payment is not None:
                erase_of_payment(db, payment)
    for invoice, payment in invoice_payments(db, book_id):
        for known_as in (invoice, payment):
            if known_as is not None:
                erase_of_payment(db, known_as)
    db.run(_FORGET_CUSTOMER, of_book=book_id)


def _sale(row: Row) -> Sale:
    values: dict[str, Any] = dict(zip((column.name for column in _COLUMNS), row, strict=True))
    state = json.loads(values["state"])
    if values["kind"] == PLAN:
        return Sale(**{**values, "state": Payment(), "standing": Standing.of(state)})
    return Sale(**{**values, "state": Payment.of(state)})
