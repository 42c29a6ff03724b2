"""Denials are recorded off the request's path: batched, coalesced, bounded, and losses are counted."""

from __future__ import annotations

import sqlite3
from datetime import timedelta
from typing import Any

import pytest

from quota import AccountBusy, Denial
from quota.denials import DenialLog
from quota.stores.sqlite import SqliteStore
from tests.hosts.host import an_engine
from tests.world import HOUR, World, a_world


@pytest.fixture
def denied():
    """A world in which every request of one unit is denied, and whose log is flushed by hand."""
    with a_world() as world:
        world.grant(30)
        world.comptroller._denials._flush_seconds = 10_000
        yield world


def written(world: World) -> list[tuple[Any, ...]]:
    return world.rows("SELECT account, reason, count FROM comptroller_denial ORDER BY id")


def a_denial(world: World, **more: Any) -> Denial:
    return world.deny(1, **more)


def test_repeats_of_one_account_and_reason_become_one_row_with_a_count(denied):
    for _ in range(5):
        a_denial(denied)
        denied.clock.advance(seconds=1)
    assert written(denied) == []
    denied.comptroller._denials.flush()
    assert written(denied) == [("u", "allowance_exhausted", 5)]
    (record,) = denied.comptroller.denials("u")
    assert record.last_at - record.first_at == timedelta(seconds=4)
    assert [found["policy"] for found in record.findings] == ["daily_allowance", "credits"]


def test_it_can_be_told_why_somebody_was_denied_yesterday(denied):
    at = denied.clock()
    denial = a_denial(denied)
    denied.clock.advance(hours=20)
    denied.comptroller.freeze("u", reason="chargeback")
    a_denial(denied)
    newest, oldest = denied.comptroller.denials("u")
    assert (newest.reason, oldest.reason) == ("account_frozen", "allowance_exhausted")
    assert (oldest.first_at, oldest.retry_at) == (at, denial.retry_at)
    (then,) = denied.comptroller.denials("u", at, at + HOUR)
    assert then.reason == "allowance_exhausted"
    assert denied.comptroller.denials("somebody else") == ()


def test_each_minute_and_each_reason_has_a_row_of_its_own(denied):
    for _ in range(3):
        a_denial(denied)
        denied.clock.advance(minutes=1)
    a_denial(denied, member="ann")
    assert [record.count for record in denied.comptroller.denials("u")] == [1, 1, 1, 1]


def test_what_waits_is_bounded_and_what_is_lost_is_counted(denied):
    log = DenialLog(denied.comptroller._db, waiting_max=3, flush_seconds=10_000)
    denial = a_denial(denied)
    for member in "abcdef":
        log.add(Denial(**{**fields(denial), "member": member}))
        log.add(Denial(**{**fields(denial), "member": member}))
    log.flush()
    rows = denied.rows("SELECT member, count FROM comptroller_denial WHERE member <> ''")
    assert rows == [("a", 2), ("b", 2), ("c", 2)]
    assert denied.comptroller.health().denials_lost == 6
    log.close()


def fields(denial: Denial) -> dict:
    return {name: getattr(denial, name) for name in Denial.__slots__}


def test_a_locked_database_makes_them_wait_and_none_is_lost(tmp_path):
    path = tmp_path / "books.db"
    engine = an_engine(f"sqlite:///{path}", busy_seconds=0.01)
    with a_world(database=engine) as world:
        world.comptroller._denials._flush_seconds = 10_000
        world.grant(30)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("PRAGMA journal_mode=WAL").fetchone()
        other.execute("BEGIN IMMEDIATE")
        a_denial(world)  # neither waits nor raises
        with pytest.raises(AccountBusy):
            world.comptroller._denials.flush()
        a_denial(world)
        other.rollback()
        other.close()
        world.comptroller._denials.flush()
        assert written(world) == [("u", "allowance_exhausted", 2)]
    engine.dispose()


def test_closing_writes_what_waits(tmp_path):
    database = f"sqlite:///{tmp_path}/books.db"
    with a_world(database=database) as world:
        world.comptroller._denials._flush_seconds = 10_000
        world.grant(30)
        a_denial(world)
    with a_world(database=database) as world:
        assert written(world) == [("u", "allowance_exhausted", 1)]


def test_a_log_that_cannot_write_never_raises_into_the_request(tmp_path, monkeypatch):
    with a_world() as world:
        world.grant(30)
        world.comptroller._denials._flush_seconds = 10_000

        def broken(*_, **__):
            raise sqlite3.DatabaseError("the disk is gone")

        monkeypatch.setattr(SqliteStore, "writing", broken)
        for _ in range(3):
            a_denial(world)
        monkeypatch.undo()
        assert world.comptroller.denials("u")[0].count == 3


def test_closing_twice_does_no_harm(denied):
    a_denial(denied)
    denied.comptroller._denials.close()
    denied.comptroller._denials.close()
    assert written(denied) == [("u", "allowance_exhausted", 1)]


def test_losses_are_counted_also_where_all_that_waited_was_forgotten(denied):
    log = denied.comptroller._denials
    log._waiting_max = 1
    a_denial(denied)
    denied.deny(31, account="ann")
    assert log._lost == 1
    log.forget("u")
    log.flush()
    a_denial(denied)
    log.flush()
    assert denied.rows("SELECT sum(lost) FROM comptroller_denial_loss") == [(1,)]


def test_closing_does_not_wait_for_ever_for_a_database_that_hangs(denied, caplog):
    log = denied.comptroller._denials
    log._flush_seconds = 0.005
    with log._writing:
        a_denial(denied)
        log.close()
    assert "not all denials were written" in caplog.text
