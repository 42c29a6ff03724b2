"""Idempotency keys: a request that is sent again is answered as it was the first time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from tests.stripe_server.errors import Refusal
from tests.stripe_server.exchange import Answer, Request
from tests.stripe_server.forms import Tree

KEPT_SECONDS: Final = 86_400


@dataclass
class _Remembered:
    path: str
    params: Tree
    at: int
    answer: Answer | None = None


class Keys:
    """What keys stand for. It has a lock of its own: a request in progress is seen by others."""

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._known: dict[str, _Remembered] = {}

    def claim(self, key: str, request: Request) -> Answer | None:
        """Return the answer that the key remembers; None where the request is the first.

        Raises:
            Refusal: 400 where the key was used for another request, 409 while one is in progress.
        """
        with self._lock:
            known = self._known.get(key)
            if known is None or self._now() - known.at >= KEPT_SECONDS:
                self._known[key] = _Remembered(request.path, request.params, self._now())
                return None
            if known.path != request.path:
                raise _refused(
                    f"Keys for idempotent requests can only be used for the same endpoint they "
                    f"were first used for ('{request.path}' not '{known.path}'). Try using a key "
                    f"other than '{key}' if you meant to execute a different request."
                )
            if known.params != request.params:
                raise _refused(
                    "Keys for idempotent requests can only be used with the same parameters they "
                    f"were first used with. Try using a key other than '{key}' if you meant to "
                    "execute a different request."
                )
            if known.answer is None:
                raise Refusal(
                    409,
                    "idempotency_error",
                    "There is currently another in-progress request using this Stripe Idempotent "
                    f"Key (that probably means you submitted twice, and the other request is "
                    f"still going through): {key}. Please try again later.",
                    code="idempotency_key_in_use",
                    stored=False,
                )
            original = known.answer.headers.get("Request-Id", "")
            headers = {"Idempotent-Replayed": "true", "Original-Request": original}
            return replace(known.answer, headers={**known.answer.headers, **headers}, lost=None)

    def remember(self, key: str, answer: Answer) -> None:
        with self._lock:
            self._known[key].answer = answer

    def forget(self, key: str) -> None:
        """Nothing ran under the key: the next request is the first."""
        with self._lock:
            del self._known[key]


def _refused(message: str) -> Refusal:
    return Refusal(400, "idempotency_error", message, stored=False)
