"""Two transactions that insert the same thing at one moment: the second waits for the first, and then sees it.

The first is the host's and stays open; the second is ours, in a thread. Whether the first is committed or rolled
back decides what the second finds.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy.orm import Session

from policies.policy_set import PolicySet
from quota import Denial, Grant, IdempotencyConflict
from quota.versions import is_stored
from tests.postgres.conftest import WAITING, opened
from tests.world import POLICIES, discrepancies

ENDS = ("commit", "rollback")
BOOKS = "SELECT count(*) FROM comptroller_book"


@pytest.fixture
def both(host, outside):
    """Have the first done in the host's session, the second while that is open, and then end the first."""

    @contextmanager
    def at_once(first, second, end):
        with ThreadPoolExecutor(1) as thread, Session(host) as session:
            first(session)
            waiting: Future[Any] = thread.submit(second)
            while outside.execute(WAITING).fetchone() == (0,):
                assert not waiting.done(), waiting.result()
            getattr(session, end)()
            yield waiting

    return at_once


@pytest.mark.parametrize("end", ENDS)
def test_guarantee_exact_two_requests_of_a_new_account_open_one_book(world, both, end):
    def first(session):
        world.grant(20, account="new", key="first", session=session)

    def second():
        return world.admit(20, account="new", key="second")

    with both(first, second, end) as waiting:
        decision = waiting.result(30)
    # What the second had decided was about an account without a book: it has to be decided anew.
    assert isinstance(decision, Denial if end == "commit" else Grant)
    assert world.rows(BOOKS) == [(1,)]
    assert world.used("new") == 20


@pytest.mark.parametrize("end", ENDS)
def test_two_changes_of_a_new_account_open_one_book(world, both, end):
    def first(session):
        world.comptroller.set_plan("new", "pro", session=session)

    def second():
        world.comptroller.freeze("new", reason="fraud")

    with both(first, second, end) as waiting:
        waiting.result(30)
    balance = world.comptroller.balance("new")
    assert (balance.plan, balance.frozen) == ("pro" if end == "commit" else "standard", True)
    assert world.rows(BOOKS) == [(1,)]


@pytest.mark.parametrize("end", ENDS)
def test_guarantee_once_the_same_request_of_a_new_account_at_once_is_one_grant(world, both, end):
    def first(session):
        world.grant(1, account="new", key="job", session=session)

    def second():
        return world.grant(1, account="new", key="job")

    with both(first, second, end) as waiting:
        assert waiting.result(30).replayed == (end == "commit")
    assert world.used("new") == 1


@pytest.mark.parametrize("end", ENDS)
def test_guarantee_forgettable_an_account_that_is_forgotten_meanwhile_gets_another_book(
    world, both, end
):
    world.grant(20)

    def first(session):
        assert world.comptroller.forget("u", session=session)

    with both(first, lambda: world.grant(5), end) as waiting:
        waiting.result(30)
    # Nothing is written to the book of who was forgotten: verify would find names and keys there.
    assert world.used() == (5 if end == "commit" else 25)
    assert world.rows(BOOKS) == [(2 if end == "commit" else 1,)]


@pytest.mark.parametrize("end", ENDS)
def test_guarantee_once_one_payment_of_two_accounts_is_booked_for_one_of_them(world, both, end):
    for account in ("u", "v"):
        world.grant(1, account=account)

    def first(session):
        world.comptroller.record_purchase("u", pack="ten", reference="same", session=session)

    def second():
        return world.buy("ten", "same", "v")

    with both(first, second, end) as waiting:
        if end == "commit":
            with pytest.raises(IdempotencyConflict, match="for another account"):
                waiting.result(30)
        else:
            assert not waiting.result(30).replayed
    assert (world.credits("u"), world.credits("v")) == ((10, 0) if end == "commit" else (0, 10))
    assert world.rows("SELECT count(*) FROM comptroller_lot") == [(1,)]


@pytest.mark.parametrize("end", ENDS)
def test_one_refund_reference_is_for_one_lot(world, both, end):
    lots = [world.buy("ten", account=account).id for account in ("u", "v")]

    def first(session):
        world.comptroller.refund_lot(lots[0], reference="back", session=session)

    def second():
        return world.comptroller.refund_lot(lots[1], reference="back")

    with both(first, second, end) as waiting:
        if end == "commit":
            with pytest.raises(IdempotencyConflict, match="refund of another lot"):
                waiting.result(30)
        else:
            assert waiting.result(30).by_this_call


@pytest.mark.parametrize("end", ENDS)
def test_the_first_lots_of_a_currency_make_it_known_once(world, both, end):
    for account in ("u", "v"):
        world.grant(1, account=account)

    def first(session):
        world.comptroller.record_purchase("u", pack="ten", reference="1", session=session)

    with both(first, lambda: world.buy("three", "2", "v"), end) as waiting:
        assert waiting.result(30).units == 3
    assert world.rows("SELECT count(*) FROM comptroller_asset WHERE code = 'usd'") == [(1,)]


@pytest.mark.parametrize("end", ENDS)
def test_two_processes_that_bring_a_new_policy_file_store_it_once(world, database, both, end):
    newer = PolicySet.parse(POLICIES.replace("units: 30", "units: 31"))

    def first(session):
        with world.comptroller._db.writing(session) as db:
            from quota.versions import store

            store(db, newer)
            db.flush()

    def second():
        with opened(database, POLICIES.replace("units: 30", "units: 31")) as other:
            return discrepancies(other)

    with both(first, second, end) as waiting:
        assert waiting.result(30) == []
    with world.comptroller._db.reading() as db:
        assert is_stored(db, newer.version)


def test_a_new_account_that_is_denied_has_no_book(world):
    assert world.deny(31, account="new").reason == "allowance_exhausted"
    assert world.rows(BOOKS) == [(0,)]


def test_a_new_account_that_is_denied_in_the_hosts_session_has_no_book(world, host):
    with Session(host) as session:
        world.deny(31, account="new", session=session)
        session.commit()
    assert world.rows(BOOKS) == [(0,)]


def test_a_book_that_somebody_else_opened_first_leaves_no_row_behind(world, both):
    with both(
        lambda session: world.grant(1, account="new", session=session),
        lambda: world.grant(1, account="new"),
        "commit",
    ) as waiting:
        waiting.result(30)
    ((number,),) = world.rows("SELECT id FROM comptroller_book")
    names = world.rows("SELECT book_id FROM comptroller_account_name")
    assert names == [(number,)]
