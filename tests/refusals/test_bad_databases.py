"""A database that cannot be used is refused with a named error, in one line, and stays as it was."""

from __future__ import annotations

import sqlite3

import pytest

from policies.policy_set import PolicySet
from quota import (
    AccountBusy,
    Comptroller,
    ComptrollerError,
    InvalidRequest,
    PolicyError,
    SchemaMismatch,
    StoreUnavailable,
)
from tests.hosts.host import an_engine
from tests.world import POLICIES, START, a_world, plan

SMALL = plan("{sources: [{kind: daily_allowance, units: 3}]}")


def refused(error: type[ComptrollerError], database, **more) -> str:
    with pytest.raises(error) as caught:
        Comptroller.open(SMALL, database, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def an_sqlite(path, *statements):
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()
    return f"sqlite:///{path}"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "comptroller.db",
        "postgresql+asyncpg://x/y",
        "postgresql+psycopg2://x/y",
        "mysql://x",
        "sqlite",
        "://",
        "sqlite+aiosqlite://",
        7,
    ],
)
def test_a_url_that_cannot_be_used_is_refused(url):
    refused(InvalidRequest, url)


def test_a_way_to_migrate_that_is_none_is_refused():
    refused(InvalidRequest, "sqlite://", migrate="perhaps")


def test_a_folder_that_does_not_exist_is_unavailable(tmp_path):
    said = refused(StoreUnavailable, f"sqlite:///{tmp_path}/nowhere/books.db")
    assert said.endswith(f"there is no folder `{tmp_path}/nowhere`")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_unavailable_and_stays_as_it_was(tmp_path):
    path = tmp_path / "books.db"
    path.write_bytes(b"these are no books\n" * 400)
    refused(StoreUnavailable, f"sqlite:///{path}")
    assert path.read_bytes() == b"these are no books\n" * 400


def test_a_database_without_our_tables_is_not_checked_into_having_them(tmp_path):
    url = an_sqlite(tmp_path / "host.db", "CREATE TABLE account (id INTEGER)")
    assert "comptroller db upgrade" in refused(SchemaMismatch, url, migrate="check")


def test_a_database_of_a_later_version_is_refused(tmp_path):
    path = tmp_path / "books.db"
    Comptroller.open(SMALL, f"sqlite:///{path}").close()
    url = an_sqlite(path, "UPDATE comptroller_schema_version SET version_num = '9999'")
    before = path.read_bytes()
    for migrate in ("auto", "check"):
        refused(SchemaMismatch, url, migrate=migrate)
    assert path.read_bytes() == before


def test_tables_of_our_names_that_are_not_ours_are_refused(tmp_path):
    url = an_sqlite(tmp_path / "books.db", "CREATE TABLE comptroller_grant (id INTEGER)")
    refused(SchemaMismatch, url)
    connection = sqlite3.connect(tmp_path / "books.db")
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [
        ("comptroller_grant",)
    ]
    connection.close()


def test_a_database_that_can_only_be_read_answers_questions_and_grants_nothing(tmp_path):
    path = tmp_path / "books.db"
    with a_world(database=f"sqlite:///{path}") as world:
        world.grant(30)
    read_only = f"sqlite:///file:{path}?mode=ro&uri=true"
    with Comptroller.open(
        PolicySet.parse(POLICIES), read_only, clock=lambda: START, migrate="check"
    ) as comptroller:
        assert comptroller.balance("u").allowances[0].used == 30
        assert not comptroller.admit(account="u", operation="clip", key="k")
        with pytest.raises(StoreUnavailable) as caught:
            comptroller.admit(account="v", operation="clip", key="k")
        assert caught.value.retryable
        health = comptroller.health()
        assert (health.ok, health.writable) == (False, False)


def test_a_database_that_is_damaged_while_in_use_is_unavailable(tmp_path):
    path = tmp_path / "books.db"
    with a_world(database=f"sqlite:///{path}") as world:
        for number in range(50):
            world.grant(1, account=f"a{number}")
    damaged = bytearray(path.read_bytes())
    for page in range(4096 * 3, len(damaged), 4096):
        damaged[page : page + 512] = bytes(range(256)) * 2
    path.write_bytes(damaged)

    def used() -> None:
        with Comptroller.open(SMALL, f"sqlite:///{path}", clock=lambda: START) as comptroller:
            comptroller.admit(account="a1", operation="clip", key="k")

    with pytest.raises((StoreUnavailable, SchemaMismatch)):
        used()


def test_a_locked_database_is_busy_and_then_free_again(tmp_path):
    path = tmp_path / "books.db"
    engine = an_engine(f"sqlite:///{path}", busy_seconds=0.01)
    with a_world(database=engine) as world:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        before = world.dump()
        for call in (
            lambda: world.admit(1, key="job"),
            lambda: world.comptroller.set_plan("u", "pro"),
            world.buy,
        ):
            with pytest.raises(AccountBusy):
                call()
        assert not world.comptroller.health().ok
        other.rollback()
        other.close()
        assert world.dump() == before
        assert world.grant(1, key="job")
    engine.dispose()


def test_a_policy_file_that_is_wrong_is_refused_with_all_that_is_wrong_and_no_database_is_made(
    tmp_path,
):
    path = tmp_path / "policies.yaml"
    path.write_text(
        POLICIES.replace("units: 30", "units: many").replace("usd_per_hour: 3.60", "x: 1")
    )
    with pytest.raises(PolicyError) as caught:
        Comptroller.open(path, f"sqlite:///{tmp_path}/books.db")
    assert len(caught.value.problems) > 1
    missing = tmp_path / "missing.yaml"
    with pytest.raises(PolicyError):
        Comptroller.open(missing, f"sqlite:///{tmp_path}/books.db")


def test_a_policy_file_that_becomes_wrong_leaves_the_old_one_in_force(tmp_path):
    path = tmp_path / "policies.yaml"
    path.write_text(POLICIES)
    with Comptroller.open(path, "sqlite://", clock=lambda: START) as comptroller:
        version = comptroller.policies.version
        path.write_text("schema: 2")
        with pytest.raises(PolicyError):
            comptroller.reload_policies()
        assert comptroller.policies.version == version
        assert comptroller.health().policy_problem
        assert comptroller.admit(account="u", operation="clip", key="k")
