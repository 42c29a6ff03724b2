"""A check that a test's books are sound."""

from __future__ import annotations

from quota.aio import AsyncComptroller
from quota.engine import Comptroller


def assert_books_sound(comptroller: Comptroller | AsyncComptroller) -> None:
    """Verify everything that stored rows can show.

    Raises:
        AssertionError: something does not agree; each discrepancy is on a line of its own.
    """
    sync = comptroller.sync if isinstance(comptroller, AsyncComptroller) else comptroller
    discrepancies = sync.verify()
    if discrepancies:
        found = "\n".join(f"  {discrepancy}" for discrepancy in discrepancies)
        raise AssertionError(f"the books are not sound:\n{found}")
