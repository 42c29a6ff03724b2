"""Tampering with rows on PostgreSQL: `verify` names the book and the record of each, as on SQLite.

Each change is made in a transaction that is rolled back after `verify` has read in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from billing.pipeline import open_db
from billing.placement import SCHEMA
from billing.sql import Db
from tests.databases import a_database
from tests.quota.tampering import MORE, RULES, lived_in, places
from tests.quota.test_verify import TAMPERING
from tests.world import World, a_world, plan, raw

GUARDS = f"""
SELECT format('ALTER TABLE %s DROP CONSTRAINT %I CASCADE', conrelid::regclass, conname)
FROM pg_constraint WHERE connamespace = '{SCHEMA}'::regnamespace AND contype IN ('c', 'f')
UNION ALL
SELECT format('DROP TRIGGER %I ON %s', tgname, tgrelid::regclass)
FROM pg_trigger WHERE NOT tgisinternal
"""
AS_IT_IS_WRITTEN_HERE = (
    (r"zeroblob\(32\)", r"decode(repeat('00', 32), 'hex')"),
    (r"CAST\(replace\(CAST\(body AS TEXT\), (.*?), (.*?)\) AS BLOB\)",
     r"convert_to(replace(convert_from(body, 'UTF8'), \1, \2), 'UTF8')"),
    (r"(\w*at) = (\w*at) ([+-]) 1\b", r"\1 = \2 \3 interval '1 microsecond'"),
)  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Iterator[World]:
    """Books that have lived, in a database that would not refuse anything any more."""
    with (
        a_database("postgresql", tmp_path_factory.mktemp("books")) as url,
        a_world(plan(RULES, more=MORE), database=url) as made,
    ):
        lived_in(made)
        for (statement,) in made.rows(GUARDS):
            made.write(statement)
        yield made


@contextmanager
def tampered(world: World, sql: str, patched: pytest.MonkeyPatch) -> Iterator[None]:
    """Change rows, let everybody read that, and take it back."""
    store = world.comptroller._db
    for pattern, ours in AS_IT_IS_WRITTEN_HERE:
        sql = re.sub(pattern, ours, sql)
    with store.writing() as changed:

        @contextmanager
        def reading(**_: Any) -> Iterator[Db]:
            db = open_db(changed.driver, changed.dialect)
            db.budgets = changed.budgets
            yield db
            db.close()

        count = raw(changed, f"WITH changed AS ({sql} RETURNING 1) SELECT count(*) FROM changed")
        assert count[0][0], f"nothing was changed by {sql}"
        patched.setattr(store, "reading", reading)
        yield
        patched.undo()
        changed.driver_sql("ROLLBACK")
        changed.driver_sql("BEGIN")


@pytest.mark.parametrize("change", TAMPERING)
def test_every_change_of_a_row_is_found_with_its_book_and_record(world, change, monkeypatch):
    sql, seq, said = TAMPERING[change]
    with tampered(world, sql, monkeypatch):
        found = world.comptroller.verify()
    assert (1, seq) in places(found), [str(each) for each in found]
    assert any(each.seq == seq and said in each.what for each in found), [*map(str, found)]
    assert {each.book for each in found} <= {1, None}
    assert all("\n" not in str(each) for each in found)


SHARED = {
    "a policy version": (
        "UPDATE comptroller_policy_version SET content = replace(content, '\"units\":10', '\"units\":99')",
        "content of policy version",
    ),
    "a budget's day": ("UPDATE comptroller_budget_day SET spent_micro_usd = 1", "budget day"),
    "a budget's block": ("UPDATE comptroller_budget_block SET spent_micro_usd = 0", "budget day"),
}


@pytest.mark.parametrize("change", SHARED)
def test_every_change_of_what_books_share_is_found(world, change, monkeypatch):
    sql, said = SHARED[change]
    with tampered(world, sql, monkeypatch):
        found = world.comptroller.verify()
    assert any(each.book is None and said in each.what for each in found), [*map(str, found)]
