"""What the database itself refuses to whoever writes to it, beside what tests/guarantees shows."""

from __future__ import annotations

import sqlite3

import pytest

from tests.world import World, a_world

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
    "a lot of nothing": (
        (
            "INSERT INTO comptroller_lot SELECT book_id, 9, seq, origin, reference, pack, 0,"
            " price_minor, currency, priority, created_at, expires_at FROM comptroller_lot"
        ),
        "CHECK",
    ),
    "a transfer of no record": (
        (
            "INSERT INTO comptroller_transfer SELECT book_id, 9, idx, debit, credit, asset, amount,"
            " phase, grant_no, lot_no FROM comptroller_transfer"
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
    "a lot overdrawn by a unit": (
        "UPDATE comptroller_lot_balance SET units_used = units_in + 1",
        "CHECK",
    ),
    "a lot overdrawn by a cent": (
        "UPDATE comptroller_lot_balance SET money_out_minor = money_in_minor + 1",
        "CHECK",
    ),
    "an end of no kind": (
        "INSERT INTO comptroller_ending VALUES (1, 1, 1, 'vanished', NULL, 0, 0, 0, 0)",
        "CHECK",
    ),
}


@pytest.fixture
def world():
    with a_world() as made:
        made.buy("ten")
        made.grant(1)
        yield made


@pytest.mark.parametrize("what", AS_THE_FIRST)
def test_the_database_refuses(world: World, what: str):
    sql, said = AS_THE_FIRST[what]
    before = world.dump()
    with pytest.raises(sqlite3.IntegrityError, match=said):
        world.write(sql)
    assert world.dump() == before
