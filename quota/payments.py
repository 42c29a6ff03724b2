"""Payments on the books: what was heard of one is put together with what was known, and the difference is posted."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from billing.books import BookState, lock_book_by_id, save_book
from billing.lots import Lot
from billing.payments import Payment, draft_payment, lot_of
from billing.plans import PLAN
from billing.posting import post
from billing.sql import Db
from billing.stripe.events import Heard
from billing.stripe.facts import SESSION, Facts, declined, payment_of, problem_of
from billing.stripe.plan_facts import PlanRules
from billing.stripe.purchases import (
    Sale,
    keep_customer,
    known_of,
    learn,
    load_sale,
    sale_of_payment,
    save_state,
    set_payment,
    set_session,
)
from billing.stripe.top_ups import TOP_UP
from policies.instants import from_micros
from quota.clock import Clock
from quota.dues import post_dues
from quota.ids import lot_id
from quota.lot_rows import load_lot
from quota.plans import NOTHING_NEW, amounts_changed, bring_plan_up, lock_payments
from quota.records import ERASED, account_name
from quota.top_ups import switch_off

WAITING = "kept until its purchase is known"


def hear(db: Db, heard: Heard, clock: Clock, rules: PlanRules, *, stops_paid_use: bool) -> str:
    """Take in what was heard of a payment, and bring its books up to it. Returns in words what that did.

    `rules`: which plans there are. `stops_paid_use`: whether an account that disputes a payment may use no credits
    until that is settled.
    """
    learn(db, heard.payment, heard.facts)
    sale = sale_of(db, heard)
    if sale is None:
        return WAITING
    if heard.intent is not None and heard.intent != heard.payment:
        # Who hears of the payment meanwhile finds no purchase for it yet: only under its lock is all of it seen.
        learn(db, heard.intent, {})
    if sale.kind == PLAN:
        lock_payments(db, heard)
    book = lock_book_by_id(db, sale.book_id)
    # Purchases are changed under their book's lock alone: two who hear of one at a time do not wait for each other.
    sale = sale_of(db, heard)
    if book is None or sale is None:
        return WAITING
    _link(db, sale, heard)
    now = max(clock(), book.at)
    post_dues(db, book, now)
    if heard.customer is not None and book.salt is not None:  # nobody's, once it was forgotten
        keep_customer(db, book.id, heard.customer)
    if sale.kind == PLAN:
        return bring_plan_up(db, book, sale.id, now, rules, stops_paid_use=stops_paid_use)
    return _bring_up(db, book, sale.id, now, stops_paid_use=stops_paid_use)


def of_nobody(db: Db, heard: Heard) -> bool:
    """Whether something was heard of the payment of an account that was forgotten."""
    sale = sale_of(db, heard)
    return sale is not None and account_name(db, sale.book_id) == ERASED


def _bring_up(
    db: Db, book: BookState, purchase_id: str, now: datetime, *, stops_paid_use: bool
) -> str:
    """Post the difference between what is known of a purchase's payment and what was posted of it."""
    sale = load_sale(db, purchase_id)
    if sale is None:
        raise LookupError(f"there is no purchase `{purchase_id}`")
    facts = known_of(db, (sale.session_id, sale.payment))
    problem, before = problem_of(facts, sale.terms), sale.state
    state = payment_of(facts, sale.terms, stops_paid_use=before.stops_paid_use or stops_paid_use)
    given_up = None
    if sale.kind == TOP_UP and problem is None and not state.paid:
        given_up = problem = sale.problem or declined(facts)
    if (state, problem) == (before, sale.problem):
        save_book(db, book)
        return NOTHING_NEW
    revision = sale.revision
    lot = None if sale.lot_no is None else load_lot(db, book.id, sale.lot_no)
    if state != before:
        if state.paid and lot is None:
            book.lots += 1
            lot = _bought(sale, state, facts, book.lots)
        revision += 1
        states = before, state
        draft = draft_payment(sale.id, revision, states, lot, now, currency=sale.currency)
        post(db, book, draft, now)
        book.disputes += state.stops_paid_use - before.stops_paid_use
    save_state(db, sale, None if lot is None else lot.number, revision, state, problem)
    if given_up is not None and sale.problem is None:
        switch_off(db, book, given_up, now)
    save_book(db, book)
    if given_up is not None:
        return f"not paid: {given_up}"
    if problem is not None:
        return f"quarantined: {problem}"
    return ", ".join(_changes(sale, state, lot)) or NOTHING_NEW


def sale_of(db: Db, heard: Heard) -> Sale | None:
    """Return the purchase that something was heard of; what copies our metadata is none of it."""
    if heard.purchase is None:
        return sale_of_payment(db, heard.payment)
    sale = load_sale(db, heard.purchase)
    linked = None
    if sale is not None:
        linked = sale.session_id if SESSION in heard.facts else sale.payment
    return sale if linked in (None, heard.payment) else None


def _link(db: Db, sale: Sale, heard: Heard) -> None:
    """Say which of Stripe's objects a purchase has led to, where what was heard of it says so."""
    if SESSION in heard.facts:
        if sale.session_id is None:
            set_session(db, sale.id, heard.payment)
        # The session knows its payment; of a plan, its subscription. Metadata may have been copied.
        if heard.intent not in (None, sale.payment):
            set_payment(db, sale.id, str(heard.intent))
    elif heard.purchase is not None and sale.payment is None:
        set_payment(db, sale.id, heard.payment)


def _bought(sale: Sale, state: Payment, facts: Facts, number: int) -> Lot:
    # Dated to the event by which Stripe told of the payment, so that its delay changes nothing.
    paid_at = _paid_at(facts) or sale.created_at
    return lot_of(sale.purchase, state, number, paid_at)


def _paid_at(facts: Facts) -> datetime | None:
    said = (
        item["at"]
        for items in facts.values()
        for item in items.values()
        if item["status"] in ("paid", "succeeded") and "total" in item
    )
    at = min(said, default=None)
    return None if at is None else from_micros(at * 1_000_000)


def _changes(sale: Sale, state: Payment, lot: Lot | None) -> Iterator[str]:
    """Say in words what has changed."""
    before = sale.state
    if state.paid and not before.paid and lot is not None:
        yield f"paid: {sale.units} units in {lot_id(sale.book_id, lot.number)}"
    yield from amounts_changed(before, state, sale.currency)
    if state.disputed != before.disputed:
        yield "disputed" if state.disputed else "dispute over"
