"""The schema on PostgreSQL: as the code declares it, whole or in partitions, and nobody else's."""

from __future__ import annotations

import psycopg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import CreateSchema

from billing import schema
from billing.placement import SCHEMA, placed, placing
from billing.tables import PREFIX, Table
from policies import PolicySet, SchemaMismatch
from quota import Comptroller, InvalidRequest
from tests.databases import PARTITIONED, PARTITIONS, a_database
from tests.hosts.host import on_driver
from tests.world import POLICIES

COLUMNS = """
SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), l.collname, a.attnotnull,
    pg_get_expr(d.adbin, d.adrelid)
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p')
LEFT JOIN pg_collation l ON l.oid = a.attcollation
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE c.relnamespace = 'comptroller'::regnamespace AND a.attnum > 0 AND NOT c.relispartition
"""
CONSTRAINTS = """
SELECT c.relname, pg_get_constraintdef(o.oid) FROM pg_constraint o JOIN pg_class c ON c.oid = o.conrelid
WHERE o.connamespace = 'comptroller'::regnamespace AND o.conparentid = 0 AND o.contype <> 'n'
AND NOT c.relispartition
"""
INDEXES = """
SELECT c.relname, pg_get_indexdef(i.indexrelid) FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
WHERE c.relnamespace = 'comptroller'::regnamespace AND NOT c.relispartition
"""


def catalogue(url):
    """Every column, constraint and index of our tables, as the server knows them."""
    with psycopg.connect(url) as connection:
        found = [
            sorted(map(repr, connection.execute(query.encode())))
            for query in (COLUMNS, CONSTRAINTS, INDEXES)
        ]
    # An index of a partitioned table is made ON ONLY it: its partitions have theirs.
    return [
        [row.replace("ON ONLY ", "ON ") for row in rows if "schema_version" not in row]
        for rows in found
    ]


@pytest.fixture
def engine_of():
    engines = []

    def make(url):
        engines.append(create_engine(on_driver(url, "psycopg")))
        return engines[-1]

    yield make
    for engine in engines:
        engine.dispose()


@pytest.fixture
def empty(postgres):
    with postgres.database() as url:
        yield url


def test_the_migrated_tables_are_the_declared_ones(database, empty, engine_of):
    with engine_of(empty).begin() as connection, placing(connection):
        connection.execute(CreateSchema(SCHEMA))
        Table.metadata.create_all(connection)
    assert catalogue(database) == catalogue(empty)


def test_tables_in_partitions_are_the_same_tables(database, tmp_path):
    with a_database(PARTITIONED, tmp_path) as partitioned:
        assert catalogue(partitioned) == catalogue(database)
        with psycopg.connect(partitioned) as connection:
            parts = connection.execute(
                "SELECT inhparent::regclass::text, count(*) FROM pg_inherits JOIN pg_class c"
                " ON c.oid = inhrelid WHERE c.relkind = 'r' GROUP BY 1 ORDER BY 1"
            ).fetchall()
    names = ["book", "ending", "erasable", "gpu_attempt", '"grant"', "hold", "late_ending"]
    names += ["ledger_account", "line", "lot", "lot_balance", "record", "transfer"]
    assert parts == [(f"comptroller.{name}", PARTITIONS) for name in sorted(names)]


def test_books_lie_in_all_partitions(tmp_path):
    with a_database(PARTITIONED, tmp_path) as url:
        with Comptroller.open(PolicySet.parse(POLICIES), url) as comptroller:
            for number in range(10 * PARTITIONS):
                assert comptroller.admit(account=f"u{number}", operation="clip", key="k")
            assert comptroller.verify() == []
        with psycopg.connect(url) as connection:
            (used,) = connection.execute(
                "SELECT count(DISTINCT tableoid) FROM comptroller.record"
            ).fetchone() or (0,)
    assert used == PARTITIONS


def test_a_statement_about_one_book_looks_into_one_partition(tmp_path):
    with a_database(PARTITIONED, tmp_path) as url, psycopg.connect(url) as connection:
        plan = connection.execute(
            "EXPLAIN SELECT * FROM comptroller.line WHERE book_id = 7 AND counts_at > now()"
        ).fetchall()
    assert sum("line_p" in line for (line,) in plan) == 1, plan


@pytest.mark.parametrize(
    ("partitions", "said"),
    [(16, "has Comptroller's tables already"), (-1, "must be 1 to 1024"), (1025, "not 1025")],
)
def test_partitions_are_chosen_when_the_tables_are_made(database, engine_of, partitions, said):
    with engine_of(database).begin() as connection, pytest.raises(InvalidRequest, match=said):
        schema.upgrade(connection, partitions=partitions)


def test_there_are_no_partitions_on_sqlite():
    engine = create_engine("sqlite://")
    with engine.begin() as connection, pytest.raises(InvalidRequest, match="SQLite has no part"):
        schema.upgrade(connection, partitions=16)
    engine.dispose()


def test_a_schema_that_is_somebody_elses_is_refused(empty):
    with psycopg.connect(empty) as connection:
        connection.execute("CREATE SCHEMA comptroller")
        connection.execute("CREATE TABLE comptroller.their_own (id bigint)")
    with pytest.raises(
        SchemaMismatch, match=r"such as `comptroller\.their_own` without a schema v"
    ):
        Comptroller.open(PolicySet.unlimited(), empty)


def test_tables_of_the_hosts_that_are_called_as_ours_are_left_alone(empty):
    names = ("book", "record", "grant", "comptroller_book", "comptroller_grant")
    with psycopg.connect(empty) as connection:
        for name in names:
            connection.execute(f'CREATE TABLE "{name}" (theirs text)'.encode())
    with Comptroller.open(PolicySet.parse(POLICIES), empty) as comptroller:
        assert comptroller.admit(account="u", operation="clip", key="k")
        assert comptroller.verify() == []
    with psycopg.connect(empty) as connection:
        for name in names:
            assert connection.execute(f'SELECT * FROM public."{name}"'.encode()).fetchall() == []


def test_who_may_not_make_schemas_can_use_one_that_is_there(empty, engine_of):
    owner = engine_of(empty)
    with owner.begin() as connection:
        connection.execute(text("CREATE ROLE tenant_of_one_schema"))
        try:
            connection.execute(text("CREATE SCHEMA comptroller AUTHORIZATION tenant_of_one_schema"))
            connection.execute(text("SET LOCAL ROLE tenant_of_one_schema"))
            schema.upgrade(connection)
            schema.check(connection)
        finally:
            connection.rollback()


def test_a_database_of_a_later_version_is_refused(database):
    with psycopg.connect(database) as connection:
        connection.execute("UPDATE comptroller.schema_version SET version_num = '9999'")
    with pytest.raises(SchemaMismatch, match="9999"):
        Comptroller.open(PolicySet.unlimited(), database)


def test_check_does_not_make_a_schema(empty):
    with pytest.raises(SchemaMismatch, match="comptroller db upgrade"):
        Comptroller.open(PolicySet.unlimited(), empty, migrate="check")
    with psycopg.connect(empty) as connection:
        assert connection.execute("SELECT to_regnamespace('comptroller')").fetchone() == (None,)


def test_names_are_ours_only_where_they_are_whole():
    server, file = postgresql.dialect(), sqlite.dialect()
    named = f"{PREFIX}line, {PREFIX}line_window, {PREFIX}x, my_{PREFIX}line, {PREFIX}schema_version"
    assert placed(named, file) == named
    assert placed(named, server) == (
        f'comptroller."line", {PREFIX}line_window, {PREFIX}x, my_{PREFIX}line, comptroller."schema_version"'
    )
