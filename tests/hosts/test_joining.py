"""Joining the host's session: its job row and our grant commit together, or neither does."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from sqlalchemy import Engine, func, inspect, select, text
from sqlalchemy.orm import Session

from billing.placement import placed
from quota import (
    AccountBusy,
    Comptroller,
    Grant,
    IdempotencyConflict,
    InvalidRequest,
    StaleTransaction,
    UnknownGrant,
)
from tests.databases import file_of, locked
from tests.hosts.host import Account, Job, an_engine, migrate_host
from tests.world import POLICIES, START, World, plan


def jobs(engine) -> int:
    with Session(engine) as session:
        return session.scalar(select(func.count()).select_from(Job)) or 0


def work(world: World, session: Session, n: int = 1, **more) -> Grant:
    """Do what a handler does: add the job and its grant to one session."""
    grant = world.grant(n, session=session, **more)
    account = Account(name="u")
    session.add(account)
    session.flush()
    session.add(Job(account_id=account.id, grant_id=grant.id))
    return grant


def test_the_hosts_commit_keeps_both(world, engine):
    with Session(engine) as session:
        grant = work(world, session)
        session.commit()
    assert (jobs(engine), world.comptroller.get(grant.id).status) == (1, "held")


def test_the_hosts_rollback_undoes_both(world, engine):
    before = world.dump()
    with Session(engine) as session:
        grant = work(world, session)
        session.flush()
        session.rollback()
    assert jobs(engine) == 0
    assert world.dump() == before
    with pytest.raises(UnknownGrant):
        world.comptroller.get(grant.id)
    assert not world.grant(key="key-0").replayed


def test_we_neither_commit_nor_roll_back_the_hosts_session(world, engine):
    with Session(engine) as session:
        account = Account(name="before")
        session.add(account)
        session.flush()
        grant = world.grant(session=session)
        world.comptroller.start(grant.id, session=session)
        world.comptroller.settle(grant.id, session=session)
        world.comptroller.record_purchase("u", pack="ten", reference="r", session=session)
        world.comptroller.set_plan("u", "pro", session=session)
        assert session.in_transaction()
        assert account in session
        assert jobs(engine) == 0
        with pytest.raises(UnknownGrant):
            world.comptroller.get(grant.id)  # nobody else sees it yet
        session.rollback()
    with Session(engine) as session:
        assert session.scalar(select(func.count()).select_from(Account)) == 0
    assert world.comptroller.balance("u").lots == ()


def test_an_error_of_ours_leaves_the_hosts_transaction_as_it_was(world, engine):
    world.grant(key="job")
    with Session(engine) as session:
        session.add(Account(name="u"))
        session.flush()
        for call in (
            lambda: world.admit(2, key="job", session=session),
            lambda: world.comptroller.settle("gr_99_1", session=session),
            lambda: world.comptroller.set_plan("new", "none", session=session),
            lambda: world.comptroller.set_account("new", timezone="Mars/One", session=session),
        ):
            with pytest.raises((IdempotencyConflict, InvalidRequest)):
                call()
        world.grant(1, session=session)
        session.commit()
    with Session(engine) as session:
        assert session.scalar(select(func.count()).select_from(Account)) == 1
    assert world.rows("SELECT name FROM comptroller_account_name") == [("u",)]


def test_a_denial_in_the_hosts_session_leaves_it_as_it_was(world, engine):
    world.grant(30)
    with Session(engine) as session:
        session.add(Account(name="u"))
        session.flush()
        world.deny(1, session=session)
        session.commit()
    with Session(engine) as session:
        assert session.scalar(select(func.count()).select_from(Account)) == 1


def test_the_hosts_own_migrations_and_ours_do_not_notice_each_other(database, tmp_path):
    engine = an_engine(database)
    migrate_host(engine, tmp_path)
    with Comptroller.open(plan("{sources: [{kind: credits}]}"), engine):
        migrate_host(engine, tmp_path)
        theirs = {"account", "job", "alembic_version"}
        names = set(inspect(engine).get_table_names())
        if engine.dialect.name == "postgresql":  # ours are in a schema of their own
            assert names == theirs
            assert "schema_version" in inspect(engine).get_table_names(schema="comptroller")
        else:
            assert {*theirs, "comptroller_schema_version"} <= names
            assert all(name.startswith("comptroller_") for name in names - theirs)
        with engine.connect() as connection:
            versions = connection.execute(text("SELECT version_num FROM alembic_version"))
            assert versions.scalars().all() == ["host1"]
    engine.dispose()


def a_snapshot(database: str) -> Engine:
    """Return an engine of a host whose transactions read one snapshot."""
    if database.startswith("postgresql"):
        return an_engine(database).execution_options(isolation_level="REPEATABLE READ")
    with closing(sqlite3.connect(file_of(database))) as connection:
        connection.execute("PRAGMA journal_mode=WAL").fetchone()
    return an_engine(database, transactions=True)


def test_a_host_that_had_read_before_the_lock_retries_its_whole_transaction(world, database):
    engine = a_snapshot(database)
    world.grant(1, key="before")
    with Session(engine) as session:
        session.scalars(select(Account)).all()
        world.grant(28)  # somebody else writes meanwhile
        with pytest.raises(StaleTransaction) as caught:
            world.grant(1, key="job", session=session)
        assert caught.value.retryable
        session.rollback()
        session.scalars(select(Account)).all()
        assert world.grant(1, key="job", session=session).at == START
        session.commit()
    assert world.used() == 30
    engine.dispose()


def test_two_plain_sessions_that_both_have_read_29_do_not_grant_31(world, engine):
    world.grant(29)
    with Session(engine) as one, Session(engine) as two:
        for session in (one, two):  # the driver's default opens no transaction for a SELECT
            counted = text(placed("SELECT sum(units) FROM comptroller_line", engine.dialect))
            assert session.execute(counted).scalar() == 29
        world.grant(1, session=one)
        one.commit()
        world.deny(1, session=two)
        two.commit()
    assert world.used() == 30


def test_plain_sessions_in_threads_grant_30_of_30(world, database):
    engine = an_engine(database, busy_seconds=30)

    def ask(number: int) -> bool:
        with Session(engine) as session:
            session.execute(text("SELECT count(*) FROM account")).scalar()
            decision = world.comptroller.admit(
                account="u", operation="clip", key=f"job-{number}", session=session
            )
            session.commit()
            return bool(decision)

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(ask, range(60))) == 30
    assert world.used() == 30
    engine.dispose()


def test_a_database_that_stays_locked_is_busy_and_nothing_is_taken(world, engine, database):
    with locked(database), Session(engine) as session:
        for more in ({}, {"session": session}):
            with pytest.raises(AccountBusy) as caught:
                world.admit(1, key="job", **more)
            assert caught.value.retryable
    assert not world.grant(1, key="job").replayed


def test_the_rollback_per_test_pattern_keeps_tests_apart(world, engine):
    """The outer transaction is the test's; what the code under test commits is a savepoint."""
    for _ in range(2):
        with engine.connect() as connection:
            if engine.dialect.name == "sqlite":
                connection.exec_driver_sql("BEGIN")  # the driver would not, before a savepoint
            else:
                connection.begin()
            with Session(connection, join_transaction_mode="create_savepoint") as session:
                grant = work(world, session, 30, key="job")
                session.commit()
                world.deny(1, session=session)
                assert world.comptroller.settle(grant.id, session=session).by_this_call
                session.commit()
                again = world.grant(30, key="job", session=session)
                assert (again.replayed, again.status) == (True, "settled")
                session.rollback()
            connection.rollback()
        assert jobs(engine) == 0
        assert world.rows("SELECT * FROM comptroller_book") == []


def test_forgetting_in_a_session_that_has_written_does_not_wait_for_itself(world, engine):
    world.grant(30)
    world.deny(1)
    with Session(engine) as session:
        session.add(Account(name="u"))
        session.flush()
        assert world.comptroller.forget("u", session=session)
        session.commit()
    assert world.rows("SELECT * FROM comptroller_account_name") == []


def test_a_policy_file_that_changes_while_the_host_has_written_does_not_wait_for_itself(
    engine, tmp_path
):
    path = tmp_path / "policies.yaml"
    path.write_text(POLICIES)
    with (
        Comptroller.open(path, engine, clock=lambda: START) as comptroller,
        Session(engine) as host,
    ):
        host.add(Account(name="u"))
        host.flush()
        path.write_text(POLICIES.replace("units: 30", "units: 31"))
        comptroller._policy_file._looked = -1000
        decision = comptroller.admit(account="u", operation="clip", key="job", session=host)
        assert decision.granted
        host.commit()
        assert "31" in str(comptroller.reload_policies().plan("standard").sources[0])
        assert comptroller.admit(account="u", operation="clip", key="job 2").granted


def test_a_session_that_is_none_is_refused(world):
    with pytest.raises(InvalidRequest):
        world.admit(1, session="session")
