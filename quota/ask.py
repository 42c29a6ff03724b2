"""Checking what callers pass, before anything is read or written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from policies.errors import InvalidRequest
from policies.instants import as_utc
from policies.units import UNITS_MAX

NAME_MAX: Final = 200
KEY_MAX: Final = 200
TEXT_MAX: Final = 500
ATTRIBUTES_MAX: Final = 50

_UNSTORABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Ask:
    """One call of `admit` or `estimate`, its arguments checked."""

    account: str
    operation: str
    attributes: Mapping[str, object]
    key: str
    plan: str | None
    member: str | None
    consent: bool | int
    not_after: datetime | None


def checked_ask(
    *,
    account: object,
    operation: object,
    attributes: object,
    key: object,
    plan: object,
    member: object,
    consent: object,
    not_after: object,
) -> Ask:
    """Check the arguments of a request.

    Raises:
        InvalidRequest: one of them is of the wrong type, empty, too long or naive.
    """
    if not isinstance(consent, bool) and not (
        isinstance(consent, int) and 0 <= consent <= UNITS_MAX
    ):
        raise InvalidRequest(
            f"consent must be true, false or a number of units, not `{consent!r:.40}`"
        )
    return Ask(
        account=name(account, "account"),
        operation=name(operation, "operation"),
        attributes=checked_attributes(attributes),
        key=text(key, "key", most=KEY_MAX),
        plan=None if plan is None else name(plan, "plan"),
        member=None if member is None else name(member, "member"),
        consent=consent,
        not_after=None if not_after is None else as_utc(not_after, "not_after"),
    )


def checked_attributes(attributes: object) -> Mapping[str, object]:
    """Check a request's attributes as far as it can be done without knowing the operation.

    Raises:
        InvalidRequest: it is no mapping of names to values.
    """
    if attributes is None:
        return {}
    if not isinstance(attributes, Mapping) or not all(isinstance(key, str) for key in attributes):
        raise InvalidRequest(
            f"attributes must be a mapping of names to values, not `{attributes!r:.80}`"
        )
    if len(attributes) > ATTRIBUTES_MAX:
        raise InvalidRequest(
            f"there are {len(attributes)} attributes: at most {ATTRIBUTES_MAX} are allowed"
        )
    return attributes


def name(value: object, what: str) -> str:
    """Check a name: of an account, a member, a plan, ...

    Raises:
        InvalidRequest: it is no text, empty, too long, or has control characters.
    """
    return text(value, what, most=NAME_MAX)


def text(value: object, what: str, *, most: int = TEXT_MAX) -> str:
    """Check a short text.

    Raises:
        InvalidRequest: it is no text, empty, too long, or cannot be stored.
    """
    if not isinstance(value, str):
        raise InvalidRequest(f"{what} must be text, not `{value!r:.80}`")
    if not value.strip():
        raise InvalidRequest(f"{what} must not be empty")
    if len(value) > most:
        raise InvalidRequest(f"{what} must have at most {most} characters, not {len(value)}")
    if _UNSTORABLE.search(value):
        raise InvalidRequest(f"{what} must not have control characters: `{value!r:.80}`")
    return value
