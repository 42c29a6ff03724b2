"""Tables that hold books' rows: whole, or in hash partitions by book on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from alembic import op

from billing.placement import SCHEMA
from billing.tables import PREFIX


def create_for_books(
    name: str, *parts: Any, book: str = "book_id", rewritten: bool = False, **options: Any
) -> None:
    """Create a table that holds books' rows, with its partitions. `book`: its column for the book.

    `rewritten`: its rows are updated again and again, so that pages keep room for their next versions.
    """
    room = " WITH (fillfactor = 75)" if rewritten else ""
    if count():
        options["postgresql_partition_by"] = f"HASH ({book})"
    elif rewritten:
        options["postgresql_with"] = {"fillfactor": 75}
    op.create_table(name, *parts, **options)
    for remainder, partition in enumerate(partitions(name)):
        op.execute(
            f"CREATE TABLE {partition} PARTITION OF {name} "
            f"FOR VALUES WITH (MODULUS {count()}, REMAINDER {remainder}){room}"
        )


def partitions(table: str) -> Iterator[str]:
    """Yield the names of a table's partitions."""
    for number in range(count()):
        yield f'{SCHEMA}."{table.removeprefix(PREFIX)}_p{number}"'


def count() -> int:
    """Return how many partitions each table of books gets; 0: none, it is whole."""
    config = op.get_context().config
    return 0 if config is None else cast("int", config.attributes["partitions"])
