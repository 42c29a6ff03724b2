"""Holding the books against Stripe: what no webhook has brought is taken in, and what disagrees is told."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from billing.plans import PLAN
from billing.sql import Db
from billing.stripe import inbox
from billing.stripe.events import heard_of
from billing.stripe.facts import SESSION, Facts, problem_of, went_back
from billing.stripe.progress import (
    Walk,
    forget_walk,
    load_walk,
    purchases_since,
    quarantined,
    save_walk,
    waiting_events,
)
from billing.stripe.purchases import Sale, known_of, load_sale
from billing.stripe.reconcile import (
    FINDINGS_MAX,
    Disagreement,
    Reconciliation,
    differences,
    has_charge,
)
from policies.errors import ComptrollerError, InvalidRequest, PaymentRefused
from policies.instants import as_utc
from quota.ids import lot_id
from quota.methods.inbox import SEEN_BEFORE, InboxMethods, of_this_account
from quota.methods.retried import retried
from quota.plans import paid_for
from quota.reconciling import MOVES, WITH_SOURCE, Objects, invoices_of

if TYPE_CHECKING:
    from billing.stripe.gateway import Gateway

LISTED: Final = timedelta(days=30)
"""As far back as Stripe lists events."""
GOES_ON_FOR: Final = timedelta(days=1)
"""How long an interrupted reconciliation can be gone on with: what it has found grows old."""
LATE_AFTER_SECONDS: Final = 86_400
"""When a payment without a balance transaction disagrees: Stripe may write one some hours later."""

EVENTS: Final = "event"
PURCHASE: Final = "purchase"
LISTS: Final = (
    *(EVENTS, "checkout.session", "subscription", "invoice", "invoice_payment"),
    *("payment_intent", "refund", "dispute", MOVES, "payout"),
)
MORE: Final[Mapping[str, Mapping[str, Any]]] = {
    MOVES: WITH_SOURCE,
    "subscription": {"status": "all"},
}
Told = Callable[[str, int], object]
Known = tuple[Sale, Facts]


class ReconcilingMethods(InboxMethods):
    """Methods that hold the books against Stripe."""

    def reconcile_stripe(
        self, since: datetime | None = None, *, progress: Told | None = None
    ) -> Reconciliation:
        """Walk through what Stripe has, take in what no webhook has brought, and return what disagrees.

        Events that were lost go into the inbox as if they had come. Then Checkout Sessions, payments, refunds,
        disputes and the movements on the balance are held against our purchases: with these come Stripe's fees, and
        what a payout has brought to the bank. Safe to run at any time, more than once, and while webhooks arrive. One
        that was interrupted goes on where it was.

        Args:
            since: what was made since then is looked at; by default 30 days, as far back as Stripe lists events.
            progress: is told what is looked at, and how much of that was.

        Raises:
            InvalidRequest: `since` is naive or in the future.
            PaymentNotConfigured: there is no Stripe key.
            PaymentRefused: Stripe does not accept the key.
            PaymentUnavailable: Stripe cannot be reached; asked again, it goes on where it was.
            StoreUnavailable: the database cannot be written.
        """
        gateway, now = self._gateway(), self._clock()
        start = now - LISTED if since is None else as_utc(since, "since")
        if start > now:
            raise InvalidRequest("since must not be in the future")
        walk = self._begun(start, now)
        while True:
            self._walk_on(walk, gateway, progress)
            if walk.found.until >= now:
                break
            # What has come while the walk was interrupted.
            walk.found.since_then(now)
            walk.place, walk.after = 0, None
        self._look_back(walk, gateway, progress)
        self._walk_ended()
        return walk.found

    # --- what this is made of ---------------------------------------------------------------

    @property
    def _mode(self) -> str:
        return "live" if self._settings().live else "test"

    def _begun(self, start: datetime, now: datetime) -> Walk:
        """Return the walk that was interrupted, if that is of use, or a new one."""
        with self._db.reading() as db:
            walk = load_walk(db, self._mode, now - GOES_ON_FOR)
        if walk is not None and walk.found.since <= start:
            return walk
        return Walk(Reconciliation(start, now))

    @retried
    def _remember(self, walk: Walk) -> None:
        with self._db.writing() as db:
            save_walk(db, self._mode, walk, self._clock())

    @retried
    def _walk_ended(self) -> None:
        with self._db.writing() as db:
            forget_walk(db, self._mode)

    def _walk_on(self, walk: Walk, gateway: Gateway, told: Told | None) -> None:
        """Work off the lists from where the walk is, and remember each page that was."""
        found = walk.found
        objects = Objects(self._db, gateway, walk, self._take_over)
        made = {"gt" if found.walked else "gte": _seconds(found.walked or found.since)}
        asked: dict[str, Any] = {"created": {**made, "lte": _seconds(found.until)}}
        while walk.place < len(LISTS):
            kind = LISTS[walk.place]
            page = gateway.page(kind, {**asked, **MORE.get(kind, {})}, walk.after)
            if kind == EVENTS:
                self._events(page.items, found)
            else:
                objects.work_off(kind, page.items)
            found.count(kind, len(page.items))
            walk.after = page.after
            walk.place += page.after is None
            self._remember(walk)
            if told is not None:
                told(kind, found.checked[kind])

    def _events(self, items: Sequence[Mapping[str, Any]], found: Reconciliation) -> None:
        """Take in the events that no webhook has brought, of kinds that we follow."""
        with self._db.reading() as db:
            waiting = [each for each in items if _is_open(db, each)]
        for each in waiting:
            payload = json.dumps(each).encode()
            self._keep(of_this_account(payload, self._settings()), payload)
            # What cannot be done now stays in the inbox, and is told of in the end.
            with suppress(ComptrollerError):
                outcome = self.replay_stripe_event(each["id"])
                if outcome.status == "done" and outcome.effect != SEEN_BEFORE:
                    found.apply(EVENTS, outcome.event_id, outcome.effect)

    def _look_back(self, walk: Walk, gateway: Gateway, told: Told | None) -> None:
        """Hold each purchase as it stands now against what has moved at Stripe."""
        found = walk.found
        with self._db.reading() as db:
            for key, kind, status, effect in waiting_events(db, found.until, FINDINGS_MAX):
                said = Disagreement("event", key, None, kind, f"{status}: {effect}".rstrip(": "))
                found.disagree(said)
        for payout in sorted(walk.failed.keys() - walk.recovered):
            ours = "what was booked to the bank stays there until a later payout brings it"
            found.disagree(Disagreement("failed_payout", payout, None, walk.failed[payout], ours))
        for sale, facts in self._pages_of(quarantined):
            self._say_quarantined(sale, facts, found)
        for sale, facts in self._pages_of(partial(purchases_since, since=found.since)):
            self._hold(sale, facts, found)
            self._find_payment(sale, facts, found, gateway)
            found.count(PURCHASE, 1)
            if told is not None:
                told(PURCHASE, found.checked[PURCHASE])
        for key in sorted(walk.older):
            with self._db.reading() as db:
                paid = list(_paid_with(db, key))
            for sale, facts in paid:
                self._hold(sale, facts, found)

    def _pages_of(self, load: Callable[[Db, str], Sequence[Sale]]) -> Iterator[Known]:
        """Yield purchases with all that is known of them, a page of them at a time."""
        after = ""
        while True:
            with self._db.reading() as db:
                page = [_known(db, sale) for sale in load(db, after)]
            yield from page
            if not page:
                return
            after = page[-1][0].id

    def _hold(self, sale: Sale, facts: Facts, found: Reconciliation) -> None:
        until = _seconds(found.until)
        for each in differences(sale.id, facts, sale.terms, sale.state, until):
            found.disagree(each)

    def _say_quarantined(self, sale: Sale, facts: Facts, found: Reconciliation) -> None:
        # A top-up that was declined has a problem too, but nobody's money.
        problem = problem_of(facts, sale.terms)
        if problem is not None and not self._went_back(sale, facts):
            theirs = problem.partition(", the offer was ")[0]
            ours = f"offered: {sale.price_minor} {sale.currency} (minor units)"
            found.disagree(Disagreement("quarantined", sale.id, sale.id, theirs, ours))

    def _went_back(self, sale: Sale, facts: Facts) -> bool:
        if sale.kind != PLAN:
            return went_back(facts)
        with self._db.reading() as db:
            state = paid_for(db, sale)  # its session has no payment of its own: its invoices have
        return state.refunded_minor + state.lost_minor >= state.total_minor

    def _find_payment(
        self, sale: Sale, facts: Facts, found: Reconciliation, gateway: Gateway
    ) -> None:
        """Make sure that what brought a lot was paid, where no movement on the balance says so."""
        paid = [each for each in facts.get(SESSION, {}).values() if each["status"] == "paid"]
        at = min((each["at"] for each in paid), default=0)
        young = at >= _seconds(found.until)
        if sale.lot_no is None or not sale.state.total_minor or has_charge(facts) or young:
            return
        kind, named = "checkout.session", sale.session_id
        if named is None:
            kind, named = "payment_intent", sale.payment
        theirs = "no such payment"
        try:
            about = None if named is None else gateway.retrieve(kind, named)
        except PaymentRefused as error:
            if error.code != "resource_missing":
                raise
            about = None
        if about is not None:
            done = about.get("payment_status") == "paid" or about["status"] == "succeeded"
            if done and at > _seconds(found.until) - LATE_AFTER_SECONDS:
                return
            theirs = "paid, but nothing has moved" if done else f"{kind}: {about['status']}"
        lot = lot_id(sale.book_id, sale.lot_no)
        ours = f"{lot}: {sale.state.total_minor} {sale.currency} (minor units)"
        found.disagree(Disagreement("no_payment", named or sale.id, sale.id, theirs, ours))


def _is_open(db: Db, event: Mapping[str, Any]) -> bool:
    """Whether an event is to be worked off: one of the inbox that was not, or one that has not come there."""
    letter = inbox.letter(db, event["id"])
    if letter is None:
        return _is_followed(event)
    return letter.status in {"received", "failed"} and letter.payload is not None


def _is_followed(event: Mapping[str, Any]) -> bool:
    """Whether an event is about something that we follow; one that cannot be read is for people to look at."""
    try:
        return heard_of(event["data"]["object"], event["type"], event["created"]) is not None
    except ValueError:
        return True


def _paid_with(db: Db, purchase: str) -> Iterator[Known]:
    """Yield a purchase with all that is known of its payment; of a plan, once for each of its invoices."""
    sale = load_sale(db, purchase)
    if sale is not None and sale.kind == PLAN:
        yield from ((each, known_of(db, (payment,))) for each, payment in invoices_of(db, sale))
    elif sale is not None:
        yield _known(db, sale)


def _known(db: Db, sale: Sale) -> Known:
    return sale, known_of(db, (sale.session_id, sale.payment))


def _seconds(at: datetime) -> int:
    return int(at.timestamp())
