"""Several real processes, and threads within them, on one database."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest

from quota import Denial, Grant
from tests.databases import KINDS, a_database, locked, rows
from tests.processes import workers
from tests.processes.workers import opened, together
from tests.world import HOUR, START, dump

PROCESSES = 3


@pytest.fixture(params=KINDS)
def database(request, tmp_path):
    with a_database(request.param, tmp_path) as url:
        yield url


@pytest.fixture(params=KINDS)
def empty(request, tmp_path):
    """A database without our tables."""
    with a_database(request.param, tmp_path, nothing) as url:
        yield url


def nothing(url: str) -> None:
    """Make no tables."""


def sound(database) -> bool:
    with opened(database) as comptroller:
        verify = getattr(comptroller, "verify", None)
        return verify is None or list(verify()) == []


def test_guarantee_exact_a_thousand_admits_from_processes_and_threads_at_limit_30(database):
    arguments = [
        (database, "a", 334, 4),
        (database, "b", 333, 2),
        (database, "c", 333, 1),
    ]
    answers = sum((Counter(each) for each in together(workers.admit_many, arguments)), Counter())
    assert answers == {"granted": 30, "allowance_exhausted": 970}
    assert rows(database, "SELECT sum(units) FROM comptroller_line") == [(30,)]
    assert sound(database)


def test_guarantee_once_the_first_requests_of_unknown_accounts_open_one_book_each(database):
    accounts = [f"new-{number}" for number in range(25)]
    answers = together(workers.admit_same, [(database, "job", accounts)] * PROCESSES)
    for together_asked in zip(*answers, strict=True):
        assert len({grant for grant, _ in together_asked}) == 1
        assert Counter(how for _, how in together_asked) == {
            "granted": 1,
            "replayed": PROCESSES - 1,
        }
    assert rows(database, "SELECT count(*) FROM comptroller_book") == [(25,)]
    assert sound(database)


def test_guarantee_ends_once_settle_release_and_expiry_race_for_each_grant(database):
    with opened(database) as comptroller:
        grants = [
            comptroller.admit(account=f"a{number}", operation="clip", key="k")
            for number in range(25)
        ]
    names = [grant.id for grant in grants]
    before, after = START + timedelta(minutes=1), START + 2 * HOUR
    answers = together(
        workers.end_all,
        [
            (database, "settle", names, before.isoformat()),
            (database, "release", names, before.isoformat()),
            (database, "sweep", names, after.isoformat()),
            (database, "settle", list(reversed(names)), after.isoformat()),
        ],
    )
    ends = dict(rows(database, "SELECT book_id, status FROM comptroller_ending"))
    assert len(ends) == 25
    assert rows(database, "SELECT count(*) FROM comptroller_hold") == [(0,)]
    made: Counter[str] = Counter()
    answers[3].reverse()
    for told in (answers[0], answers[1], answers[3]):
        for name, (status, by_this_call) in zip(names, told, strict=True):
            assert status == ends[int(name.split("_")[1])]
            made[name] += by_this_call
    assert set(made.values()) <= {0, 1}
    assert sound(database)


def test_guarantee_once_the_same_purchases_from_many_processes_are_booked_once(database):
    answers = together(workers.buy_same, [(database, "order", 20)] * PROCESSES)
    for bought in zip(*answers, strict=True):
        assert len({lot for lot, _ in bought}) == 1
        assert sorted(replayed for _, replayed in bought) == [False, True, True]
    assert rows(database, "SELECT sum(units) FROM comptroller_lot") == [(200,)]
    assert sound(database)


def test_processes_that_start_together_make_the_schema_once(empty):
    assert len(set(together(workers.open_and_close, [(empty,)] * 4))) == 1


def test_a_denial_takes_no_write_lock(database):
    with opened(database) as comptroller:
        comptroller.admit(account="u", operation="clip", attributes={"n": 30}, key="all")
        with locked(database):
            denial = comptroller.admit(account="u", operation="clip", key="one more")
            assert isinstance(denial, Denial)
            assert denial.retry_at
            estimate = comptroller.estimate(account="u", operation="clip")
            assert not estimate
            assert comptroller.balance("u").allowances[0].used == 30
            replay = comptroller.admit(
                account="u", operation="clip", attributes={"n": 30}, key="all"
            )
            assert isinstance(replay, Grant)
            assert replay.replayed


def test_a_denial_changes_no_row_of_the_books(database):
    with opened(database) as comptroller:
        comptroller.admit(account="u", operation="clip", attributes={"n": 30}, key="all")
        before = dump(lambda sql: rows(database, sql))
        assert not comptroller.admit(account="u", operation="clip", key="one more")
        after = dump(lambda sql: rows(database, sql))
        for table in after:
            if "denial" not in table:
                assert after[table] == before[table]
