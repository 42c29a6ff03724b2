"""Timeouts: ours hold on our own connections and within our savepoints, and a host keeps its own."""

from __future__ import annotations

import os
import socket
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy.orm import Session

from quota import AccountBusy, Comptroller, IdempotencyConflict
from tests.databases import locked
from tests.hosts.host import an_engine
from tests.postgres.conftest import opened
from tests.world import START

SETTINGS = ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")


def settings(cursor) -> list[str]:
    return [cursor.execute(f"SHOW {name}").fetchone()[0] for name in SETTINGS]


def timeouts(session) -> tuple[str, str]:
    connection = session.connection()
    shown = (connection.exec_driver_sql(f"SHOW {name}").scalar() for name in SETTINGS[:2])
    return tuple(shown)


def test_our_own_connections_wait_for_nothing_for_ever(world):
    with closing(world.comptroller._db.engine.raw_connection()) as connection:
        assert settings(connection.cursor()) == ["10s", "1min", "1min"]


def test_a_server_that_has_vanished_is_given_up(world, database):
    """One that is there and hangs sends its timeouts itself; of one that is not, the kernel must tell."""

    def patience(url: str) -> tuple[int, ...]:
        with opened(url) as comptroller, closing(comptroller._db.engine.raw_connection()) as one:
            number = os.dup(one.driver_connection.fileno())
            with socket.socket(fileno=number) as way:
                names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
                assert way.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
                values = (*names, socket.TCP_USER_TIMEOUT)
                return tuple(way.getsockopt(socket.IPPROTO_TCP, each) for each in values)

    assert patience(database) == (10, 5, 2, 20_000)
    own = "keepalives_idle=60&keepalives_interval=7&keepalives_count=9&tcp_user_timeout=90000"
    assert patience(f"{database}?{own}") == (60, 7, 9, 90_000)


def test_what_the_url_says_wins(database):
    url = f"{database}?options=-c%20lock_timeout%3D50&application_name=video"
    with opened(url) as comptroller:
        with closing(comptroller._db.engine.raw_connection()) as connection:
            assert settings(connection.cursor()) == ["50ms", "1min", "1min"]
            name = connection.cursor().execute("SHOW application_name").fetchone()
            assert name == ("video",)
        with locked(database), pytest.raises(AccountBusy, match="locked past the timeout"):
            comptroller.admit(account="u", operation="clip", key="k")


def test_who_reads_at_leisure_is_not_interrupted(world):
    with world.comptroller._db.reading(unhurried=True) as db:
        assert settings(db.driver.cursor())[1:] == ["0", "0"]
    with world.comptroller._db.reading() as db:
        assert settings(db.driver.cursor())[1:] == ["1min", "1min"]


def test_in_the_hosts_session_ours_hold_only_while_we_are_in_it(world, host):
    with Session(host) as session:
        assert timeouts(session) == ("0", "0")
        with world.comptroller._db.writing(session) as db:
            assert settings(db.driver.cursor())[:2] == ["10001ms", "60001ms"]
        assert timeouts(session) == ("0", "0")
        world.grant(30, key="key", session=session)
        assert timeouts(session) == ("0", "0")
        world.deny(1, session=session)
        with pytest.raises(IdempotencyConflict):
            world.admit(2, key="key", session=session)
        assert timeouts(session) == ("0", "0")
        session.rollback()


def test_in_the_hosts_session_its_own_stand(world, database):
    engine = an_engine(database, busy_seconds=0.05)
    with Session(engine) as session, locked(database):
        with pytest.raises(AccountBusy):
            world.grant(session=session)
        assert timeouts(session) == ("50ms", "0")
    with Comptroller.open(world.comptroller.policies, engine, clock=lambda: START) as on_theirs:
        with locked(database), pytest.raises(AccountBusy):
            on_theirs.admit(account="u", operation="clip", key="k")
        with closing(engine.raw_connection()) as connection:
            assert settings(connection.cursor()) == ["50ms", "0", "0"]
            theirs: Any = connection.driver_connection
            assert theirs.autocommit is False
    engine.dispose()
