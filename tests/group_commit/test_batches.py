"""What a batch does with calls that fail, that deny, that repeat, and that are about one account."""

from __future__ import annotations

from datetime import timedelta

import pytest

from quota import DeadlinePassed, Denial, InvalidRequest
from quota.group_commit.batch import run_batch
from quota.group_commit.works import Admission, extending, releasing, settling, starting
from quota.stores.telling import TellingStore
from tests.databases import locked, rows
from tests.group_commit.conftest import admission, call


class Broken(Admission):
    """Does all that an admit does, and then fails."""

    __slots__ = ()

    def take(self, db):
        super().take(db)
        raise ArithmeticError("injected")


def granted(comptroller, *accounts, key="before"):
    """Grant one unit to each account, each in a transaction of its own."""
    return [
        comptroller.admit(account=name, operation="clip", attributes={"n": 1}, key=key)
        for name in accounts
    ]


def done(calls):
    return [each.is_done for each in calls]


def test_calls_about_different_accounts_are_made_by_one_commit(comptroller, database):
    calls = [admission(comptroller, f"u{number}", "k") for number in range(40)]
    run_batch(comptroller._db, calls)
    grants = [each.answer() for each in calls]
    assert all(grant.granted and not grant.replayed for grant in grants)
    assert [grant.account for grant in grants] == [f"u{number}" for number in range(40)]
    assert rows(database, "SELECT count(*) FROM comptroller_grant") == [(40,)]


def test_every_kind_of_call_gives_its_own_answer(comptroller):
    first, second, third, fourth = granted(comptroller, "a", "b", "c", "d")
    calls = [
        call(starting(comptroller, first.id)),
        call(settling(comptroller, second.id, gpu_seconds=4)),
        call(releasing(comptroller, third.id, reason="failed")),
        call(extending(comptroller, fourth.id, timedelta(hours=2))),
    ]
    run_batch(comptroller._db, calls)
    started, settled, released, extended = [each.answer() for each in calls]
    assert started.started_at == started.at
    assert (settled.status, settled.by_this_call, settled.gpu_cost_micro_usd) == (
        "settled",
        True,
        4000,
    )
    assert (released.status, released.units_charged) == ("released", 0)
    assert extended.expires_at == extended.at + timedelta(hours=2)
    assert extended == comptroller.get(fourth.id)


def test_a_call_that_fails_takes_no_other_with_it_and_leaves_nothing_behind(comptroller, database):
    granted(comptroller, "a", "b", "c", "d")
    calls = [
        admission(comptroller, "a", "k"),
        admission(comptroller, "b", "k", kind=Broken),
        admission(comptroller, "c", "before", n=2),
        admission(comptroller, "c", "k", operation="nothing"),
        call(settling(comptroller, "gr_999999_1")),
        admission(comptroller, "d", "k"),
    ]
    run_batch(comptroller._db, calls)
    assert done(calls) == [True, False, False, False, False, True]
    assert rows(database, "SELECT count(*) FROM comptroller_grant") == [(6,)]
    with pytest.raises(InvalidRequest):
        comptroller.admit(account="c", operation="nothing", key="k")


def test_a_call_that_fails_after_it_has_opened_a_book_undoes_the_batch_and_all_go_alone(
    comptroller, database
):
    calls = [
        admission(comptroller, "a", "k"),
        admission(comptroller, "b", "k", kind=Broken),
        admission(comptroller, "c", "k"),
    ]
    run_batch(comptroller._db, calls)
    assert done(calls) == [False, False, False]
    assert rows(database, "SELECT count(*) FROM comptroller_book") == [(0,)]


@pytest.mark.parametrize("expects_denial", [False, True])
def test_calls_about_one_account_are_made_in_order_up_to_its_limit(comptroller, expects_denial):
    granted(comptroller, "u", "v")
    keys = ["before", *(f"k{number}" for number in range(35)), "k0"]
    calls = [admission(comptroller, "u", key, expects_denial=expects_denial) for key in keys]
    calls.insert(7, admission(comptroller, "v", "k"))
    run_batch(comptroller._db, calls)
    assert all(done(calls))
    other = calls.pop(7).answer()
    answers = [each.answer() for each in calls]
    assert other.granted
    assert [answer.granted for answer in answers] == [*[True] * 30, *[False] * 6, True]
    assert [answer.replayed for answer in (answers[0], answers[1], answers[-1])] == [1, 0, 1]
    assert answers[-1].id == answers[1].id
    numbers = [int(answer.id.rsplit("_", 1)[1]) for answer in answers[1:30]]
    assert numbers == sorted(numbers)


def test_the_first_calls_of_an_account_open_one_book(comptroller, database):
    calls = [admission(comptroller, "new", f"k{number}") for number in range(5)]
    run_batch(comptroller._db, calls)
    assert [each.answer().granted for each in calls] == [True] * 5
    assert rows(database, "SELECT count(*) FROM comptroller_book") == [(1,)]


def test_an_end_and_an_admit_of_one_account_see_each_other(comptroller):
    comptroller.admit(account="u", operation="clip", attributes={"n": 29}, key="much")
    (last,) = granted(comptroller, "u")
    calls = [
        admission(comptroller, "u", "too many"),
        call(releasing(comptroller, last.id, reason="failed")),
        admission(comptroller, "u", "again"),
        call(releasing(comptroller, last.id, reason="failed")),
    ]
    run_batch(comptroller._db, calls)
    denied, first, again, second = [each.answer() for each in calls]
    assert isinstance(denied, Denial)
    assert (first.by_this_call, second.by_this_call) == (True, False)
    assert again.granted


def test_what_has_fallen_due_is_posted_before_a_call_is_made(comptroller, clock):
    granted(comptroller, "u")
    granted(comptroller, "v")
    clock.advance(timedelta(hours=2))
    calls = [admission(comptroller, name, "k", n=30) for name in ("u", "v", "w")]
    run_batch(comptroller._db, calls)
    # Who has dues reads what it has just written: it is made alone.
    assert done(calls) == [False, False, True]
    assert comptroller.admit(account="u", operation="clip", attributes={"n": 30}, key="k").granted


def test_a_denial_in_a_batch_waits_for_nobody(comptroller, database):
    granted(comptroller, "u")
    comptroller.admit(account="u", operation="clip", attributes={"n": 29}, key="rest")
    calls = [
        admission(comptroller, "u", "k", expects_denial=True),
        admission(comptroller, "v", "k"),
    ]
    with locked(database):
        run_batch(comptroller._db, calls)
    assert done(calls) == [True, False]
    assert calls[0].answer().reason == "allowance_exhausted"


def test_an_account_that_somebody_holds_is_left_out_while_the_batch_goes_on(comptroller, database):
    if database.startswith("sqlite"):
        pytest.skip("one writer holds every account of a file")
    import psycopg

    granted(comptroller, "a", "b", "c")
    calls = [admission(comptroller, name, "k") for name in "abc"]
    with psycopg.connect(database) as other:
        other.execute(
            "SELECT FROM comptroller.book JOIN comptroller.account_name ON book_id = id"
            " WHERE name = 'b' FOR UPDATE OF book"
        )
        run_batch(comptroller._db, calls)
    assert done(calls) == [True, False, True]


def test_listeners_hear_of_each_call_once_it_is_committed(comptroller, database):
    heard = []

    class Listener:
        def committed(self, saved, notes):
            reach = "SELECT id, seq FROM comptroller_book"
            heard.append((dict(saved), dict(rows(database, reach))))

        def joined(self, saved):
            raise AssertionError("nobody has joined anything")

    granted(comptroller, "a", "b")
    store = TellingStore(comptroller._db)
    store.listener = Listener()
    calls = [
        admission(comptroller, name, key) for name, key in (("a", "1"), ("b", "1"), ("a", "2"))
    ]
    run_batch(store, calls)
    told = [next(iter(saved.items())) for saved, _ in heard]
    assert [reach for _, reach in told] == [(1, 2), (1, 2), (2, 3)]
    assert all(
        committed[book] >= reach[1]
        for (book, reach), (_, committed) in zip(told, heard, strict=True)
    )


def test_who_is_denied_and_whose_time_is_over_hears_what_it_would_hear_alone(comptroller, clock):
    comptroller.admit(account="u", operation="clip", attributes={"n": 30}, key="all")
    more = {"not_after": clock() - timedelta(seconds=1)}
    calls = [admission(comptroller, "u", "k", **more), admission(comptroller, "v", "k")]
    run_batch(comptroller._db, calls)
    assert done(calls) == [False, True]
    with pytest.raises(DeadlinePassed):
        comptroller.admit(account="u", operation="clip", key="k", **more)
