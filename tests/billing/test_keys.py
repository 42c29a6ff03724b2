"""Every key of a table that holds books' rows begins with the book, so that it can be distributed by it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Column, ForeignKey, Integer, MetaData, Table, Text, UniqueConstraint

from billing.tables import PREFIX
from billing.tables import Table as Ours
from quota import tables as of_grants

SHARED = {
    f"{PREFIX}{name}"
    for name in (
        *("account_name", "payment_reference", "asset"),
        *("policy_version", "budget_day", "budget_block", "denial", "denial_loss"),
        *("purchase", "plan_invoice", "stripe_fact", "stripe_customer", "stripe_event", "top_up"),
        "stripe_progress",
    )
}
"""The tables that all books share. They are in one place, wherever the books are."""


def book_of(table: Table) -> str:
    """The column that says which book a row belongs to."""
    return "id" if table.name == f"{PREFIX}book" else "book_id"


def breaches(table: Table) -> Iterator[str]:
    """What keeps a table from being distributed by book, or from staying in one place."""
    for constraint in table.foreign_key_constraints:
        referred = constraint.referred_table
        if table.name in SHARED or referred.name in SHARED:
            yield f"{table.name} and {referred.name} may be in different places"
            continue
        pairs = [(element.parent.name, element.column.name) for element in constraint.elements]
        if pairs[0] != (book_of(table), book_of(referred)):
            yield f"the foreign key {pairs} of {table.name} does not begin with the book"
    if table.name in SHARED:
        return
    keys: list[Any] = [each for each in table.constraints if isinstance(each, UniqueConstraint)]
    keys += [table.primary_key, *(index for index in table.indexes if index.unique)]
    for key in keys:
        names = [column.name for column in key.columns]
        if names[:1] != [book_of(table)]:
            yield f"the key {names} of {table.name} does not begin with the book"


@pytest.mark.parametrize("name", sorted(Ours.metadata.tables))
def test_every_key_of_a_table_of_books_begins_with_the_book(name):
    assert list(breaches(Ours.metadata.tables[name])) == []


def test_the_shared_tables_are_those_that_there_are():
    assert set(Ours.metadata.tables) > SHARED
    assert of_grants.GRANTS.name in Ours.metadata.tables


def test_a_key_that_begins_otherwise_is_found():
    metadata = MetaData()
    grant = Table(
        f"{PREFIX}grant",
        metadata,
        Column("number", Integer, primary_key=True),
        Column("book_id", Integer, primary_key=True),
        Column("key", Integer, unique=True),
    )
    line = Table(
        f"{PREFIX}line",
        metadata,
        Column("book_id", Integer, primary_key=True),
        Column("grant_no", ForeignKey(grant.c.number)),
        Column("asset", ForeignKey(f"{PREFIX}asset.code")),
    )
    Table(f"{PREFIX}asset", metadata, Column("code", Text, primary_key=True))
    assert len(list(breaches(grant))) == 2
    assert len(list(breaches(line))) == 2
