"""Subscriptions on the books: which plan they give, and what their invoices pay, posted as differences."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import Final

from billing.books import BookState, save_book
from billing.payments import Payment
from billing.plans import PLAN, Invoice, changed_plan, draft_invoice, draft_subscription
from billing.posting import post
from billing.sql import Db
from billing.stripe.events import Heard
from billing.stripe.facts import BILL, PAID_BY, Facts, Item, problem_of
from billing.stripe.plan_facts import PlanRules, paid_by, spans_of, standing_of
from billing.stripe.plan_rows import (
    add_invoice,
    invoice_payments,
    link_invoice,
    load_invoices,
    save_invoice,
)
from billing.stripe.purchases import Sale, known_of, learn
from quota import accounts
from quota.plan_dues import PlansInHand, save_standing

NOTHING_NEW = "nothing new"
_ANY: Final = ("paid", "disputed", "stops_paid_use")
_SUMMED: Final = tuple(name for name in Payment.__slots__ if name not in _ANY)


def lock_payments(db: Db, heard: Heard) -> None:
    """Lock what is known of the payments that what was heard may link with invoices, before the book is locked.

    Who hears meanwhile of a payment finds no invoice for it yet: only under the locks of both is all of it seen.
    """
    bills = heard.facts.get(BILL, {})
    for identity in bills:
        learn(db, identity, {})
    for identity in (*bills, *([heard.payment] if PAID_BY in heard.facts else [])):
        for intent in known_of(db, (identity,)).get(PAID_BY, {}):
            learn(db, intent, {})


def bring_plan_up(
    db: Db,
    book: BookState,
    purchase_id: str,
    now: datetime,
    rules: PlanRules,
    *,
    stops_paid_use: bool,
) -> str:
    """Post the difference between what is known of a subscription and what was posted of it.

    `book` is locked, and what was due on it is posted. Returns in words what that did.
    """
    before, plans = book.seq, PlansInHand(db, book)
    sale = plans.sales[purchase_id]  # as it is under the lock, after what was due
    facts = known_of(db, (sale.session_id, sale.payment))
    paid_with = _linked(db, sale, facts)
    done: list[str] = []
    for identity, bill in sorted(facts.get(BILL, {}).items()):
        known = plans.invoices.get(identity, Invoice(identity, sale.id, bill["currency"]))
        intent = paid_with.get(identity)
        invoice = _invoice(db, sale, known, intent, (facts, bill), rules, stops=stops_paid_use)
        if invoice == known:
            continue
        invoice = replace(invoice, revision=known.revision + 1)
        post(db, book, draft_invoice(known, invoice, now), now)
        save_invoice(db, invoice)
        plans.invoices[identity] = invoice
        book.disputes += invoice.payment.stops_paid_use - known.payment.stops_paid_use
        done.extend(_changes(known, invoice))
    done.extend(_stand(db, book, plans, sale, facts, rules, now))
    if book.seq != before:
        plans.set_due(now)
    save_book(db, book)
    return ", ".join(done) or NOTHING_NEW


def _linked(db: Db, sale: Sale, facts: Facts) -> dict[str, str | None]:
    """Make rows of the invoices that were heard of, and link them with what has paid them. Returns that."""
    paid_with = dict(invoice_payments(db, sale.book_id))
    for identity, bill in facts.get(BILL, {}).items():
        if identity not in paid_with:
            add_invoice(db, sale.book_id, Invoice(identity, sale.id, bill["currency"]))
        if paid_with.get(identity) is None:
            intent = next(iter(known_of(db, (identity,)).get(PAID_BY, {})), None)
            paid_with[identity] = intent
            if intent is not None:
                link_invoice(db, identity, intent)
    return paid_with


def _invoice(
    db: Db,
    sale: Sale,
    known: Invoice,
    intent: str | None,
    said: tuple[Facts, Item],
    rules: PlanRules,
    *,
    stops: bool,
) -> Invoice:
    """Return an invoice as it is known now. `said`: what is known of the subscription, and of this invoice."""
    facts, bill = said
    stops = stops or known.payment.stops_paid_use
    payment = paid_by(known.id, bill, known_of(db, (intent,)), stops_paid_use=stops)
    invoice = replace(known, payment=payment, spans=spans_of(bill, facts, sale.item, rules))
    return replace(invoice, revoked_minor=invoice.to_revoke_minor())


def _stand(
    db: Db,
    book: BookState,
    plans: PlansInHand,
    sale: Sale,
    facts: Facts,
    rules: PlanRules,
    now: datetime,
) -> Iterator[str]:
    """Post what the subscription gives its account, where that has changed."""
    was = sale.standing
    problem = problem_of(facts, sale.terms)
    before = _former(book, plans, sale) if was.plan is None else was.before
    standing = standing_of({} if problem else facts, sale.item, rules, before, now)
    if standing.plan is None and was.plan is None:
        standing = replace(standing, before=was.before)
    if (standing, problem) == (was, sale.problem):
        return
    if standing != was:
        sale = replace(sale, revision=sale.revision + 1, standing=standing)
        post(db, book, draft_subscription(sale.id, sale.revision, standing, now), now)
    save_standing(db, sale, standing, problem)
    plans.sales[sale.id] = sale
    plan = changed_plan(book.plan, was, standing)
    if problem is not None:
        yield f"quarantined: {problem}"
    if plan != book.plan:
        yield f"plan: {plan or 'the default'}"
        accounts.change_plan(db, book, plan, now)
    if standing.until is not None:
        yield f"until {standing.until.isoformat()}"


def _former(book: BookState, plans: PlansInHand, sale: Sale) -> str | None:
    """Return the plan that an account has again when a subscription that begins now ends.

    Not that of another subscription, which may end before.
    """
    for other in plans.sales.values():
        given = other.standing.plan
        if other.id != sale.id and given is not None and given == book.plan:
            return other.standing.before
    return book.plan


def _changes(before: Invoice, now: Invoice) -> Iterator[str]:
    """Say in words what has changed about an invoice."""
    if now.payment.paid and not before.payment.paid:
        yield f"paid: {now.payment.total_minor} {now.currency} (minor units)"
    yield from amounts_changed(before.payment, now.payment, now.currency)


def amounts_changed(before: Payment, now: Payment, currency: str) -> Iterator[str]:
    """Say in words which amounts of a payment have changed since it was paid, and what they are now."""
    for name, what in (
        ("refunded_minor", "refunded"),
        ("lost_minor", "lost by dispute"),
        ("withdrawn_minor", "withdrawn by dispute"),
        ("fee_minor", "fees"),
        ("paid_out_minor", "paid out"),
    ):
        amount = getattr(now, name)
        if amount != getattr(before, name):
            yield f"{what}: {amount} {currency} (minor units)"


def paid_for(db: Db, sale: Sale) -> Payment:
    """Return what all invoices of a subscription have come to."""
    payments = [each.payment for each in _invoices_of(db, sale)]
    sums = {name: sum(getattr(each, name) for each in payments) for name in _SUMMED}
    flags = {name: any(getattr(each, name) for each in payments) for name in _ANY}
    return Payment(**sums, **flags)


def payments_of(db: Db, sale: Sale) -> list[str]:
    """Return the PaymentIntents that have paid a purchase; of a plan, those of its invoices, latest first."""
    if sale.kind != PLAN:
        return [] if sale.payment is None else [sale.payment]
    paid_with = dict(invoice_payments(db, sale.book_id))
    payments = (paid_with.get(each.id) for each in _invoices_of(db, sale))
    return [each for each in payments if each is not None]


def _invoices_of(db: Db, sale: Sale) -> list[Invoice]:
    """Return a subscription's invoices, those first that end last."""
    invoices = load_invoices(db, sale.book_id).values()
    of_sale = (each for each in invoices if each.purchase == sale.id)
    return sorted(of_sale, key=lambda each: (each.ends, each.id), reverse=True)


def refundable(db: Db, sale: Sale) -> tuple[str, int] | None:
    """Return the PaymentIntent of the latest invoice of which something is left to refund, and how much that is."""
    paid_with = dict(invoice_payments(db, sale.book_id))
    for invoice in _invoices_of(db, sale):
        state, intent = invoice.payment, paid_with.get(invoice.id)
        left = state.total_minor - state.refunded_minor - state.lost_minor
        if intent is not None and left > 0:
            return intent, left
    return None
