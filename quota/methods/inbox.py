"""Methods about what Stripe sends: events are verified, kept in the inbox, and worked off once."""

from __future__ import annotations

import logging
from contextlib import suppress
from datetime import timedelta
from typing import Final

from billing.stripe import inbox
from billing.stripe.events import Event, Heard, heard_of, parsed, related
from billing.stripe.plan_events import shows_few_lines
from billing.stripe.settings import HOW, StripeSettings
from billing.stripe.signature import check_signature
from policies.errors import (
    ComptrollerError,
    InvalidRequest,
    PaymentNotConfigured,
    PaymentRefused,
    in_one_line,
)
from policies.units import whole
from quota.methods.base import HostSession
from quota.methods.retried import retried
from quota.methods.stripe import StripeMethods
from quota.payments import hear, of_nobody
from quota.sales import StripeOutcome

TRIES: Final = 10
"""How often an event that fails is tried before it waits for somebody to look at it."""

IGNORED_KEPT: Final = timedelta(days=30)
"""How long the bytes of ignored events are kept: for as long as Stripe lists them."""

SEEN_BEFORE: Final = "seen before"
_WORKED_OFF: Final = ("done", "ignored")
log: Final = logging.getLogger("comptroller.stripe")


class InboxMethods(StripeMethods):
    """Methods about what Stripe sends."""

    def handle_stripe_event(
        self, payload: bytes, signature: str, *, session: HostSession | None = None
    ) -> StripeOutcome:
        """Take in an event that Stripe has sent to your endpoint, and do what follows from it, once.

        Answer 200 when it returns, whatever the outcome: the event is kept. One that fails is tried again by `sweep`,
        and can be looked at with `comptroller stripe events`.

        Args:
            payload: the request's body, as bytes, unchanged.
            signature: the request's `Stripe-Signature` header.
            session: the host's own session; the event is kept, and its effects are, when that commits.

        Raises:
            InvalidSignature: Stripe did not sign it with one of the secrets, or not lately.
            InvalidRequest: it is no event, or of another mode or account.
            PaymentNotConfigured: there is no Stripe key, or no webhook secret.
            AccountBusy: the account stayed locked past the timeout. Answer 500: Stripe sends it again.
            StoreUnavailable: the database cannot be written. Answer 500: Stripe sends it again.
            PaymentUnavailable: it is a thin event, or of a long invoice, and Stripe cannot be asked now. Answer 500.
            PaymentRefused: it is such an event, and Stripe does not accept the key. Answer 500.
        """
        settings = self._settings()
        if not isinstance(payload, bytes):
            raise InvalidRequest("payload must be the request's body as bytes, not parsed")
        if not settings.webhook_secrets:
            raise PaymentNotConfigured(f"no webhook secret is configured: {HOW}")
        check_signature(payload, signature, settings.webhook_secrets, self._clock())
        event = of_this_account(payload, settings)
        if session is not None:
            return self._take_in(event, payload, session=session)
        self._keep(event, payload)
        return self.replay_stripe_event(event.id)

    def replay_stripe_event(
        self, event_id: str, *, session: HostSession | None = None
    ) -> StripeOutcome:
        """Work off an event of the inbox, unless that was done.

        Raises:
            InvalidRequest: there is no such event, or its bytes were erased.
            AccountBusy: the account stayed locked past the timeout.
            StoreUnavailable: the database cannot be written.
            PaymentUnavailable: it is a thin event, or of a long invoice, and Stripe cannot be asked now.
            PaymentRefused: it is such an event, and Stripe does not accept the key.
        """
        with self._db.reading() as db:
            letter = _checked(inbox.letter(db, event_id), event_id)
        if letter.status in _WORKED_OFF:
            return StripeOutcome(letter.id, letter.type, letter.status, SEEN_BEFORE)
        if letter.payload is None:
            raise InvalidRequest(f"the bytes of event `{event_id:.80}` were erased")
        return self._work_off(event_id, self._meaning(letter.payload), session)

    @retried
    def stripe_events(
        self, status: inbox.Status | None = None, *, most: int = 50
    ) -> list[inbox.Letter]:
        """Return the events of the inbox that came last, latest first; of one status, where given."""
        with self._db.reading() as db:
            return inbox.letters(db, status, whole(most, "most", most=10_000))

    # --- what these are made of -------------------------------------------------------------

    def _work_off_the_inbox(self) -> None:
        """Try the events again that could not be worked off, unless that was tried often enough."""
        with self._db.reading() as db:
            waiting = inbox.open_letters(db, tries=TRIES)
        for event_id in waiting:
            # What cannot be done now stays in the inbox, and keeps nobody from the rest of the sweep.
            with suppress(ComptrollerError):
                self.replay_stripe_event(event_id)

    def _erase_ignored(self) -> None:
        """Erase the bytes of events that were ignored long ago: they may name somebody who was forgotten."""
        before = self._clock() - IGNORED_KEPT
        while True:
            with self._db.reading() as db:
                old = inbox.old_ignored(db, before)
            if not old:
                return
            with self._db.writing() as db:
                for event_id in old:
                    inbox.erase(db, event_id)

    @retried
    def _keep(self, event: Event, payload: bytes) -> None:
        with self._db.writing() as db:
            inbox.keep(db, event, payload, self._clock())

    def _take_in(self, event: Event, payload: bytes, *, session: HostSession) -> StripeOutcome:
        """Keep an event and work it off, in the host's transaction."""
        meaning = self._meaning(payload)  # before anything is locked
        with self._db.writing(session) as db:
            inbox.keep(db, event, payload, self._clock())
        return self._work_off(event.id, meaning, session)

    def _meaning(self, payload: bytes) -> Heard | Exception | None:
        """Return what an event says of a payment: nothing, where it is about none, or why it cannot be read.

        A thin event says only what it is about, and one of a long invoice shows but its first lines: Stripe is asked
        for the rest, before any lock is taken.
        """
        try:
            event = parsed(payload)
            about = event.object
            if about is None:
                about = self._gateway().retrieve(*related(payload))
            at = int(event.created.timestamp())
            if about is None:
                return None
            heard = heard_of(about, event.type.removeprefix("v1."), at)
            if heard is not None and shows_few_lines(about):
                about = self._gateway().with_all_lines(about)
                heard = heard_of(about, event.type, at)
            return heard
        except ValueError as error:
            return error
        except PaymentRefused as error:
            if error.code is None:
                raise  # it is our key that Stripe refuses, and the event is as good as before
            return error

    def _work_off(
        self, event_id: str, meaning: Heard | Exception | None, session: HostSession | None
    ) -> StripeOutcome:
        """Do what follows from an event. One that the books cannot take is kept as failed, like one that is no event.

        It would be in the way of every sweep otherwise, and Stripe would send it for days.
        """
        try:
            return self._worked_off(event_id, meaning, session=session)
        except ComptrollerError:
            raise
        except Exception as error:
            log.exception("event %s of Stripe's cannot be worked off", event_id)
            return self._worked_off(event_id, error, session=session)

    @retried
    def _worked_off(
        self,
        event_id: str,
        meaning: Heard | Exception | None,
        *,
        session: HostSession | None = None,
    ) -> StripeOutcome:
        """Do what follows from an event, once, and say what that was, in one transaction."""
        with self._db.writing(session) as db:
            letter = _checked(inbox.lock_letter(db, event_id), event_id)
            if letter.status in _WORKED_OFF:
                return StripeOutcome(letter.id, letter.type, letter.status, SEEN_BEFORE)
            status: inbox.Status = "done"
            payment = None
            if isinstance(meaning, Heard):
                payment, stops = meaning.payment, self.policies.on_dispute == "stop_paid_use"
                effect = hear(db, meaning, self._clock, self._plan_rules, stops_paid_use=stops)
            elif meaning is None:
                status, effect = "ignored", "not about a payment that we follow"
            else:
                status, effect = "failed", in_one_line(meaning)
            inbox.end(db, letter.id, status, effect, payment)
            if payment is not None and isinstance(meaning, Heard) and of_nobody(db, meaning):
                inbox.erase_of_payment(db, payment)
        return StripeOutcome(letter.id, letter.type, status, effect)


def of_this_account(payload: bytes, settings: StripeSettings) -> Event:
    """Read an event, and make sure that it is of the account and the mode that the key is of."""
    try:
        event = parsed(payload)
    except ValueError as error:
        raise InvalidRequest(str(error)) from None
    if event.live != settings.live:
        modes = ("live" if live else "test" for live in (event.live, settings.live))
        said, ours = modes
        raise InvalidRequest(f"event `{event.id}` is of {said} mode, and the key is of {ours} mode")
    if event.account is not None:
        raise InvalidRequest(f"event `{event.id}` is of another Stripe account, `{event.account}`")
    return event


def _checked(letter: inbox.Letter | None, event_id: str) -> inbox.Letter:
    if letter is None:
        raise InvalidRequest(f"there is no event `{event_id:.80}`")
    return letter
