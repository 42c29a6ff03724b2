"""Values in what Stripe says: texts, ids, amounts, instants. What is none raises TypeError."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

PURCHASE_KEY: Final = "comptroller_purchase"
"""The key in the metadata of Stripe's objects under which they name the purchase that they are for."""

REFUND_KEY: Final = "comptroller_refund"
"""The key in the metadata of a refund of ours under which it names what it is known by."""

CUSTOMER_DELETED: Final = "customer_deleted"
"""The code of what is refused because somebody has deleted the customer in the dashboard."""

SECONDS_MAX: Final = 253_402_300_799
"""The last second of the year 9999."""


def purchase_in(about: Mapping[str, Any]) -> str | None:
    """Return the purchase that an object's metadata names."""
    named = (about.get("metadata") or {}).get(PURCHASE_KEY)
    return None if named is None else text_in(named)


def id_in(value: Any) -> str | None:
    """Return an id that may have been expanded to the whole object."""
    if value is None:
        return None
    return text_in(value["id"] if isinstance(value, Mapping) else value)


def text_in(value: Any) -> str:
    """Return a text that may not be missing, and can be stored everywhere."""
    if not isinstance(value, str) or not value or not value.isprintable():
        raise TypeError(f"{value!r:.50} is no text")
    return value


def minor_in(value: Any) -> int:
    """Return an amount in minor units, not below zero."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 53:
        raise TypeError(f"{value!r:.50} is no amount")
    return value


def seconds_in(value: Any) -> int:
    """Return an instant that is a number of seconds since 1970."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= SECONDS_MAX:
        raise TypeError(f"{value!r:.50} is no instant")
    return value


def signed_in(value: Any) -> int:
    """Return an amount in minor units that may be below zero."""
    return minor_in(value) if not isinstance(value, int) or value >= 0 else -minor_in(-value)


def instant_in(value: Any) -> datetime:
    """Return an instant that is a text, or a number of seconds since 1970."""
    if isinstance(value, str):
        return datetime.fromisoformat(value).astimezone(UTC)
    return datetime.fromtimestamp(seconds_in(value), UTC)
