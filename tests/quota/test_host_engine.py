"""The host's own engine: the guards hold on it while we use it, and it is left as it was."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session

from policies import PolicySet
from quota import AccountBusy, Comptroller, InvalidRequest
from quota.testing import FakeClock


def test_references_are_checked_on_a_connection_of_the_hosts_that_does_not_check_them(
    tmp_path: Path,
):
    engine = create_engine(f"sqlite:///{tmp_path / 'host.db'}")
    with Comptroller.open(PolicySet.unlimited(), engine, clock=FakeClock()) as comptroller:
        assert comptroller.admit(account="u", operation="anything", key="k")
        with (
            pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"),
            comptroller._db.writing() as db,
        ):
            db.driver_sql("INSERT INTO comptroller_ledger_account VALUES (99, 'lot:1', 'CREDIT')")
    with engine.connect() as connection:
        assert connection.execute(text("PRAGMA foreign_keys")).scalar() == 0
    engine.dispose()


def test_a_row_of_the_ledger_cannot_be_replaced_on_a_connection_of_the_hosts(tmp_path: Path):
    engine = create_engine(f"sqlite:///{tmp_path / 'host.db'}")
    with Comptroller.open(PolicySet.unlimited(), engine, clock=FakeClock()) as comptroller:
        comptroller.admit(account="u", operation="anything", key="k")
        with (
            pytest.raises(sqlite3.IntegrityError, match="append-only"),
            comptroller._db.writing() as db,
        ):
            db.driver_sql("REPLACE INTO comptroller_asset VALUES ('CREDIT', 3)")
    engine.dispose()


def test_a_host_engine_that_begins_transactions_by_itself_can_be_migrated_and_used(tmp_path: Path):
    engine = create_engine(f"sqlite:///{tmp_path / 'host.db'}")

    @event.listens_for(engine, "connect")
    def _no_transactions_of_the_driver(connection: Any, _: Any) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN")

    with Comptroller.open(PolicySet.unlimited(), engine, clock=FakeClock()) as comptroller:
        assert comptroller.admit(account="u", operation="anything", key="k")
        with Session(engine) as session:
            comptroller.admit(account="u", operation="anything", key="rolled back", session=session)
            session.rollback()
        assert comptroller.find("u", key="k")
        assert comptroller.find("u", key="rolled back") is None
    engine.dispose()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("sqlite+aiosqlite:///x.db", "async driver"),
        ("postgresql+asyncpg://localhost/x", "another driver"),
        ("no url at all", "not a database URL"),
    ],
)
def test_a_database_that_cannot_be_used_is_refused_in_one_line(url: str, says: str):
    with pytest.raises(InvalidRequest, match=says) as refused:
        Comptroller.open(PolicySet.unlimited(), url)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("url", ["sqlite+aiosqlite://", "postgresql+asyncpg://u:secret@h/x"])
def test_an_async_engine_is_refused_in_one_line(url: str):
    engine: Any = create_async_engine(url)
    for given in (engine, engine.sync_engine):
        with pytest.raises(InvalidRequest, match="async driver") as refused:
            Comptroller.open(PolicySet.unlimited(), given)
        assert "\n" not in str(refused.value)
        assert "secret" not in str(refused.value)


def test_a_pool_that_is_used_up_is_a_busy_database(tmp_path: Path):
    engine = create_engine(
        f"sqlite:///{tmp_path / 'host.db'}", pool_size=1, max_overflow=0, pool_timeout=0.01
    )
    with Comptroller.open(PolicySet.unlimited(), engine, clock=FakeClock()) as comptroller:
        with engine.connect(), pytest.raises(AccountBusy, match="in use") as busy:
            comptroller.admit(account="u", operation="anything", key="k")
        assert busy.value.retryable
        assert comptroller.admit(account="u", operation="anything", key="k")
    engine.dispose()
