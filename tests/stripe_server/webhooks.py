"""Deliveries: events, signed, in whatever order and number a bad day brings them."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from tests.stripe_server.errors import Json
from tests.stripe_server.happenings import matches, notification
from tests.stripe_server.world import World

ROTATION_SECONDS: Final = 86_400
TIMEOUT_SECONDS: Final = 10
# Stripe tries for three days, ever more seldom: seconds after the attempt before.
RETRY_SECONDS: Final = (300, 1_800, 7_200, 18_000, 36_000, *[43_200] * 4)


class Delivery(NamedTuple):
    """The body of a webhook request and its `Stripe-Signature`."""

    payload: bytes
    header: str

    @property
    def event(self) -> Json:
        """The event, or the notification of one, that the body holds."""
        read: Json = json.loads(self.payload)
        return read


@dataclass
class Secrets:
    """The secrets of an endpoint. After a rotation both sign for a day."""

    now: Callable[[], int]
    current: str
    former: list[tuple[str, int]] = field(default_factory=list)

    def roll(self, secret: str) -> None:
        self.former.append((self.current, self.now() + ROTATION_SECONDS))
        self.current = secret

    @property
    def valid(self) -> list[str]:
        old = [secret for secret, until in self.former if self.now() < until]
        return [self.current, *reversed(old)]

    def sign(self, payload: bytes) -> str:
        """Return the header for a body: the time, and a signature by each valid secret.

        `v0` is what Stripe adds in test mode, and proves nothing.
        """
        time = self.now()
        signed = f"{time}.".encode() + payload
        digests = [hmac.new(each.encode(), signed, hashlib.sha256) for each in self.valid]
        parts = [f"v1={digest.hexdigest()}" for digest in digests]
        fake = hashlib.sha256(signed).hexdigest()
        return ",".join([f"t={time}", *parts, f"v0={fake}"])


@dataclass(frozen=True)
class Filter:
    """Which events are delivered, and how badly."""

    types: tuple[str, ...] = ("*",)
    since: int = 0
    thin: bool = False
    copies: int = 1
    shuffle: int | None = None
    older_than_seconds: int = 0
    drop: Callable[[Json], bool] = lambda event: False

    def chosen(self, events: Iterable[Json], now: int) -> list[Json]:
        """The events to deliver: so many copies of each, those dropped left out, and shuffled."""
        picked = [
            event
            for event in list(events)[self.since :]
            if any(matches(event["type"], each) for each in self.types)
            and now - event["created"] >= self.older_than_seconds
            and not self.drop(event)
            for _ in range(self.copies)
        ]
        if self.shuffle is not None:
            random.Random(self.shuffle).shuffle(picked)
        return picked


def packed(event: Json, secrets: Secrets, *, thin: bool) -> Delivery:
    """Write an event as a webhook request carries it."""
    body = notification(event) if thin else event
    payload = json.dumps(body, indent=2).encode()
    return Delivery(payload, secrets.sign(payload))


# --- over HTTP ----------------------------------------------------------------------------------


@dataclass
class _Due:
    event: Json
    at: int
    tried: int = 0


@dataclass
class Attempt:
    """One request to an endpoint: what it answered, or None where it did not."""

    event: str
    at: int
    status: int | None


class Endpoint:
    """An endpoint that is sent events over HTTP until it accepts them.

    Nothing is sent by itself: `deliver` sends what is due by the clock.
    """

    def __init__(self, world: World, secrets: Secrets, url: str, chosen: Filter) -> None:
        """Send to the URL what happens from now on, as far as the filter lets it."""
        self.url = url
        self.attempts: list[Attempt] = []
        self._world = world
        self._secrets = secrets
        self._filter = chosen
        self._seen = chosen.since or len(world.events)
        self._waiting: list[_Due] = []

    def collect(self) -> None:
        """Queue what has happened since the last time."""
        fresh = self._world.events[self._seen :]
        self._seen = len(self._world.events)
        now = self._world.now()
        for event in replace(self._filter, since=0).chosen(fresh, now):
            event["pending_webhooks"] += 1
            self._waiting.append(_Due(event, now))

    def due(self) -> list[_Due]:
        return [each for each in self._waiting if each.at <= self._world.now()]

    def deliver(self) -> list[Attempt]:
        """Send everything that is due, once, and return the attempts."""
        self.collect()
        made = []
        for each in self.due():
            delivery = packed(each.event, self._secrets, thin=self._filter.thin)
            attempt = Attempt(each.event["id"], self._world.now(), _post(self.url, delivery))
            made.append(attempt)
            if attempt.status is not None and 200 <= attempt.status < 300:
                each.event["pending_webhooks"] -= 1
                self._waiting.remove(each)
            elif each.tried == len(RETRY_SECONDS):
                self._waiting.remove(each)
            else:
                each.at = self._world.now() + RETRY_SECONDS[each.tried]
                each.tried += 1
        self.attempts += made
        return made

    @property
    def waiting(self) -> list[tuple[str, int]]:
        """The ids of events not yet accepted, and when each is tried again."""
        self.collect()
        return [(each.event["id"], each.at) for each in self._waiting]


def _post(url: str, delivery: Delivery) -> int | None:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=TIMEOUT_SECONDS)
    headers = {
        "Content-Type": "application/json; charset=utf-8",
        "Stripe-Signature": delivery.header,
        "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
    }
    try:
        connection.request("POST", parts.path or "/", delivery.payload, headers)
        return connection.getresponse().status
    except OSError:
        return None
    finally:
        connection.close()
