"""What the methods about Stripe share: its settings, who asks it, and how what it says is taken over."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from billing.stripe.events import Heard, heard_of
from billing.stripe.plan_facts import PlanRules
from billing.stripe.settings import HOW, StripeSettings
from policies.errors import PaymentNotConfigured
from quota.forks import abandon
from quota.methods.base import Methods
from quota.methods.retried import retried
from quota.payments import hear

if TYPE_CHECKING:
    from billing.stripe.gateway import Gateway


class StripeMethods(Methods):
    """What the methods about Stripe share."""

    _stripe: StripeSettings | None
    _made_gateway: Gateway | None = None
    _made_in: int | None = None

    def _settings(self) -> StripeSettings:
        if self._stripe is None:
            raise PaymentNotConfigured(f"no Stripe key is configured: {HOW}")
        return self._stripe

    @property
    def _plan_rules(self) -> PlanRules:
        return PlanRules(self.policies.plans, self.policies.past_due_grace)

    def _gateway(self) -> Gateway:
        settings = self._settings()
        # A child that was forked meanwhile would read its parent's answers on the connection of both.
        if self._made_gateway is None or self._made_in != os.getpid():
            from billing.stripe.gateway import Gateway  # noqa: PLC0415 - only who sells loads it

            if self._made_gateway is not None:
                abandon(self._made_gateway)
            self._made_gateway, self._made_in = Gateway(settings), os.getpid()
        return self._made_gateway

    def _take_over_answer(self, answer: Mapping[str, Any], event_type: str) -> None:
        """Take in what Stripe has answered, as if it were an event. What cannot be read its event will show."""
        with suppress(ValueError):
            heard = heard_of(answer, event_type, int(self._clock().timestamp()))
            if heard is not None:
                self._take_over(heard)

    @retried
    def _take_over(self, heard: Heard) -> str:
        with self._db.writing() as db:
            stops = self.policies.on_dispute == "stop_paid_use"
            return hear(db, heard, self._clock, self._plan_rules, stops_paid_use=stops)
