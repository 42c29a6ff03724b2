"""The signature of Stripe's webhooks: HMAC-SHA256 over the timestamp, a point and the exact bytes of the body.

Scheme: https://docs.stripe.com/webhooks#verify-manually. Our own, because Stripe's library asks the system for the time
and lets timestamps of the future pass; tests/stripe compares the two.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

from policies.errors import InvalidSignature

TOLERANCE_SECONDS: Final = 300
"""How old, or how far ahead of our clock, an event may be signed: a recording is not played back for ever."""

BODY_MAX: Final = 1 << 20
"""How many bytes an event may have. Stripe's stay far below; whoever sends more does not get them hashed."""

_DIGITS_MAX: Final = 12


def check_signature(payload: bytes, header: str, secrets: Sequence[str], now: datetime) -> None:
    """Make sure that Stripe has signed these bytes, with any of the secrets, a short while ago.

    Args:
        payload: the request's body as it came, not parsed and written again.
        header: the request's `Stripe-Signature`.
        secrets: those of the endpoint, `whsec_...`; several while one replaces another.
        now: our clock.

    Raises:
        InvalidSignature: it was not signed so, or not lately.
    """
    if not isinstance(header, str):
        raise InvalidSignature("the request has no Stripe-Signature header: Stripe did not send it")
    if not header.isascii():
        raise InvalidSignature("the Stripe-Signature header is damaged: pass it on as it came")
    if len(payload) > BODY_MAX:
        raise InvalidSignature(
            f"the body has more than {BODY_MAX} bytes: Stripe sends no such events"
        )
    pairs = [pair.partition("=") for pair in header.split(",")]
    stamps = [value for name, _, value in pairs if name == "t"]
    signatures = [value for name, _, value in pairs if name == "v1"]
    if len(stamps) != 1 or not stamps[0].isdecimal() or not stamps[0].isascii():
        raise InvalidSignature(
            "the Stripe-Signature header has no timestamp: pass it on as it came"
        )
    if not signatures:
        raise InvalidSignature(
            "the Stripe-Signature header has no v1 signature: pass it on as it came"
        )
    expected = list(_signed(payload, stamps[0], secrets))
    # Every pair is compared, so that the time taken says nothing of which one matched.
    if not sum(
        hmac.compare_digest(one, other.encode()) for one in expected for other in signatures
    ):
        raise InvalidSignature(
            "no signature matches: check the endpoint's secret, and that the body is passed as bytes, unchanged"
        )
    stamp = int(stamps[0]) if len(stamps[0]) <= _DIGITS_MAX else 1 << 50
    if abs(now.timestamp() - stamp) > TOLERANCE_SECONDS:
        raise InvalidSignature(
            f"it was signed more than {TOLERANCE_SECONDS} s before or after now: "
            "check this machine's clock; whoever plays back an old event is refused"
        )


def sign(payload: bytes, secret: str, at: int) -> str:
    """Return the header by which Stripe signs a body at an instant, in seconds since 1970. For tests of hosts."""
    signature = next(_signed(payload, str(at), [secret])).decode()
    return f"t={at},v1={signature}"


def _signed(payload: bytes, stamp: str, secrets: Sequence[str]) -> Iterator[bytes]:
    for secret in secrets:
        signed = hmac.new(secret.encode(), stamp.encode() + b"." + payload, hashlib.sha256)
        yield signed.hexdigest().encode()
