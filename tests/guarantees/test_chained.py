"""Each book is a hash chain over the exact stored bytes."""

from __future__ import annotations

import hashlib
import struct
from typing import Any

import pytest

from billing.placement import placed
from tests.world import HOUR, World, discrepancies

NO_TRIGGERS = "DROP TRIGGER comptroller_record_no_"


def broken_links(world: World) -> list[tuple[int, int]]:
    """Follow each chain by the published recipe alone, from the stored bytes to the head."""
    broken = []
    for book, head, last in world.rows("SELECT id, head, seq FROM comptroller_book"):
        previous = bytes(32)
        records = world.rows(
            "SELECT seq, body, prev_hash, hash FROM comptroller_record"
            " WHERE book_id = ? ORDER BY seq",
            book,
        )
        for place, (seq, body, prev_hash, stored) in enumerate(records, start=1):
            content = (
                b"comptroller/record/v1"
                + struct.pack(">QQ", book, place)
                + previous
                + struct.pack(">I", len(body))
                + body
            )
            previous = hashlib.sha256(content).digest()
            if (seq, bytes(stored)) != (place, previous) or bytes(prev_hash) != content[37:69]:
                broken.append((book, place))
        if bytes(head) != previous or last != len(records):
            broken.append((book, -1))
    return broken


@pytest.fixture
def busy(world):
    for account in ("u", "v"):
        world.buy(account=account)
        world.comptroller.settle(world.grant(31, account=account, plan="split").id)
        world.comptroller.release(world.grant(2, account=account).id, reason="failed")
        world.grant(1, account=account)
    world.comptroller.set_account("u", timezone="Europe/Berlin")
    world.comptroller.freeze("v", reason="chargeback")
    world.clock.advance(2 * HOUR)
    world.comptroller.sweep()
    return world


def test_guarantee_chained_every_record_is_chained_to_the_one_before(busy):
    assert broken_links(busy) == []
    assert busy.rows("SELECT count(*) FROM comptroller_record") > [(12,)]


def test_guarantee_chained_order_in_a_book_has_no_gaps(busy):
    for (book,) in busy.rows("SELECT id FROM comptroller_book"):
        numbers = busy.rows(
            "SELECT seq FROM comptroller_record WHERE book_id = ? ORDER BY seq", book
        )
        assert [seq for (seq,) in numbers] == list(range(1, len(numbers) + 1))


TAMPERING = {
    "an edited body": "UPDATE comptroller_record SET"
    " body = CAST(replace(body, '\"n\":31', '\"n\":30') AS BLOB) WHERE seq = 2",
    "an edited head": "UPDATE comptroller_book SET head = zeroblob(32) WHERE id = 1",
    "a rolled back number": "UPDATE comptroller_book SET seq = seq - 1 WHERE id = 1",
    "an edited hash": "UPDATE comptroller_record SET hash = zeroblob(32) WHERE seq = 3",
    "a swapped pair": "UPDATE comptroller_record SET prev_hash = hash WHERE seq = 2",
    "a record cut off the end": "DELETE FROM comptroller_record WHERE book_id = 1 AND seq ="
    " (SELECT max(seq) FROM comptroller_record WHERE book_id = 1)",
    "a record taken from the middle": "DELETE FROM comptroller_record WHERE book_id = 1"
    " AND seq = 2",
}


@pytest.mark.parametrize("change", TAMPERING)
def test_guarantee_chained_tampering_is_found(busy, change):
    tampered_with(busy, change)
    assert broken_links(busy)
    if hasattr(busy.comptroller, "verify"):
        assert discrepancies(busy.comptroller)
    restore(busy)


ON_SERVER = {
    "an edited body": "UPDATE comptroller_record SET body ="
    " convert_to(replace(convert_from(body, 'UTF8'), '\"n\":31', '\"n\":30'), 'UTF8') WHERE seq = 2",
    "an edited head": "UPDATE comptroller_book SET head = decode(repeat('00', 32), 'hex') WHERE id = 1",
    "an edited hash": "UPDATE comptroller_record SET hash = decode(repeat('00', 32), 'hex') WHERE seq = 3",
}
"""How it is said on PostgreSQL, where it is another way."""

KEPT = ("record", "book")


def tampered_with(world: World, change: str) -> None:
    """Do what only somebody at the database itself can, and keep a copy to undo it."""
    with world.comptroller._db.engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        if connection.dialect.name == "postgresql":
            for table in KEPT:
                driver.execute(f"CREATE TABLE kept_{table} AS TABLE comptroller.{table}")
            driver.execute("SET session_replication_role = replica")  # no triggers, no references
            sql = ON_SERVER.get(change, TAMPERING[change])
            assert driver.execute(placed(sql, connection.dialect)).rowcount
            driver.execute("RESET session_replication_role")
            return
        sql = TAMPERING[change]
        world.copy = driver.serialize()  # type: ignore[attr-defined]
        driver.execute("PRAGMA foreign_keys=OFF")
        for verb in ("update", "delete"):
            driver.execute(NO_TRIGGERS + verb)
        driver.execute(sql)
        driver.commit()


def restore(world: World) -> None:
    with world.comptroller._db.engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        if connection.dialect.name == "postgresql":
            driver.execute("SET session_replication_role = replica")
            for table in KEPT:
                driver.execute(f"DELETE FROM comptroller.{table}")
                driver.execute(f"INSERT INTO comptroller.{table} TABLE kept_{table}")
            driver.execute("RESET session_replication_role")
            return
        driver.deserialize(world.copy)  # type: ignore[attr-defined]
