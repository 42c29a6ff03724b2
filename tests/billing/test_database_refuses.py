"""What the database itself refuses to whoever writes to it, beside what tests/guarantees shows."""

from __future__ import annotations

import sqlite3

import psycopg
import pytest

from tests.databases import KINDS, PARTITIONED, a_database
from tests.world import POLICIES, World, a_world

AS_THE_FIRST = {
    "a second grant under a key": (
        (
            "INSERT INTO comptroller_grant SELECT book_id, 9, seq, key_hash, request_hash, at, plan,"
            " operation, attributes, member, policy_version, gpu_cost_micro_usd, allocations"
            " FROM comptroller_grant"
        ),
        "UNIQUE",
    ),
    "a second record under a key": (
        (
            "INSERT INTO comptroller_record SELECT book_id, 9, kind, at, recorded_at, once, body,"
            " prev_hash, hash FROM comptroller_record WHERE seq = 1"
        ),
        "UNIQUE",
    ),
    "a payment reference again": (
        "INSERT INTO comptroller_payment_reference SELECT * FROM comptroller_payment_reference",
        "UNIQUE",
    ),
    "a name for a second book": (
        "INSERT INTO comptroller_account_name SELECT name, 9, salt, tags FROM comptroller_account_name",
        "UNIQUE",
    ),
    "a second name for a book": (
        "INSERT INTO comptroller_account_name SELECT 'v', book_id, salt, tags FROM comptroller_account_name",
        "UNIQUE",
    ),
    "a lot of nothing": (
        (
            "INSERT INTO comptroller_lot SELECT book_id, 9, seq, origin, reference, pack, 0,"
            " price_minor, currency, priority, created_at, expires_at FROM comptroller_lot"
        ),
        "CHECK",
    ),
    "a record of no book": (
        (
            "INSERT INTO comptroller_record SELECT 9, seq, kind, at, recorded_at, once, body,"
            " prev_hash, hash FROM comptroller_record"
        ),
        "FOREIGN KEY",
    ),
    "a transfer of no record": (
        (
            "INSERT INTO comptroller_transfer SELECT book_id, 99, idx, debit, credit, asset, amount,"
            " phase, grant_no, lot_no FROM comptroller_transfer WHERE seq = 1"
        ),
        "FOREIGN KEY",
    ),
    "a transfer across assets": (
        (
            "INSERT INTO comptroller_transfer (book_id, seq, idx, debit, credit, asset, amount, phase)"
            " VALUES (1, 1, 9, 'cash:usd', 'lot:1', 'usd', 1, 0)"
        ),
        "FOREIGN KEY",
    ),
    "a transfer of nothing": (
        (
            "INSERT INTO comptroller_transfer SELECT book_id, seq, 9, debit, credit, asset, 0, phase,"
            " grant_no, lot_no FROM comptroller_transfer WHERE idx = 0"
        ),
        "CHECK",
    ),
    "a transfer to the same account": (
        (
            "INSERT INTO comptroller_transfer SELECT book_id, seq, 9, debit, debit, asset, amount,"
            " phase, grant_no, lot_no FROM comptroller_transfer WHERE idx = 0"
        ),
        "CHECK",
    ),
    "a lot overdrawn by a unit": (
        "UPDATE comptroller_lot_balance SET units_used = units_in + 1",
        "CHECK",
    ),
    "a lot overdrawn by a cent": (
        "UPDATE comptroller_lot_balance SET money_out_minor = money_in_minor + 1",
        "CHECK",
    ),
    "a hold of no grant": (
        (
            "INSERT INTO comptroller_hold SELECT book_id, 9, granted_at, expires_at, started_at,"
            " returns, member FROM comptroller_hold"
        ),
        "FOREIGN KEY",
    ),
    "a second end": (
        (
            "INSERT INTO comptroller_ending SELECT book_id, number, seq, 'settled', NULL, at, 0, 0, 0"
            " FROM comptroller_grant WHERE number = 1"
        ),
        "UNIQUE",
    ),
    "an end of no kind": (
        (
            "INSERT INTO comptroller_ending SELECT book_id, number, seq, 'vanished', NULL, at, 0, 0, 0"
            " FROM comptroller_grant WHERE number = 2"
        ),
        "CHECK",
    ),
    "a budget spent below nothing": (
        "UPDATE comptroller_budget_day SET spent_micro_usd = -1",
        "CHECK",
    ),
}
REFUSED = (sqlite3.IntegrityError, psycopg.IntegrityError)


@pytest.fixture(scope="module", params=[*KINDS, PARTITIONED])
def world(request, tmp_path_factory):
    """What is refused leaves no trace: all tests share it."""
    policies = POLICIES + "budgets: {all: {usd_per_day: 1000}}\n"
    with (
        a_database(request.param, tmp_path_factory.mktemp("refused")) as url,
        a_world(policies, database=url) as made,
    ):
        made.buy("ten")
        made.comptroller.settle(made.grant(1).id, gpu_seconds=1)
        made.grant(5)
        yield made


@pytest.mark.parametrize("what", AS_THE_FIRST)
def test_the_database_refuses(world: World, what: str):
    sql, said = AS_THE_FIRST[what]
    before = world.dump()
    with pytest.raises(REFUSED, match=f"(?i){said} constraint"):
        world.write(sql)
    assert world.dump() == before
