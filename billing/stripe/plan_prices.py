"""How often a plan is paid, in Stripe's words."""

from __future__ import annotations

from typing import Any, Final

from policies.errors import InvalidRequest
from policies.instants import Length

DAY_MICROS: Final = 86_400_000_000
DAYS_MAX: Final = 1_095
MONTHS_MAX: Final = 36
"""A period of Stripe's is no longer than three years."""


def recurring(every: str) -> dict[str, Any]:
    """Return the `recurring` of a price that is paid so often.

    Raises:
        InvalidRequest: Stripe has no such period.
    """
    length = Length.parse(every)
    if length.is_calendar and length.months <= MONTHS_MAX:
        years, rest = divmod(length.months, 12)
        if not rest:
            return {"interval": "year", "interval_count": years}
        return {"interval": "month", "interval_count": length.months}
    days, rest = divmod(length.micros, DAY_MICROS)
    if length.is_calendar or rest or not 0 < days <= DAYS_MAX:
        raise InvalidRequest(
            f"a plan cannot be paid every {every} through Stripe: whole days, months or years, at most 3 years"
        )
    return {"interval": "day", "interval_count": days}
