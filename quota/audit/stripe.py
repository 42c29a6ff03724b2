"""Checking that the books say of each payment what Stripe has said of it.

What was heard is kept in rows that no hash covers, and the next message is put together with it: a row that was edited
would be posted then. What was posted last is a function of them, so it is worked out again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from billing.discrepancy import Discrepancy, discrepancy
from billing.entries import UNREADABLE
from billing.payments import Payment
from billing.plans import PLAN, Invoice, Span
from billing.sql import Db
from billing.stripe.facts import BILL, PAID_BY, Facts, payment_of, problem_of
from billing.stripe.plan_facts import PlanRules, paid_by, spans_of
from billing.stripe.plan_rows import invoice_payments
from billing.stripe.purchases import Sale, is_known, known_of, sales_of
from billing.stripe.top_ups import TOP_UP
from policies.instants import Length
from quota.audit.payments import SaleAudit
from quota.audit.state import BookAudit

Said = tuple[str, object, object]
"""What is compared, what was posted of it, and what Stripe has said."""

ANY_RULES: Final = PlanRules((), Length.parse("1d"))
"""Which plan a line pays for depends on the policy file of its time: amounts and periods alone are compared."""


def check_said(db: Db, book: BookAudit, found: list[Discrepancy]) -> None:
    """Compare what was posted of a book's purchases with what is known of them, and add to `found` what differs."""
    if not book.sales:
        return
    try:
        sales = sales_of(db, book.book_id)
    except UNREADABLE:
        return  # a row that cannot be read differs from its record, and that was found
    for sale in sales:
        audit: SaleAudit | None = book.sales.get(sale.id)
        if audit is None:
            continue  # a row without a record was found
        try:
            different = [each for each in _said(db, book, sale, audit) if each[1] != each[2]]
        except UNREADABLE as error:
            different = [("", "what can be read", repr(error))]
        for what, posted, said in different:
            name = f"what Stripe has said of purchase {sale.id}{what}"
            found.append(discrepancy(book.book_id, audit.seq, name, posted, said))


def _said(db: Db, book: BookAudit, sale: Sale, audit: SaleAudit) -> Iterator[Said]:
    facts = known_of(db, (sale.session_id, sale.payment))
    if sale.payment is not None:
        yield f", of {sale.payment}", True, is_known(db, sale.payment)
    if sale.kind == PLAN:
        yield ", problem", problem_of(facts, sale.terms), sale.problem
        yield from _said_of_invoices(db, book, sale, facts)
        return
    posted = audit.state
    state = payment_of(facts, sale.terms, stops_paid_use=posted.stops_paid_use)
    yield "", posted.facts(), state.facts()
    # Why a top-up was declined is a note: its first reason stays, whatever is heard later.
    if sale.kind != TOP_UP or posted.paid:
        yield ", problem", problem_of(facts, sale.terms), sale.problem
    if posted.paid and posted.total_minor:
        yield ", payment", True, sale.payment is not None


def _said_of_invoices(db: Db, book: BookAudit, sale: Sale, facts: Facts) -> Iterator[Said]:
    paid_with, bills = dict(invoice_payments(db, book.book_id)), facts.get(BILL, {})
    of_sale = {key for key, each in book.invoices.items() if each.purchase == sale.id}
    for key in sorted({*of_sale, *bills}):
        invoice = book.invoices.get(key) or Invoice(key, sale.id, sale.currency)
        intent, posted = paid_with.get(key), invoice.payment
        payers = known_of(db, (key,)).get(PAID_BY, {})
        yield f", payment of invoice {key}", True, intent in payers if payers else intent is None
        bill = bills.get(key)
        if bill is None:
            yield f", invoice {key}", posted.facts(), Payment().facts()
            continue
        known = known_of(db, (intent,))
        state = paid_by(key, bill, known, stops_paid_use=posted.stops_paid_use)
        yield f", invoice {key}", posted.facts(), state.facts()
        lines = spans_of(bill, facts, sale.item, ANY_RULES)
        yield f", lines of invoice {key}", _amounts(invoice.spans), _amounts(lines)


def _amounts(spans: tuple[Span, ...]) -> list[Any]:
    return sorted(span[:3] for span in spans)
