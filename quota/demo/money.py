"""Short spellings of amounts for a page: cents are enough there. Whole numbers only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from billing.report import ReportRow

MICRO_PER_CENT: Final = 10_000
MICRO_PER_DOLLAR: Final = 1_000_000


def cents(micro_usd: int) -> str:
    """Spell micro-dollars to the cent, halves away from zero: `$1,234.57`."""
    whole, cent = divmod((abs(micro_usd) + MICRO_PER_CENT // 2) // MICRO_PER_CENT, 100)
    sign = "-" if micro_usd < 0 and (whole or cent) else ""
    return f"{sign}${whole:,}.{cent:02d}"


def about(micro_usd: int) -> str:
    """Spell micro-dollars for an axis: whole dollars from one dollar on."""
    whole, rest = divmod(micro_usd, MICRO_PER_DOLLAR)
    return f"${whole:,}" if not rest else cents(micro_usd)


def minor_as_micro(minor: int) -> int:
    """Return US cents as micro-dollars."""
    return minor * MICRO_PER_CENT


def share(part: int, whole: int) -> str:
    """Spell a share: `12 %`."""
    return f"{(100 * part + whole // 2) // whole} %" if whole else "0 %"


def gpu_micro_usd(row: ReportRow) -> int:
    """Return what a group's GPUs cost, in micro-dollars: reported, or estimated where nobody did."""
    return row.gpu_micro_usd + row.gpu_unreported_micro_usd


def revenue_micro_usd(row: ReportRow) -> int:
    """Return what a group earned in US dollars, in micro-dollars."""
    return minor_as_micro(row.revenue_minor.get("usd", 0))


def days_of(rows: Sequence[ReportRow]) -> list[str]:
    """Return the days of a report by day, in order."""
    return sorted({row.key["day"] for row in rows})
