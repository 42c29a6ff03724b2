"""What falls due of plans that are paid for: days that are to be recognised, and plans whose time is over.

Facts of time, like the expiry of grants and lots: drafted from the rows, folded by reads, written by the next write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime

from billing.books import BookState
from billing.draft import Draft
from billing.plans import (
    PLAN,
    Standing,
    draft_plan_due,
    draft_recognised,
    groups_due,
    next_due,
    recognised,
)
from billing.sql import Db
from billing.stripe.plan_rows import load_invoices, save_invoice
from billing.stripe.purchases import Sale, sales_of, save_state

Written = Callable[[Db], None]
"""Writes the rows that a draft changes."""


class PlansInHand:
    """An account's invoices and subscriptions, and what of them has fallen due. Kept up to date while drafting."""

    def __init__(self, db: Db, book: BookState) -> None:
        """Load them, if the book pays for plans."""
        self.book = book
        self.invoices = load_invoices(db, book.id)
        self.sales = {sale.id: sale for sale in sales_of(db, book.id) if sale.kind == PLAN}

    def draft_dues(self, now: datetime) -> Iterator[tuple[datetime, Draft, Written]]:
        """Yield what is due by `now`, in order of due instants."""
        book = self.book
        while book.plan_due is not None and book.plan_due <= now:
            at = book.plan_due
            for sale in list(self.sales.values()):
                if sale.standing.until == at:
                    yield self._plan_over(sale, at)
            for (plan, currency), amounts in groups_due(self.invoices.values(), at).items():
                yield self._recognised(plan, currency, amounts, at)
            self.set_due(at)

    def set_due(self, after: datetime) -> None:
        """Say on the book when the next of it falls due."""
        standings = (sale.standing for sale in self.sales.values())
        self.book.plan_due = next_due(self.invoices.values(), standings, after)

    def _plan_over(self, sale: Sale, at: datetime) -> tuple[datetime, Draft, Written]:
        draft = draft_plan_due(sale.id, sale.revision, sale.standing, self.book.plan, at)
        over = replace(sale, standing=sale.standing.over())
        self.sales[sale.id], self.book.plan = over, draft.facts["plan"]
        return at, draft, lambda db: save_standing(db, over, over.standing, over.problem)

    def _recognised(
        self, plan: str, currency: str, amounts: dict[str, int], at: datetime
    ) -> tuple[datetime, Draft, Written]:
        now = []
        for identity, amount in amounts.items():
            invoice = self.invoices[identity]
            invoice = replace(invoice, recognised=recognised(invoice, plan, amount))
            self.invoices[identity] = invoice
            now.append(invoice)

        def write(db: Db) -> None:
            for invoice in now:
                save_invoice(db, invoice)

        return at, draft_recognised(plan, currency, amounts, at), write


def plans_due(db: Db, book: BookState, now: datetime) -> PlansInHand | None:
    """Load what a book pays for plans, if something of it has fallen due."""
    is_due = book.plan_due is not None and book.plan_due <= now
    return PlansInHand(db, book) if is_due else None


def save_standing(db: Db, sale: Sale, standing: Standing, problem: str | None) -> None:
    """Write down what was posted last of what a subscription gives."""
    save_state(db, sale, None, sale.revision, standing, problem)


def plan_at(db: Db, book: BookState, now: datetime) -> str | None:
    """Return the plan that an account is on, also where its time is over and nobody has written that yet."""
    if book.plan_due is None or book.plan_due > now:
        return book.plan
    plans = PlansInHand(db, replace(book))
    for _ in plans.draft_dues(now):
        pass
    return plans.book.plan
