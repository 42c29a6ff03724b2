"""What is known of subscriptions at Stripe comes to: which plan they give, and what their invoices pay.

As with payments, each is a function of what is known, whatever order it was heard in. A subscription's status goes
back and forth, so its latest snapshot counts, by the instant of its event. Two things are kept of earlier ones: which
plans were paid for in a period, since a cheaper one takes its place only when that is over, and since when an invoice
is past due.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import datetime
from typing import NamedTuple

from billing.payments import Payment
from billing.plans import MICROS, Span, Standing
from billing.stripe.facts import (
    BILL,
    HELD,
    LATE,
    SESSION,
    SUBSCRIPTION,
    Facts,
    Item,
    Terms,
    payment_of,
)
from policies.instants import Length, from_micros

GIVES = ("trialing", "active")


class PlanRules(NamedTuple):
    """What decides on plans besides Stripe: the plans that there are, and how long one stays that is past due."""

    plans: Collection[str]
    past_due_grace: Length


def standing_of(
    facts: Facts, item: str, rules: PlanRules, before: str | None, now: datetime
) -> Standing:
    """Return what a subscription gives its account now. `item`: the plan that was offered; `before`: the account's."""
    latest = next(iter(facts.get(SUBSCRIPTION, {}).values()), None)
    if latest is None:
        return Standing(before=before)
    status, named = latest["status"], _plan(latest["plan"], item, rules)
    if status == "past_due" and _status(facts, latest["invoice"]) == "paid":
        status = "active"
    held, ends = _held(facts, latest, item, rules), _at(latest["end"])
    standing = Standing(before=before)
    if status == "past_due":
        standing = Standing(held or named, _grace_ends(facts, latest, rules), before=before)
    elif status in GIVES and held not in (None, named) and now < ends:
        standing = Standing(held, ends, named, before)
    elif status in GIVES:
        standing = Standing(named, before=before)
    if latest["cancel_at"] is not None and standing.plan is not None:
        # Whether or not Stripe tells in time that it has ended.
        over = _at(latest["cancel_at"])
        if standing.until is None or over <= standing.until:
            standing = Standing(standing.plan, over, None, before)
    is_over = standing.until is not None and standing.until <= now
    return standing.over() if is_over else standing


def _grace_ends(facts: Facts, latest: Item, rules: PlanRules) -> datetime:
    """Return until when a plan stays that is past due.

    Its grace begins with the first invoice that is still not paid: who never pays has one, not one a month.
    """
    lates = facts.get(LATE, {}).items()
    owed = (late["at"] for key, late in lates if _status(facts, key) not in ("paid", "void"))
    return rules.past_due_grace.after(_at(min(owed, default=latest["at"])))


def _at(seconds: int) -> datetime:
    return from_micros(seconds * MICROS)


def _held(facts: Facts, latest: Item, item: str, rules: PlanRules) -> str | None:
    """Return the dearest plan that was given in the present period: a cheaper one waits for its end."""
    held = [
        (each["price"], each["plan"] == latest["plan"], each["plan"])
        for each in facts.get(HELD, {}).values()
        if each["start"] == latest["start"] and each["of"] == latest["id"]
    ]
    return _plan(max(held)[2], item, rules) if held else None


def _plan(named: str, item: str, rules: PlanRules) -> str:
    """Return the plan that a price stands for: what was offered, where it names none that there is."""
    return named if named in rules.plans else item


def _status(facts: Facts, invoice: str | None) -> str:
    bill = facts.get(BILL, {}).get(invoice or "")
    return "" if bill is None else str(bill["status"])


def paid_by(bill_id: str, bill: Item, of_payment: Facts, *, stops_paid_use: bool) -> Payment:
    """Return what the payment of an invoice has come to. `of_payment`: what is known of its PaymentIntent."""
    if bill["status"] != "paid":
        return Payment()
    paid = {"status": "paid", "subtotal": bill["total"], **bill}
    facts: Facts = {**of_payment, SESSION: {bill_id: paid}}
    terms = Terms(bill["total"], bill["currency"])
    return payment_of(facts, terms, stops_paid_use=stops_paid_use)


def spans_of(bill: Item, facts: Facts, item: str, rules: PlanRules) -> tuple[Span, ...]:
    """Return what an invoice bills by period, without tax and discounts, and for which plan."""
    if bill["status"] != "paid":
        return ()
    plans = {each["id"]: each["plan"] for each in facts.get(HELD, {}).values()}
    spans = [
        Span(amount, start, end, _plan(plans.get(price or "", ""), item, rules))
        for amount, start, end, price in bill["lines"]
    ]
    amounts = list(_net([span.amount_minor for span in spans], bill["net"]))
    both = zip(spans, amounts, strict=True)
    return tuple(sorted(span._replace(amount_minor=amount) for span, amount in both if amount))


def _net(amounts: list[int], net: int) -> Iterator[int]:
    """Yield amounts that add up to `net`: discounts come off those that bill something, in proportion."""
    off, whole = sum(amounts) - net, sum(amount for amount in amounts if amount > 0)
    passed = 0
    for amount in amounts:
        if amount <= 0 or not whole:
            yield amount
            continue
        before = off * passed // whole
        passed += amount
        yield amount - (off * passed // whole - before)
