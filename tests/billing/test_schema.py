"""The migrations make exactly the tables that the code declares."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text
from sqlalchemy.schema import CreateTable

from billing import schema
from billing.placement import VERSION_TABLE
from billing.tables import Table
from policies import PolicySet, SchemaMismatch
from quota import Comptroller
from quota.tables import GRANTS


def migrated() -> Any:
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        schema.upgrade(connection)
    return engine


def test_migrating_an_empty_database_gives_the_declared_tables_and_nothing_else():
    engine = migrated()
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": VERSION_TABLE, "compare_type": True}
        )
        assert compare_metadata(context, Table.metadata) == []


def test_every_check_and_key_of_the_declared_tables_is_in_the_migrated_ones():
    engine = migrated()
    with engine.connect() as connection:
        found = dict(
            connection.execute(
                text("SELECT name, sql FROM sqlite_master WHERE type = 'table'")
            ).all()
        )
    for table in Table.metadata.sorted_tables:
        declared = str(CreateTable(table).compile(engine))
        assert sorted(words(declared)) == sorted(words(found[table.name])), table.name


def words(statement: str) -> list[str]:
    """Return a CREATE TABLE's columns and constraints, whatever their order and spelling of names."""
    inner, options = statement[statement.index("(") + 1 :].rsplit(")", 1)
    parts, depth = [""], 0
    for letter in inner:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [" ".join(part.replace('"', "").split()) for part in (*parts, options)]


def test_a_database_of_a_later_version_is_refused(tmp_path):
    url = f"sqlite:///{tmp_path / 'books.db'}"
    Comptroller.open(PolicySet.unlimited(), url).close()
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(SchemaMismatch, match="9999"):
        Comptroller.open(PolicySet.unlimited(), url)


def test_a_database_that_has_our_tables_but_no_version_is_refused(tmp_path):
    url = f"sqlite:///{tmp_path / 'books.db'}"
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text(f"CREATE TABLE {GRANTS.name} (id INTEGER)"))
    engine.dispose()
    with pytest.raises(SchemaMismatch, match="without a schema version"):
        Comptroller.open(PolicySet.unlimited(), url)


def test_check_does_not_make_a_schema(tmp_path):
    url = f"sqlite:///{tmp_path / 'books.db'}"
    with pytest.raises(SchemaMismatch, match="comptroller db upgrade"):
        Comptroller.open(PolicySet.unlimited(), url, migrate="check")


def test_the_wanted_version_is_the_newest_migration():
    scripts = ScriptDirectory.from_config(schema._config())
    assert scripts.get_current_head() == schema.WANTED
    assert len(scripts.get_heads()) == 1


def test_a_database_that_is_up_to_date_opens_without_the_migration_library(tmp_path):
    url = f"sqlite:///{tmp_path / 'books.db'}"
    Comptroller.open(PolicySet.unlimited(), url).close()
    script = (
        "import sys; from policies import PolicySet; from quota import Comptroller; "
        f"Comptroller.open(PolicySet.unlimited(), {url!r}).close(); "
        "sys.exit('alembic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
