"""A server that ends, restarts, or ends a session: what is asked afterwards is answered, and nothing is half done."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import psycopg
import pytest
from sqlalchemy.orm import Session

from quota import StoreUnavailable
from tests.postgres.conftest import opened, wait_until_somebody_waits
from tests.servers import Postgres
from tests.world import discrepancies

TERMINATE = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


@pytest.fixture(scope="module")
def server():
    with Postgres(durable=True) as own:
        yield own


@pytest.fixture
def books(server):
    with server.database() as url:
        yield url


def watching(database):
    return psycopg.connect(database, autocommit=True)


def fill_the_pool(comptroller) -> None:
    """Leave some connections in the pool."""
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda number: comptroller.balance(f"a{number}"), range(16)))


def test_after_a_restart_of_the_server_nobody_sees_an_error(server, books):
    with opened(books) as comptroller:
        fill_the_pool(comptroller)
        server.restart()
        fill_the_pool(comptroller)
        assert comptroller.admit(account="u", operation="clip", key="k")
        assert discrepancies(comptroller) == []


def test_connections_that_the_server_has_ended_are_not_used_again(books):
    with opened(books) as comptroller, closing(watching(books)) as outside:
        fill_the_pool(comptroller)
        assert len(outside.execute(TERMINATE).fetchall()) >= 1
        assert comptroller.admit(account="u", operation="clip", key="k")


def test_a_notice_of_the_server_is_no_reason_to_let_a_connection_go(books):
    with opened(books) as comptroller, closing(watching(books)) as outside:
        with closing(comptroller._db.engine.raw_connection()) as kept:
            kept.cursor().execute("LISTEN something")
            session = kept.driver_connection.info.backend_pid
        outside.execute("NOTIFY something")
        with closing(comptroller._db.engine.raw_connection()) as kept:
            assert kept.driver_connection.info.backend_pid == session
        assert comptroller.admit(account="u", operation="clip", key="k")


def test_a_server_that_is_killed_while_a_grant_is_waited_for_has_granted_nothing(server, books):
    with opened(books) as comptroller, ThreadPoolExecutor(1) as thread:
        comptroller.set_plan("u", "pro")
        with closing(psycopg.connect(books)) as other, closing(watching(books)) as outside:
            other.execute("SELECT * FROM comptroller.book FOR UPDATE")
            asked = thread.submit(comptroller.admit, account="u", operation="clip", key="k")
            wait_until_somebody_waits(outside)
            server.kill()
            with pytest.raises(StoreUnavailable) as caught:
                asked.result(30)
            assert caught.value.retryable
        health = comptroller.health()
        assert (health.ok, health.database, health.writable) == (False, "down", False)
        assert "\n" not in str(health.problem)
        server.start()
        assert comptroller.health().ok
        again = comptroller.admit(account="u", operation="clip", key="k")
        assert (again.granted, again.replayed) == (True, False)
        assert discrepancies(comptroller) == []


def test_a_session_that_ends_in_the_middle_of_a_grant_leaves_nothing(books):
    with opened(books) as comptroller, closing(watching(books)) as outside:

        def be_cut_off() -> None:
            with comptroller._db.writing() as db:
                db.driver_sql("INSERT INTO comptroller.asset VALUES ('AAA', 2)")
                outside.execute(TERMINATE)
                db.driver_sql("INSERT INTO comptroller.asset VALUES ('BBB', 2)")

        with pytest.raises(StoreUnavailable):
            be_cut_off()
        found = outside.execute("SELECT code FROM comptroller.asset WHERE code IN ('AAA', 'BBB')")
        assert found.fetchall() == []
        assert comptroller.admit(account="u", operation="clip", key="k")


def test_a_session_of_the_host_that_has_ended_is_unavailable(books, host_of):
    with opened(books) as comptroller, closing(watching(books)) as outside:
        with Session(host_of(books)) as session:
            session.connection()
            outside.execute(TERMINATE)
            with pytest.raises(StoreUnavailable):
                comptroller.admit(account="u", operation="clip", key="k", session=session)
            session.invalidate()
        assert comptroller.admit(account="u", operation="clip", key="k")
