"""Ledger rows are never updated or deleted: triggers see to it."""

from __future__ import annotations

from sqlite3 import IntegrityError

import pytest

from tests.world import HOUR

TABLES = [
    "record",
    "transfer",
    "line",
    "lot",
    "ledger_account",
    "payment_reference",
    "asset",
    "grant",
    "ending",
    "late_ending",
    "gpu_attempt",
    "policy_version",
]


@pytest.fixture
def busy(world):
    world.comptroller.set_plan("u", "split")
    lot = world.buy()
    world.comptroller.settle(world.grant(31).id)
    late = world.grant(2)
    world.comptroller.add_gpu_cost(late.id, gpu_seconds=3, attempt="1")
    world.clock.advance(2 * HOUR)
    world.comptroller.settle(late.id, gpu_seconds=3)
    world.comptroller.refund_lot(lot.id, reference="refund")
    return world


@pytest.mark.parametrize("table", TABLES)
def test_guarantee_append_only_no_row_is_changed_or_deleted(busy, table):
    name = f"comptroller_{table}"
    before = busy.rows(f"SELECT * FROM {name}")
    assert before, "there is a row to try it on"
    ((column,),) = busy.rows(f"SELECT name FROM pragma_table_info('{name}') LIMIT 1")
    for sql in (f"UPDATE {name} SET {column} = {column}", f"DELETE FROM {name}"):
        with pytest.raises(IntegrityError, match="append-only"):
            busy.write(sql)
    assert busy.rows(f"SELECT * FROM {name}") == before


@pytest.mark.parametrize("table", TABLES)
def test_guarantee_append_only_no_row_is_replaced(busy, table):
    """What SQLite's REPLACE deletes on the way is deleted all the same."""
    name = f"comptroller_{table}"
    before = busy.rows(f"SELECT * FROM {name}")
    with pytest.raises(IntegrityError):
        busy.write(f"INSERT OR REPLACE INTO {name} SELECT * FROM {name}")
    assert busy.rows(f"SELECT * FROM {name}") == before


def test_guarantee_append_only_the_engine_itself_only_adds_ledger_rows(busy):
    before = {table: set(busy.rows(f"SELECT * FROM comptroller_{table}")) for table in TABLES}
    busy.buy()
    busy.comptroller.settle(busy.grant(3).id, delivered={"n": 1}, gpu_seconds=99)
    busy.comptroller.forget("u")
    for table in TABLES:
        assert before[table] <= set(busy.rows(f"SELECT * FROM comptroller_{table}")), table
