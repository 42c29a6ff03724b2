"""Stripe's objects against our purchases, a page of them at a time: what we lack is heard, what disagrees is said."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from billing.payments import Payment
from billing.plans import PLAN
from billing.sql import Db
from billing.stripe.events import Heard, heard_of, move_of
from billing.stripe.facts import INTENT, MOVE, SESSION, Facts, joined, problem_of, went_back
from billing.stripe.plan_events import shows_few_lines
from billing.stripe.plan_rows import invoice_payments, load_invoices
from billing.stripe.progress import Walk, is_customer
from billing.stripe.purchases import Sale, known_of, load_sale, sale_of_payment
from billing.stripe.reconcile import (
    Disagreement,
    PayoutCheck,
    named_purchase,
    news,
    steps_back,
)
from policies.errors import ComptrollerError, PaymentRefused, in_one_line
from quota.payments import sale_of
from quota.plans import NOTHING_NEW
from quota.stores.base import Store

if TYPE_CHECKING:
    from billing.stripe.gateway import Gateway

Json = Mapping[str, Any]
log: Final = logging.getLogger("comptroller.stripe")
MOVES: Final = "balance_transaction"
CAME_BACK: Final = ("payout_failure", "payout_cancel")
WITH_SOURCE: Final = {"expand": ["data.source"]}


@dataclass(frozen=True, slots=True)
class Moved:
    """A balance transaction with what it came of. `sale`: the purchase of ours that it belongs to."""

    row: Json
    source: Json
    sale: Sale | None
    suspect: bool


class Objects:
    """Holds Stripe's objects against our purchases. What it finds it adds to the walk."""

    def __init__(
        self, db: Store, gateway: Gateway, walk: Walk, hear: Callable[[Heard], str]
    ) -> None:
        """Take along where purchases are, where more can be asked, and how something is heard of a payment."""
        self._db, self._gateway, self._walk, self._hear = db, gateway, walk, hear
        self._found = walk.found
        self._until = int(walk.found.until.timestamp())

    def work_off(self, kind: str, items: Sequence[Json]) -> None:
        """Work off a page of objects of a kind."""
        if kind == "payout":
            for payout in items:
                self._payout(payout)
        elif kind == MOVES:
            self._moves(items)
        else:
            gateway = self._gateway
            whole = [
                gateway.with_all_lines(each) if shows_few_lines(each) else each for each in items
            ]
            with self._db.reading() as db:
                seen = [each for about in whole for each in self._seen(db, about)]
            for heard, sale, known in seen:
                self._take_over(kind, heard, sale, known)

    def _seen(self, db: Db, about: Json) -> Iterator[tuple[Heard, Sale, Facts]]:
        """Yield what an object says of a purchase of ours, with what is known of that."""
        try:
            # The status of a subscription goes back and forth: it is as it is now.
            is_plan = about["object"] == "subscription"
            heard = heard_of(about, "", self._until if is_plan else int(about["created"]))
        except ValueError as error:
            self._found.disagree(Disagreement("unreadable", about["id"], None, str(error), "-"))
            return
        if heard is None or not _tells(heard.facts):
            return
        sale = sale_of(db, heard)
        if sale is not None:
            yield heard, sale, _known(db, heard.payment, sale)
            return
        for item in heard.facts.get(SESSION, {}).values():
            if item["status"] != "paid":
                continue
            if heard.purchase is None and not _is_of_a_buyer(db, about):
                self._found.leave("checkout.session", item["currency"], item["total"])
                continue
            theirs = f"paid: {item['total']} {item['currency']} (minor units)"
            self._say_no_purchase(db, about["id"], heard.purchase, theirs)

    def _take_over(self, kind: str, heard: Heard, sale: Sale, known: Facts) -> None:
        for each in steps_back(sale.id, known, heard.facts, self._until):
            self._found.disagree(each)
        fresh = news(known, heard.facts, self._until)
        if sale.created_at < self._found.since or sale.kind == PLAN:
            self._walk.older.add(sale.id)
        if fresh is None:
            return
        about = next(key for items in heard.facts.values() for key in items)
        try:
            effect = self._hear(replace(heard, facts=fresh))
        except ComptrollerError:
            raise
        except Exception as error:
            log.exception("%s of Stripe's cannot be taken over", about)
            ours = f"cannot be taken over: {in_one_line(error)}"
            self._found.disagree(Disagreement("event", about, sale.id, kind, ours))
            return
        self._found.apply(kind, about, "learnt" if effect == NOTHING_NEW else effect)

    # --- movements on the balance -----------------------------------------------------------

    def _moves(self, rows: Sequence[Json]) -> None:
        for each in self._hear_moves(rows, paid_out=False):
            row, source = each.row, each.source
            if row["type"] in CAME_BACK:
                back = f"failed: {row['amount']} {row['currency']} (minor units) are back"
                self._walk.failed[str(source["id"])] = back
            elif each.suspect:
                theirs = f"{row['type']}: {row['amount']} {row['currency']} (minor units)"
                with self._db.reading() as db:
                    self._say_no_purchase(db, row["id"], named_purchase(source), theirs)
            elif each.sale is None and row["type"] != "payout":
                self._found.leave(row["type"], row["currency"], row["net"])

    def _hear_moves(self, rows: Sequence[Json], *, paid_out: bool) -> list[Moved]:
        """Hear of balance transactions, all of one payment at once."""
        moved = self._moved(rows)
        learnt = [self._learn_of_session(each) for each in moved if each.suspect]
        if any(learnt):
            moved = self._moved(rows)
        of_payment: dict[str, tuple[Sale, Facts]] = {}
        for each in moved:
            if each.sale is not None:
                payment = _intent_of(each.source) or ""
                facts = of_payment.get(payment, (each.sale, {}))[1]
                said = self._facts_of(each, paid_out=paid_out)
                of_payment[payment] = each.sale, joined(facts, said)
        for payment, (sale, facts) in of_payment.items():
            with self._db.reading() as db:
                known = _known(db, payment, sale)
            self._take_over(MOVES, Heard(payment, facts), sale, known)
        return moved

    def _moved(self, rows: Sequence[Json]) -> list[Moved]:
        with self._db.reading() as db:
            return [_moved(db, row) for row in rows]

    def _learn_of_session(self, moved: Moved) -> bool:
        """Where a payment says that it is for a purchase that knows nothing of it, ask for that one's session."""
        named = named_purchase(moved.source)
        with self._db.reading() as db:
            sale = None if named is None else load_sale(db, named)
        if sale is None or sale.session_id is None or sale.payment is not None:
            return False
        try:
            session = self._gateway.retrieve("checkout.session", sale.session_id)
        except PaymentRefused:
            return False
        if session is None or session["payment_intent"] != _intent_of(moved.source):
            return False
        self.work_off("checkout.session", [session])
        return True

    def _facts_of(self, moved: Moved, *, paid_out: bool) -> Facts:
        """Return what a balance transaction says, and the refund or dispute that it came of."""
        row, source = moved.row, moved.source
        move = move_of(row, str(source["id"]), paid_out=paid_out)
        facts: Facts = {MOVE: {str(row["id"]): move}}
        try:
            heard = heard_of(source, "", int(source["created"]))
        except ValueError as error:
            self._found.disagree(Disagreement("unreadable", source["id"], None, str(error), "-"))
            return facts
        return facts if heard is None else joined(heard.facts, facts)

    def _payout(self, payout: Json) -> None:
        payout_id, amount, currency = str(payout["id"]), payout["amount"], payout["currency"]
        if payout["status"] in ("failed", "canceled"):
            back = f"{payout['status']}: {amount} {currency} (minor units) are back"
            self._walk.failed[payout_id] = back
        if payout["status"] != "paid" or payout["reconciliation_status"] == "in_progress":
            return  # Not all of it is known yet.
        theirs = f"{amount} {currency} (minor units)"
        if not payout["automatic"]:
            ours = "Stripe does not say what a payout by hand is made of"
            self._found.disagree(Disagreement("payout", payout_id, None, theirs, ours))
            return
        booked = not_ours = carried = 0
        for each in self._rows_of(payout_id):
            row = each.row
            if row["type"] in CAME_BACK:
                # Its money arrives with this payout, and with it all that the failed one held.
                carried += row["net"]
                before = str(each.source["id"])
                self._walk.recovered.add(before)
                list(self._rows_of(before))
            elif each.sale is not None and not self._is_quarantined(each.sale):
                booked += _booked(each, each.sale)
            elif self._is_none_of_ours(each):
                not_ours += row["net"]
        check = PayoutCheck(payout_id, currency, amount, booked, not_ours, carried)
        self._found.payouts.append(check)
        if check.left_minor:
            ours = f"{booked} cleared, {not_ours} not ours, {carried} of failed payouts"
            self._found.disagree(Disagreement("payout", payout_id, None, theirs, ours))

    def _is_quarantined(self, sale: Sale) -> bool:
        """Whether nothing of its payment is on the books. What invoices of plans have paid always is."""
        if sale.kind == PLAN or sale.problem is None:
            return False
        with self._db.reading() as db:
            return problem_of(_known(db, "", sale), sale.terms) is not None

    def _is_none_of_ours(self, moved: Moved) -> bool:
        """Whether a movement is plainly not ours, or was given back because it was for none of our offers."""
        if moved.sale is None:
            return moved.row["type"] != "payout" and not moved.suspect
        with self._db.reading() as db:
            return went_back(_known(db, "", moved.sale))

    def _rows_of(self, payout: str) -> Iterator[Moved]:
        """Yield what a payout holds, once its money has arrived, and hear of it."""
        after = None
        while True:
            page = self._gateway.page(MOVES, {"payout": payout, **WITH_SOURCE}, after)
            yield from self._hear_moves(page.items, paid_out=True)
            after = page.after
            if after is None:
                return

    def _say_no_purchase(self, db: Db, about: str, purchase: str | None, theirs: str) -> None:
        ours = "no such purchase"
        if purchase is not None:
            is_ours = load_sale(db, purchase) is not None
            ours = "that purchase is of another payment" if is_ours else f"{ours}: `{purchase:.80}`"
        self._found.disagree(Disagreement("no_purchase", about, purchase, theirs, ours))


def _tells(facts: Facts) -> bool:
    """Whether it says something of a payment: what a session has led to is told by the session."""
    return all("total" in item for item in facts.get(INTENT, {}).values())


def invoices_of(db: Db, sale: Sale) -> list[tuple[Sale, str]]:
    """Return a subscription once for each of its invoices, as that was paid, with the PaymentIntent that has."""
    invoices = load_invoices(db, sale.book_id)
    return [
        (replace(sale, currency=invoices[key].currency, state=invoices[key].payment), payment)
        for key, payment in invoice_payments(db, sale.book_id)
        if payment is not None and invoices[key].purchase == sale.id
    ]


def _known(db: Db, payment: str, sale: Sale) -> Facts:
    return known_of(db, {payment, sale.session_id, sale.payment})


def _is_of_a_buyer(db: Db, about: Json) -> bool:
    customer = about.get("customer")
    return isinstance(customer, str) and is_customer(db, customer)


def _moved(db: Db, row: Json) -> Moved:
    source = row["source"] if isinstance(row["source"], Mapping) else {"id": row["source"]}
    intent = _intent_of(source)
    sale = None if intent is None else sale_of_payment(db, intent)
    if sale is not None and sale.kind == PLAN:
        sale = next((each for each, paid in invoices_of(db, sale) if paid == intent), sale)
    ours = named_purchase(source) is not None or _is_of_a_buyer(db, source)
    return Moved(row, source, sale, sale is None and ours)


def _intent_of(source: Json) -> str | None:
    intent = source.get("payment_intent")
    return intent if isinstance(intent, str) else None


def _booked(moved: Moved, sale: Sale) -> int:
    """Return what the books have cleared for a balance transaction, in minor units."""
    row, state = moved.row, sale.state
    if row["currency"] != sale.currency:
        return 0
    if moved.source.get("object") != "charge":
        return int(row["net"])
    return _charged(state) - int(row["fee"])


def _charged(state: Payment) -> int:
    return state.total_minor if state.paid else 0
