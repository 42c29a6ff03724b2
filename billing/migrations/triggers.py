"""Triggers that make tables append-only: a row, once written, is neither changed nor deleted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from alembic import op

from billing.migrations.partitions import partitions
from billing.placement import SCHEMA, in_schema
from billing.tables import PREFIX

_REFUSE: Final = f"""
CREATE OR REPLACE FUNCTION {SCHEMA}.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END $$
"""


def guard(tables: Iterable[str], *, of_books: bool) -> None:
    """Make tables refuse UPDATE, DELETE and, where there is such a thing, TRUNCATE.

    They are named without their prefix. `of_books`: they hold books' rows, perhaps in partitions.
    """
    server = in_schema(op.get_bind().dialect)
    if server:
        op.execute(_REFUSE)
    for table in tables:
        name = f"{PREFIX}{table}"
        parts = partitions(name) if of_books else ()
        for statement in _in_server(name, parts) if server else _in_file(name):
            op.execute(statement)


def _in_file(table: str) -> Iterator[str]:
    for verb in ("UPDATE", "DELETE"):
        yield (
            f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
            f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
        )


def _in_server(table: str, parts: Iterable[str]) -> Iterator[str]:
    name = table.removeprefix(PREFIX)
    refuse = f"EXECUTE FUNCTION {SCHEMA}.refuse_change()"
    # A trigger for each row is inherited by partitions, and one for the statement is not.
    yield f"CREATE TRIGGER {name}_no_change BEFORE UPDATE OR DELETE ON {table} FOR EACH ROW {refuse}"
    for each in (table, *parts):
        yield f"CREATE TRIGGER {name}_no_truncate BEFORE TRUNCATE ON {each} {refuse}"
