"""Plans that are paid for: what an invoice pays is earned over its period, and the plan stays as long as it is paid.

Of an amount a over the period [start, end), a x elapsed // length is earned, day by day in UTC: each day's part is a
record dated to the day's last microsecond, so that a month has the revenue of its own days. Records post differences,
so that any order of payments, changes and refunds closes to the cent. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from typing import Any, Final, NamedTuple

from billing import chart
from billing.draft import Draft, Line
from billing.payments import Payment, money_moves
from billing.transfer import Transfer
from policies.instants import from_micros, micros

INVOICE: Final = "invoice"
RECOGNISED: Final = "recognised"
SUBSCRIPTION: Final = "subscription"
PLAN: Final = "plan"
"""The kind of a purchase that pays for a plan, and of a record that changes one."""
PLAN_DUE: Final = "plan_due"
"""How the keys of records begin that change a plan because its time is over."""

MICROS: Final = 1_000_000
DAY: Final = timedelta(days=1)
DAY_SECONDS: Final = 86_400
LAST_MOMENT: Final = timedelta(microseconds=1)


class Span(NamedTuple):
    """A line of an invoice: minor units (below zero: credited), from `start` to `end` in seconds since 1970."""

    amount_minor: int
    start: int
    end: int
    plan: str

    def earned_minor(self, until: int) -> int:
        """Return what of it is earned by an instant, in seconds since 1970. What has no length is earned at once."""
        if until >= self.end:
            return self.amount_minor
        if until <= self.start:
            return 0
        part = abs(self.amount_minor) * (until - self.start) // (self.end - self.start)
        return part if self.amount_minor >= 0 else -part


@dataclass(frozen=True, slots=True)
class Invoice:
    """An invoice as the books have it. Money in minor units of `currency`.

    `recognised`: what was earned, by plan. `revoked_minor`: what refunds and lost disputes took of what was not earned.
    """

    id: str
    purchase: str
    currency: str
    payment: Payment = field(default_factory=Payment)
    spans: tuple[Span, ...] = ()
    recognised: tuple[tuple[str, int], ...] = ()
    revoked_minor: int = 0
    revision: int = 0

    @property
    def net_minor(self) -> int:
        """What it bills without tax: below zero where it credits more than it bills."""
        return sum(span.amount_minor for span in self.spans)

    @property
    def recognised_minor(self) -> int:
        """What was earned of it."""
        return sum(amount for _, amount in self.recognised)

    @property
    def deferred_minor(self) -> int:
        """What was paid and is neither earned nor revoked. What a buyer has in credit at Stripe counts as paid."""
        paid = self.payment.price_minor if self.payment.paid else 0
        return paid - self.recognised_minor - self.revoked_minor

    @property
    def loss_minor(self) -> int:
        """What lost disputes took of what was earned."""
        returned = self.payment.returned_minor
        return max(0, min(self.payment.charged_back_minor, returned - self.revoked_minor))

    def to_revoke_minor(self) -> int:
        """Return what refunds and lost disputes take of what is not earned: that first, and no more than there is."""
        return max(0, min(self.payment.returned_minor, self.net_minor - self.recognised_minor))

    def due_by(self, until: int) -> dict[str, int]:
        """Return by plan what is to be recognised until an instant: what was recognised is taken off. Not zero."""
        earned: dict[str, int] = {}
        for span in self.spans:
            earned[span.plan] = earned.get(span.plan, 0) + span.earned_minor(until)
        # What was given back is taken from the end: until then it is earned as if nothing had been.
        over = max(0, sum(earned.values()) - max(0, self.net_minor - self.revoked_minor))
        if self.revoked_minor:
            for plan in sorted(earned, reverse=True):
                less = min(over, max(0, earned[plan]))
                earned[plan], over = earned[plan] - less, over - less
        for plan, amount in self.recognised:
            earned[plan] = earned.get(plan, 0) - amount
        return {plan: amount for plan, amount in earned.items() if amount}

    @property
    def ends(self) -> int:
        """When the last of it is earned, in seconds since 1970."""
        return max((span.end for span in self.spans), default=0)


@dataclass(frozen=True, slots=True)
class Standing:
    """What a subscription gives its account. `plan` until `until` (None: until Stripe says otherwise), then `then`.

    None for a plan: the one that the account had before, `before`, where None is the default plan.
    """

    plan: str | None = None
    until: datetime | None = None
    then: str | None = None
    before: str | None = None

    def facts(self) -> dict[str, Any]:
        """Return what a record says of it: what is not nothing."""
        values = {"plan": self.plan, "then": self.then, "before": self.before}
        until = {} if self.until is None else {"until": micros(self.until)}
        return {name: value for name, value in values.items() if value is not None} | until

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Standing:
        """Return what a record says of it."""
        until = {"until": from_micros(facts["until"])} if "until" in facts else {}
        return cls(**{**facts, **until})

    @property
    def gives(self) -> str | None:
        """The plan that the account is on because of it, or again."""
        return self.before if self.plan is None else self.plan

    def over(self) -> Standing:
        """Return what follows when its time is over."""
        return Standing(self.then, before=self.before)


def next_day_end(after: datetime) -> datetime:
    """Return the last moment of a UTC day that comes next after an instant."""
    midnight = datetime.combine(after.date() + DAY, time(), tzinfo=UTC)
    end = midnight - LAST_MOMENT
    return end if end > after else end + DAY


def midnight_after(day_end: datetime) -> int:
    """Return the midnight with which a day ends, in seconds since 1970."""
    return (micros(day_end) + 1) // MICROS


def groups_due(
    invoices: Iterable[Invoice], day_end: datetime
) -> dict[tuple[str, str], dict[str, int]]:
    """Return what is to be recognised at the end of a day: by plan and currency, of which invoices."""
    groups: dict[tuple[str, str], dict[str, int]] = {}
    until = midnight_after(day_end)
    if until % DAY_SECONDS:
        return {}  # something else is due at another time of the day
    for invoice in sorted(invoices, key=lambda each: each.id):
        for plan, amount in sorted(invoice.due_by(until).items()):
            groups.setdefault((plan, invoice.currency), {})[invoice.id] = amount
    return dict(sorted(groups.items()))


def next_recognition(invoices: Iterable[Invoice], after: datetime) -> datetime | None:
    """Return the end of the first day after an instant at which something is to be recognised; None: never again."""
    open_ones = [each for each in invoices if each.due_by(each.ends)]
    last = max((each.ends for each in open_ones), default=0)
    end = next_day_end(after)
    while open_ones:
        if groups_due(open_ones, end):
            return end
        if midnight_after(end) >= last:
            break
        end += DAY
    return None


def next_due(
    invoices: Iterable[Invoice], standings: Iterable[Standing], after: datetime
) -> datetime | None:
    """Return when the next thing falls due of what an account pays for plans; None: nothing does."""
    dues = [each.until for each in standings if each.until is not None]
    recognition = next_recognition(invoices, after)
    return min([*dues, *([] if recognition is None else [recognition])], default=None)


def draft_recognised(
    plan: str, currency: str, of_invoices: Mapping[str, int], at: datetime
) -> Draft:
    """Draft the recognition of what a day has earned of a plan, in minor units by invoice."""
    total, day = sum(of_invoices.values()), at.date().isoformat()
    accounts = chart.money(chart.DEFERRED_PLAN, currency), chart.money(chart.REVENUE, currency)
    return Draft(
        RECOGNISED,
        at,
        {"day": day, "currency": currency, "invoices": dict(of_invoices)},
        once=f"{RECOGNISED}:{day}:{plan}:{currency}",
        plan=plan,
        transfers=tuple(_moved(*accounts, currency, total)),
        lines=(Line(currency=currency, revenue_minor=total),) if total else (),
    )


def recognised(invoice: Invoice, plan: str, amount_minor: int) -> tuple[tuple[str, int], ...]:
    """Return what is earned of an invoice after so much more of a plan."""
    amounts = dict(invoice.recognised)
    amounts[plan] = amounts.get(plan, 0) + amount_minor
    return tuple(sorted((name, amount) for name, amount in amounts.items() if amount))


def draft_invoice(before: Invoice, now: Invoice, at: datetime) -> Draft:
    """Draft what takes the books from one state of an invoice to the next."""
    currency = now.currency
    deferred, cash, refunded, loss, returned = (
        chart.money(name, currency)
        for name in (
            *(chart.DEFERRED_PLAN, chart.CASH, chart.REFUNDED),
            *(chart.CHARGEBACK_LOSS, chart.RETURNED),
        )
    )
    sold = _price(now) - _price(before)
    revoked = now.revoked_minor - before.revoked_minor
    transfers = (
        *money_moves(currency, before.payment, now.payment),
        *_moved(cash, deferred, currency, sold),
        *_moved(deferred, refunded, currency, revoked),
        *_moved(loss, returned, currency, now.loss_minor - before.loss_minor),
    )
    line = Line(
        currency=currency,
        sold_minor=sold,
        refunded_minor=revoked,
        returned_minor=now.payment.returned_minor - before.payment.returned_minor,
        fee_minor=now.payment.fee_minor - before.payment.fee_minor,
    )
    return Draft(
        INVOICE,
        at,
        {
            "purchase": now.purchase,
            "invoice": now.id,
            "revision": now.revision,
            "currency": currency,
            "payment": now.payment.facts(),
            "spans": [list(span) for span in now.spans],
            "revoked_minor": now.revoked_minor,
        },
        once=f"{INVOICE}:{now.id}:{now.revision}",
        transfers=transfers,
        lines=() if line == Line(currency=currency) else (line,),
        opens_payments_in=currency,
    )


def draft_subscription(purchase: str, revision: int, standing: Standing, at: datetime) -> Draft:
    """Draft the record of what a subscription gives its account from now on."""
    return Draft(
        SUBSCRIPTION,
        at,
        {"purchase": purchase, "revision": revision, "standing": standing.facts()},
        once=f"{SUBSCRIPTION}:{purchase}:{revision}",
    )


def draft_plan_due(
    purchase: str, revision: int, standing: Standing, plan: str | None, at: datetime
) -> Draft:
    """Draft the change of plan that time brings. `plan`: the account's plan before it.

    A plan that the host has set meanwhile stays.
    """
    return Draft(
        "plan",
        at,
        {"plan": changed_plan(plan, standing, standing.over())},
        once=f"{PLAN_DUE}:{purchase}:{revision}",
    )


def changed_plan(plan: str | None, before: Standing, now: Standing) -> str | None:
    """Return an account's plan after a change of what its subscription gives.

    What the host has set otherwise stays, unless the subscription gives another plan than before.
    """
    if now.plan is not None and now.plan != before.plan:
        return now.plan
    return now.gives if plan == before.gives else plan


def _price(invoice: Invoice) -> int:
    return invoice.payment.price_minor if invoice.payment.paid else 0


def _moved(debit: str, credit: str, currency: str, amount: int) -> list[Transfer]:
    if not amount:
        return []
    one, other = (debit, credit) if amount > 0 else (credit, debit)
    return [Transfer(one, other, currency, abs(amount))]
