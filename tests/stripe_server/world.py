"""The state of one Stripe account: its objects, what happened to them, and the clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from fractions import Fraction
from typing import Any, Final

from tests.stripe_server.copies import copied
from tests.stripe_server.errors import Json, no_such
from tests.stripe_server.identities import Identities

API_VERSION: Final = "2026-08-26.dahlia"
Clock = Callable[[], datetime]
Fees = Callable[[int, str], int]
# Currencies that the account does not hold: the one it holds instead, and the rate into it.
Settlement = Mapping[str, tuple[str, Fraction]]


class World:
    """Everything that this account holds. Who reads or writes it holds the server's lock."""

    def __init__(
        self, clock: Clock, *, fees: Fees, livemode: bool, currency: str, settlement: Settlement
    ) -> None:
        self._clock = clock
        self.fees = fees
        self.livemode = livemode
        self.currency = currency
        self.settlement = settlement
        self.ids = Identities()
        self.account_id = f"acct_1{self.ids.letters(15)}"
        self.opened = self.now()
        self.objects: dict[str, Json] = {}
        # What is left of objects that were deleted, and is served in their place.
        self.deleted: dict[str, Json] = {}
        self.events: list[Json] = []
        self.request: Json = {"id": None, "idempotency_key": None}
        # What Stripe knows about an object and does not serve: how a card behaves, for instance.
        self.notes: dict[str, Json] = {}

    def now(self) -> int:
        """The time in whole seconds since 1970, as Stripe dates everything."""
        return int(self._clock().timestamp())

    # --- objects ------------------------------------------------------------------------------

    def add(self, kind: str, identity: str, /, **fields: Any) -> Json:
        """Create an object, dated now, and return it. Who changes it uses `change`."""
        made: Json = {"id": identity, "object": kind, **fields}
        made.setdefault("created", self.now())
        self.objects[identity] = made
        return made

    def every(self, kind: str) -> list[Json]:
        """All objects of a kind, the latest first: the order of Stripe's lists."""
        return [each for each in reversed(self.objects.values()) if each["object"] == kind]

    def delete(self, subject: Json) -> Json:
        """Forget an object, and return what is left of it."""
        del self.objects[subject["id"]]
        left = {"id": subject["id"], "object": subject["object"], "deleted": True}
        self.deleted[subject["id"]] = left
        self.emit(f"{subject['object']}.deleted", subject)
        return left

    def find(self, identity: str | None, kind: str) -> Json | None:
        found = self.objects.get(identity or "")
        return found if found and found["object"] == kind else None

    def get(self, identity: str, kind: str, *, param: str | None = None) -> Json:
        """Return an object by the id that a request named: in its path, or in a parameter.

        Raises:
            Refusal: there is none; 404 for the path, 400 for a parameter.
        """
        if found := self.find(identity, kind):
            return found
        raise no_such(kind, identity, param=param or "id", status=400 if param else 404)

    def note(self, identity: str) -> Json:
        return self.notes.setdefault(identity, {})

    @staticmethod
    def change(subject: Json, /, **fields: Any) -> Json:
        """Set fields and return the former values of those that differ: `previous_attributes`."""
        before = {
            name: copied(subject.get(name))
            for name, value in fields.items()
            if subject.get(name) != value
        }
        subject.update(fields)
        return before

    # --- events -------------------------------------------------------------------------------

    def emit(self, name: str, subject: Json, previous: Json | None = None) -> Json:
        """Record that something happened, with the object as it is at this moment."""
        data: Json = {"object": copied(subject)}
        if previous is not None:
            data["previous_attributes"] = copied(previous)
        event: Json = {
            "id": f"evt_1{self.ids.letters(23)}",
            "object": "event",
            "api_version": API_VERSION,
            "created": self.now(),
            "data": data,
            "livemode": self.livemode,
            "pending_webhooks": 0,
            "request": dict(self.request),
            "type": name,
        }
        self.events.append(event)
        return event

    def update(self, name: str, subject: Json, /, **fields: Any) -> Json:
        """Change fields and, where one of them differs, say so by an event."""
        if previous := self.change(subject, **fields):
            self.emit(name, subject, previous)
        return subject

    @contextmanager
    def asked_by(self, request: str, key: str | None) -> Iterator[None]:
        """Name the API request that causes what happens inside."""
        self.request = {"id": request, "idempotency_key": key}
        try:
            yield
        finally:
            self.request = {"id": None, "idempotency_key": None}
