"""Locks: what is held when the clock is read, who waits for whom, and what is left behind."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from policies.policy_set import PolicySet
from quota import AccountBusy, Comptroller
from tests.world import HOUR, MICROSECOND, POLICIES, START, discrepancies

HELD = """
SELECT count(*) FROM pg_locks WHERE relation = 'comptroller.book'::regclass AND granted
AND mode IN ('RowShareLock', 'RowExclusiveLock') AND pid <> pg_backend_pid()
"""
WRITERS = {
    "admit, of a new account": lambda c: c.admit(account="new", operation="clip", key="k"),
    "admit": lambda c: c.admit(account="u", operation="clip", key="another"),
    "start": lambda c: c.start("gr_1_1"),
    "extend": lambda c: c.extend("gr_1_1", HOUR),
    "settle": lambda c: c.settle("gr_1_1", gpu_seconds=1),
    "release": lambda c: c.release("gr_1_1", reason="failed"),
    "add_gpu_cost": lambda c: c.add_gpu_cost("gr_1_1", gpu_seconds=1, attempt="1"),
    "set_plan, of a new account": lambda c: c.set_plan("new", "pro"),
    "set_plan": lambda c: c.set_plan("u", "pro"),
    "set_account": lambda c: c.set_account("u", timezone="Europe/Berlin"),
    "set_paid_use": lambda c: c.set_paid_use("u", "never"),
    "freeze": lambda c: c.freeze("u", reason="r"),
    "unfreeze": lambda c: c.unfreeze("u"),
    "forget": lambda c: c.forget("u"),
    "add_credits": lambda c: c.add_credits("u", units=1, reference="r"),
    "record_purchase": lambda c: c.record_purchase("new", pack="ten", reference="r"),
    "refund_lot": lambda c: c.refund_lot("lot_1_1", reference="r"),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_the_clock_that_dates_what_is_written_is_read_under_the_lock(writer, database, outside):
    held: list[int] = []

    def clock():
        held.append(outside.execute(HELD).fetchone()[0])
        return START

    with Comptroller.open(PolicySet.parse(POLICIES), database, clock=clock) as comptroller:
        comptroller.record_purchase("u", pack="ten", reference="first")
        comptroller.admit(account="u", operation="clip", key="first")
        held.clear()
        WRITERS[writer](comptroller)
        assert held[-1] >= 1, held
        assert discrepancies(comptroller) == []


def test_a_report_of_a_closed_period_waits_for_whoever_is_writing(world, host):
    until = START + HOUR
    with Session(host) as session:
        world.grant(3, session=session)  # dated within the period, and not committed yet
        world.clock.set(until)
        world.comptroller._db._lock_seconds = 0
        with pytest.raises(AccountBusy, match="went on writing"):
            world.comptroller.report(START, until)
        session.commit()
    assert world.comptroller.report(START, until).totals.units_net == 3


def test_a_report_of_a_closed_period_waits_for_an_account_that_is_being_opened(world, host):
    with Session(host) as session:
        world.comptroller.set_plan("u", "pro", session=session)
        world.clock.advance(microseconds=1)
        world.comptroller._db._lock_seconds = 0
        with pytest.raises(AccountBusy):
            world.comptroller.report(START, START + MICROSECOND)
        session.rollback()
    world.comptroller.report(START, START + MICROSECOND)


def test_a_report_of_an_open_period_waits_for_nobody(world, host):
    world.comptroller._db._lock_seconds = 0
    with Session(host) as session:
        world.grant(3, session=session)
        world.comptroller.report(START, START + HOUR)
        session.rollback()


def test_who_only_reads_is_not_waited_for(world, host):
    world.grant(3)
    world.clock.advance(hours=1)
    world.comptroller._db._lock_seconds = 0
    with Session(host) as session:
        session.execute(text("SELECT * FROM comptroller.book")).all()
        assert world.comptroller.report(START, START + HOUR).totals.units_net == 3


def test_a_denial_in_the_hosts_session_lets_go_of_the_account(world, host, outside):
    world.grant(30)
    with Session(host) as session:
        world.deny(1, session=session)
        outside.execute("SELECT * FROM comptroller.book FOR UPDATE NOWAIT")
        session.commit()


def test_a_grant_in_the_hosts_session_holds_the_account_and_no_other(world, host, outside):
    world.grant(account="another")
    with Session(host) as session:
        world.grant(session=session)
        world.grant(account="another")
        session.rollback()
