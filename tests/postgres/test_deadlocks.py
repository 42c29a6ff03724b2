"""Deadlocks, which a host makes that locks two accounts in one transaction: ours is undone, and done again."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from quota import AccountBusy, IdempotencyConflict
from quota.methods.retried import TRIES, retried
from quota.stores.base import Undone
from tests.hosts.host import on_driver
from tests.postgres.conftest import opened, wait_until_somebody_waits
from tests.world import START

SOON = "?options=-c%20deadlock_timeout%3D200"
LATE = "?options=-c%20deadlock_timeout%3D60000"
"""Who has waited for so many milliseconds looks once for a deadlock, and is undone where there is one by then. So who
is to be undone must be the last to begin to wait, and the other one must not look before.
"""


def buy(comptroller, account, **more):
    """Both pay with one reference: the second waits for the first to commit, with its own account locked."""
    return comptroller.record_purchase(account, pack="ten", reference="same", **more)


def test_a_transaction_of_ours_that_is_undone_is_made_again(database, outside):
    engine = create_engine(on_driver(database, "psycopg") + LATE)
    is_locked, asked = threading.Event(), itertools.count(1)

    def clock():
        # Ours asks a second time under the lock of its account, and goes on when the host waits for that.
        if threading.current_thread() is not threading.main_thread() and next(asked) == 2:
            is_locked.set()
            wait_until_somebody_waits(outside)
        return START

    with opened(database + SOON, clock=clock) as comptroller, ThreadPoolExecutor(1) as thread:
        for account in "ab":
            comptroller.set_plan(account, "pro")
        with Session(engine) as session:
            buy(comptroller, "b", session=session)
            ours = thread.submit(buy, comptroller, "a")
            assert is_locked.wait(30)
            assert comptroller.admit(account="a", operation="clip", key="k", session=session)
            session.commit()
        with pytest.raises(
            IdempotencyConflict
        ):  # not busy: made again, it found what the host has bought
            ours.result(30)
        assert next(asked) > 3, "it was made once"
        assert comptroller.verify() == []
    engine.dispose()


def test_a_transaction_of_the_hosts_is_the_hosts_to_make_again(database, outside):
    engine = create_engine(on_driver(database, "psycopg") + SOON)
    with opened(database + LATE) as comptroller, ThreadPoolExecutor(1) as thread:
        for account in "ab":
            comptroller.set_plan(account, "pro")
        with Session(engine) as session:
            buy(comptroller, "b", session=session)
            ours = thread.submit(buy, comptroller, "a")
            wait_until_somebody_waits(outside)
            with pytest.raises(AccountBusy, match="deadlock") as caught:
                comptroller.admit(account="a", operation="clip", key="k", session=session)
            assert caught.value.retryable
            session.rollback()
        assert not ours.result(30).replayed
        assert comptroller.verify() == []
    engine.dispose()


def test_after_some_tries_whoever_calls_is_told_and_in_the_hosts_session_at_once():
    tries = []

    @retried
    def always_undone(self, *, session=None):
        tries.append(session)
        raise Undone("undone")

    for session, times in ((None, TRIES), ("the host's", 1)):
        tries.clear()
        with pytest.raises(AccountBusy) as caught:
            always_undone(None, session=session)
        assert type(caught.value) is AccountBusy
        assert tries == [session] * times
