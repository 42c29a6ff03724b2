"""What goes wrong is said in one line, without secrets, by an error that says whether a retry can help."""

from __future__ import annotations

import socket
import traceback
from contextlib import closing, suppress

import psycopg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from billing.sql import insert_into
from billing.tables import ASSETS
from quota import (
    AccountBusy,
    Comptroller,
    ComptrollerError,
    InvalidRequest,
    SchemaMismatch,
    StaleTransaction,
    StoreUnavailable,
)
from quota.stores.base import Undone
from quota.stores.postgres_errors import meaning_of, translated
from tests.postgres.conftest import opened
from tests.world import plan

SMALL = plan("{sources: [{kind: daily_allowance, units: 3}]}")
SECRET = "hunter2-s3cret"
MEANINGS = {
    "08006": StoreUnavailable,  # the connection broke
    "25006": StoreUnavailable,  # a standby
    "28P01": StoreUnavailable,  # the password is wrong
    "3D000": StoreUnavailable,  # no such database
    "3F000": SchemaMismatch,
    "40001": Undone,
    "40P01": Undone,
    "42501": StoreUnavailable,  # no right to
    "42P01": SchemaMismatch,
    "53100": StoreUnavailable,  # the disk is full
    "53200": StoreUnavailable,  # out of memory
    "53300": StoreUnavailable,  # too many connections
    "55P03": AccountBusy,
    "57014": StoreUnavailable,  # the statement took too long
    "57P01": StoreUnavailable,  # the server goes down
    "57P03": StoreUnavailable,  # the server comes up
    "58030": StoreUnavailable,  # the disk fails
    "XX001": StoreUnavailable,  # a page is damaged
}


@pytest.mark.parametrize(("state", "meaning"), MEANINGS.items())
@pytest.mark.parametrize("wrapped", [False, True])
def test_each_error_of_the_database_has_one_meaning(state, meaning, wrapped):
    error: Exception = psycopg.errors.lookup(state)("what it says\nDETAIL: more of it")
    if wrapped:
        error = DBAPIError("SELECT 1", None, error)
    with pytest.raises(meaning) as caught, translated():
        raise error
    assert "\n" not in str(caught.value)
    assert caught.value.retryable is (meaning is not SchemaMismatch)


@pytest.mark.parametrize(
    ("state", "meaning"),
    [
        ("40001", StaleTransaction),
        ("40P01", AccountBusy),
        ("25P01", InvalidRequest),
        ("25P02", InvalidRequest),
    ],
)
def test_in_the_hosts_transaction_some_mean_something_else(state, meaning):
    assert type(meaning_of(psycopg.errors.lookup(state)("x"), joined=True)) is meaning


def test_a_row_that_the_database_refuses_is_a_bug_and_stays_one():
    with pytest.raises(psycopg.errors.CheckViolation), translated():
        raise psycopg.errors.CheckViolation("units_in")
    with pytest.raises(ZeroDivisionError), translated():
        raise ZeroDivisionError


# --- at a real server -------------------------------------------------------------------------


def refused(error: type[ComptrollerError], database, **more) -> str:
    with pytest.raises(error) as caught:
        Comptroller.open(SMALL, database, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_server_that_is_not_there_is_unavailable():
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and not listening
        port = taken.getsockname()[1]
        said = refused(StoreUnavailable, f"postgresql://u@127.0.0.1:{port}/x")
    assert "refused" in said


def test_a_database_that_is_not_there_is_unavailable(database):
    url = make_url(database).set(database="nowhere").render_as_string(hide_password=False)
    assert "nowhere" in refused(StoreUnavailable, url)


def test_a_database_without_our_tables_says_how_to_make_them(database_url):
    assert "comptroller db upgrade" in refused(SchemaMismatch, database_url, migrate="check")
    with opened(database_url, migrate="auto") as comptroller:
        assert comptroller.admit(account="u", operation="clip", key="k")
        with psycopg.connect(database_url) as outside:
            outside.execute("DROP SCHEMA comptroller CASCADE")
        with pytest.raises(SchemaMismatch, match="comptroller db upgrade"):
            comptroller.admit(account="u", operation="clip", key="k")


def test_a_database_that_can_only_be_read_answers_questions_and_grants_nothing(database, outside):
    with opened(database) as comptroller:
        comptroller.admit(account="u", operation="clip", attributes={"n": 30}, key="all")
    outside.execute(
        f'ALTER DATABASE "{outside.info.dbname}" SET default_transaction_read_only = on'
    )
    with opened(database) as comptroller:
        assert comptroller.balance("u").allowances[0].used == 30
        assert not comptroller.admit(account="u", operation="clip", key="k")
        with pytest.raises(StoreUnavailable, match="can only be read") as caught:
            comptroller.admit(account="v", operation="clip", key="k")
        assert caught.value.retryable
        health = comptroller.health()
        assert (health.ok, health.database, health.writable) == (False, "not writable", False)
        comptroller._denials._waiting.clear()


def test_a_connection_to_what_has_become_a_standby_is_not_used_again(database, outside):
    with opened(database) as comptroller:
        outside.execute(
            f'ALTER DATABASE "{outside.info.dbname}" SET default_transaction_read_only = on'
        )
        comptroller._db.engine.dispose()
        with pytest.raises(StoreUnavailable):
            comptroller.admit(account="u", operation="clip", key="k")
        outside.execute(
            f'ALTER DATABASE "{outside.info.dbname}" RESET default_transaction_read_only'
        )
        assert comptroller.admit(account="u", operation="clip", key="k")


def test_a_statement_that_takes_too_long_is_given_up(database, outside):
    patient = f"{database}?options=-c%20statement_timeout%3D1000"
    with opened(patient) as comptroller:
        outside.execute("BEGIN")
        outside.execute("LOCK TABLE comptroller.book IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(StoreUnavailable, match="took too long"):
            comptroller.balance("u")
        outside.execute("ROLLBACK")
        assert comptroller.balance("u").held == 0


def test_a_pool_that_is_used_up_is_a_busy_database(database):
    with opened(database) as comptroller:
        pool = comptroller._db.engine.pool
        pool._timeout = 0.01
        taken = [comptroller._db.engine.raw_connection() for _ in range(pool.size())]
        with pytest.raises(AccountBusy, match="in use"):
            comptroller.balance("u")
        for connection in taken:
            connection.close()
        assert comptroller.balance("u").held == 0


def test_a_host_in_autocommit_or_after_a_failure_is_told(world, host):
    careless = host.execution_options(isolation_level="AUTOCOMMIT")
    with Session(careless) as session, pytest.raises(InvalidRequest, match="autocommit"):
        world.admit(session=session)
    with Session(host) as session:
        with suppress(DBAPIError):
            session.connection().exec_driver_sql("SELECT * FROM nowhere")
        with pytest.raises(InvalidRequest, match="failed before"):
            world.admit(session=session)
        session.rollback()
        assert world.grant(session=session)


@pytest.mark.parametrize("asked", [False, True])
def test_a_write_that_the_database_refuses_leaves_the_hosts_transaction_as_it_was(
    world, host, asked
):
    """It is sent with others: its error shows at the next question, or at the end."""
    with Session(host) as session:
        session.execute(text("CREATE TABLE theirs (id int)"))
        session.execute(text("INSERT INTO theirs VALUES (1)"))

        def refused_write() -> None:
            with world.comptroller._db.writing(session) as db:
                db.run(insert_into(ASSETS), code="EEE", scale=99)
                if asked:
                    db.flush()

        with pytest.raises(psycopg.errors.CheckViolation):
            refused_write()
        assert session.execute(text("SELECT id FROM theirs")).scalars().all() == [1]
        assert world.grant(session=session)
        session.commit()
    assert world.rows("SELECT code FROM comptroller_asset WHERE code = 'EEE'") == []


def test_a_session_on_another_kind_of_database_is_refused(world):
    engine = create_engine("sqlite://")
    with Session(engine) as session, pytest.raises(InvalidRequest, match="on sqlite"):
        world.admit(session=session)
    engine.dispose()


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg2", "pg8000", "psycopg_async"])
def test_another_driver_in_the_url_is_refused(driver):
    assert "postgresql://" in refused(InvalidRequest, f"postgresql+{driver}://h/x")


# --- secrets ----------------------------------------------------------------------------------

WRONG_URLS = [
    f"postgresql://u:{SECRET}@127.0.0.1:1/x",
    f"postgresql://u:{SECRET}@nowhere.invalid/x?connect_timeout=1",
    f"postgresql://u:{SECRET}@127.0.0.1:port/x",
    f"postgresql://u:@{SECRET}@127.0.0.1/x",
    f"postgresql://u:{SECRET}@127.0.0.1/x?no_such_option=1",
    f"postgresql+asyncpg://u:{SECRET}@127.0.0.1/x",
    f"postgres//u:{SECRET}@127.0.0.1/x",
    f"mysql://u:{SECRET}@127.0.0.1/x",
]


@pytest.mark.parametrize("url", WRONG_URLS)
def test_the_password_of_the_database_is_in_no_error(url, caplog):
    with pytest.raises(ComptrollerError) as caught:
        Comptroller.open(SMALL, url)
    told = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + caplog.text
    assert SECRET not in told.replace(f'"{url}"', "")


def test_the_password_of_the_database_is_in_no_repr_log_or_report_of_health(database, caplog):
    caplog.set_level("DEBUG")
    url = make_url(database).set(password=SECRET).render_as_string(hide_password=False)
    with opened(url) as comptroller:
        store = comptroller._db
        told = [repr(comptroller), repr(store), repr(store.engine), repr(store.engine.pool)]
        told += [
            repr(comptroller.health()),
            repr(comptroller.admit(account="u", operation="clip", key="k")),
        ]
        told.append(store.server())
    assert SECRET not in "".join(told) + caplog.text
