"""What goes wrong on demand: refusals, silence and connections that are cut."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from tests.stripe_server.errors import Refusal
from tests.stripe_server.exchange import Request

Kind = Literal["rate_limit", "error", "forbidden", "silence", "cut"]
WAIT_SECONDS: Final = 20


@dataclass(frozen=True)
class Fault:
    """What happens to a request.

    `after` says that it happens when the work is done: the effect stands, the answer is lost, or
    says 500. Otherwise nothing was done.
    """

    kind: Kind
    after: bool = False


class Gate:
    """Holds a request in the middle of its work, until the test lets it go on."""

    def __init__(self) -> None:
        self._arrived, self._open = threading.Event(), threading.Event()

    def wait_until_reached(self) -> None:
        if not self._arrived.wait(WAIT_SECONDS):
            raise TimeoutError("no request came to the gate")

    def release(self) -> None:
        self._open.set()

    def pass_through(self) -> None:
        self._arrived.set()
        self._open.wait(WAIT_SECONDS)


@dataclass
class _Order:
    what: Fault | Gate
    matches: Callable[[Request], bool]
    left: int


class Faults:
    """The faults that a test has ordered. The first that fits a request happens to it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._orders: list[_Order] = []

    def order(self, what: Fault | Gate, times: int, method: str | None, path: str | None) -> None:
        """Let it happen to so many requests with this method and with this in their path."""

        def matches(request: Request) -> bool:
            return method in {None, request.method} and (path or "") in request.path

        with self._lock:
            self._orders.append(_Order(what, matches, times))

    def heal(self) -> None:
        """Let nothing more go wrong. Gates open."""
        with self._lock:
            orders, self._orders = self._orders, []
        for each in orders:
            if isinstance(each.what, Gate):
                each.what.release()

    def next(self, request: Request) -> Fault | Gate | None:
        with self._lock:
            for each in self._orders:
                if each.left and each.matches(request):
                    each.left -= 1
                    return each.what
        return None


def refusal(fault: Fault) -> Refusal:
    """The error that a fault answers with."""
    if fault.kind == "rate_limit":
        headers = {"Stripe-Rate-Limited-Reason": "global-rate"}
        message = "Request rate limit exceeded. Learn more about rate limits."
        return Refusal(
            429, "invalid_request_error", message, code="rate_limit", stored=False, headers=headers
        )
    if fault.kind == "forbidden":
        message = "The provided key does not have the required permissions for this endpoint."
        return Refusal(403, "invalid_request_error", message, stored=False)
    message = "An unknown error occurred"
    # A retry with the same key would be told the same.
    return Refusal(500, "api_error", message, headers={"Stripe-Should-Retry": "false"})
