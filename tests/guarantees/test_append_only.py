"""Ledger rows are never updated or deleted: triggers see to it."""

from __future__ import annotations

import pytest

from billing.tables import Table
from tests.databases import KINDS, PARTITIONED, PARTITIONS, REFUSED, a_database
from tests.world import HOUR, a_world

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


OF_BOOKS = [
    table for table in TABLES if table not in ("payment_reference", "asset", "policy_version")
]


@pytest.fixture(scope="module", params=[*KINDS, PARTITIONED])
def busy(request, tmp_path_factory):
    """What is refused leaves no trace: all tests share it."""
    folder = tmp_path_factory.mktemp("busy")
    with a_database(request.param, folder) as url, a_world(database=url) as world:
        world.comptroller.set_plan("u", "split")
        lot = world.buy()
        world.comptroller.settle(world.grant(31).id)
        late = world.grant(2)
        world.comptroller.add_gpu_cost(late.id, gpu_seconds=3, attempt="1")
        world.clock.advance(2 * HOUR)
        world.comptroller.settle(late.id, gpu_seconds=3)
        world.comptroller.refund_lot(lot.id, reference="refund")
        yield world


def columns_of(table):
    """The first column of a table, and the columns of its key."""
    columns = Table.metadata.tables[f"comptroller_{table}"]
    return next(iter(columns.c)).name, ", ".join(column.name for column in columns.primary_key)


@pytest.mark.parametrize("table", TABLES)
def test_guarantee_append_only_no_row_is_changed_or_deleted(busy, table):
    name, (column, _) = f"comptroller_{table}", columns_of(table)
    before = busy.rows(f"SELECT * FROM {name}")
    assert before, "there is a row to try it on"
    for sql in (f"UPDATE {name} SET {column} = {column}", f"DELETE FROM {name}"):
        with pytest.raises(REFUSED, match="append-only"):
            busy.write(sql)
    assert busy.rows(f"SELECT * FROM {name}") == before


@pytest.mark.parametrize("table", TABLES)
def test_guarantee_append_only_no_row_is_replaced(busy, table):
    """What SQLite's REPLACE deletes on the way is deleted all the same, and what is merged is changed."""
    name, (column, key) = f"comptroller_{table}", columns_of(table)
    before = busy.rows(f"SELECT * FROM {name}")
    # (SQLite reads ON CONFLICT as a part of the SELECT if that has no WHERE.)
    merge = f"INSERT INTO {name} SELECT * FROM {name} WHERE true ON CONFLICT ({key}) DO UPDATE"
    replacing = [f"{merge} SET {column} = excluded.{column}"]
    if not on_server(busy):
        replacing.append(f"INSERT OR REPLACE INTO {name} SELECT * FROM {name}")
    for sql in replacing:
        with pytest.raises(REFUSED):
            busy.write(sql)
    assert busy.rows(f"SELECT * FROM {name}") == before


@pytest.mark.parametrize("table", TABLES)
def test_guarantee_append_only_no_table_and_no_partition_is_emptied(busy, table):
    if not on_server(busy):
        pytest.skip("SQLite has no TRUNCATE")
    found = "SELECT count(*) FROM pg_class WHERE relispartition AND relname = ?"
    ((partitioned,),) = busy.rows(found, f"{table}_p0")
    names = [f"comptroller_{table}"]
    if partitioned:
        names += [f'comptroller."{table}_p{number}"' for number in range(PARTITIONS)]
    assert (len(names) > 1) == (partitioned and table in OF_BOOKS)
    before = busy.dump()
    for name in names:
        with pytest.raises(REFUSED, match="append-only"):
            busy.write(f"TRUNCATE {name} CASCADE")
    assert busy.dump() == before


def on_server(world):
    return world.comptroller._db.engine.dialect.name == "postgresql"


def test_guarantee_append_only_the_engine_itself_only_adds_ledger_rows(busy):
    before = {table: set(busy.rows(f"SELECT * FROM comptroller_{table}")) for table in TABLES}
    busy.buy()
    busy.comptroller.settle(busy.grant(3).id, delivered={"n": 1}, gpu_seconds=99)
    busy.comptroller.forget("u")
    for table in TABLES:
        assert before[table] <= set(busy.rows(f"SELECT * FROM comptroller_{table}")), table
