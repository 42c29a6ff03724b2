"""Operations to crash in, the books that they work on, and what the books hold afterwards."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

from policies.policy_set import PolicySet
from quota import Comptroller
from quota.testing import FakeClock
from tests.world import HOUR, START, plan, raw

POLICIES: Final[PolicySet] = plan(
    "{paid_use: auto, sources: [{kind: daily_allowance, units: 3, split: true}, {kind: credits}]}",
    more="budgets: {all: {usd_per_day: 1000}}",
)
NOW: Final = START + timedelta(minutes=50)

State = list[list[Any]]


def prepare(database: str) -> None:
    """Make books with two lots, one of them held, a grant to end and a grant whose hold expires soon."""
    clock = FakeClock(START)
    with Comptroller.open(POLICIES, database, clock=clock) as comptroller:
        for account in ("u", "due"):
            comptroller.record_purchase(account, pack="three", reference=f"first-{account}")
            comptroller.record_purchase(account, pack="ten", reference=f"second-{account}")
        comptroller.admit(account="due", operation="clip", attributes={"n": 5}, key="expires")
        clock.set(NOW)
        comptroller.admit(account="u", operation="clip", attributes={"n": 5}, key="held")


OPERATIONS: Final[dict[str, Callable[[Comptroller], object]]] = {
    "admit_free": lambda c: c.admit(
        account="v", operation="clip", attributes={"prompt": "p"}, key="k", member="ann"
    ),
    "admit_paid": lambda c: c.admit(
        account="u", operation="clip", attributes={"n": 4, "prompt": "p"}, key="k"
    ),
    "admit_after_dues": lambda c: c.admit(
        account="due", operation="clip", attributes={"n": 9}, key="k"
    ),
    "settle": lambda c: c.settle("gr_1_1", gpu_seconds=5, delivered={"n": 4}),
    "release": lambda c: c.release("gr_1_1", reason="failed", gpu_seconds=5),
    "record_purchase": lambda c: c.record_purchase("w", pack="ten", reference="order"),
    "refund_lot": lambda c: c.refund_lot("lot_1_2", reference="refund"),
}


def opened(database: str, name: str) -> Comptroller:
    at = NOW + HOUR if name == "admit_after_dues" else NOW
    return Comptroller.open(POLICIES, database, clock=FakeClock(at))


_OF_BOOKS: Final = {
    "book": "id, seq, at, grants, lots",
    "record": "book_id, seq, kind, at, once",
    "transfer": "*",
    "line": "book_id, seq, idx, kind, at, source, lot_no, units, lot_units, revenue_minor",
    "lot_balance": "*",
    "hold": "book_id, grant_no, expires_at",
    "ending": "*",
    "grant": "book_id, number, allocations",
    "account_name": "book_id, name",
    "payment_reference": "book_id, origin, reference, lot_no",
}

_SPENT: Final = """
SELECT name, starts_at, spent_micro_usd + coalesce((
    SELECT sum(block.spent_micro_usd) FROM comptroller_budget_block AS block
    WHERE block.name = of_day.name AND block.starts_at = of_day.starts_at
), 0) FROM comptroller_budget_day AS of_day
"""
"""What is leased and not spent changes nothing that the books say."""


def state(comptroller: Comptroller) -> State:
    """Return all that the books say, apart from what is random: salts, and what is hashed with them.

    Books count from one: PostgreSQL leaves out the numbers of those that were rolled back.
    """
    with comptroller._db.reading() as db:
        books = [row[0] for row in raw(db, "SELECT id FROM comptroller_book ORDER BY 1")]
        found = [
            [table, books.index(row[0]), *row[1:]]
            for table, columns in _OF_BOOKS.items()
            for row in raw(db, f"SELECT {columns} FROM comptroller_{table} ORDER BY 1, 2")
        ]
        spent = [["budget", *row] for row in raw(db, _SPENT) if row[-1]]
        return [*found, *spent]
