"""Triggers that make tables append-only: a row, once written, is neither changed nor deleted."""

from __future__ import annotations


def append_only(dialect: str, table: str) -> list[str]:
    """Return the statements that make a table refuse UPDATE and DELETE.

    Raises:
        ValueError: there are no triggers for this database.
    """
    if dialect != "sqlite":
        raise ValueError(f"no triggers are known for {dialect}")
    return [
        f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
        f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
        for verb in ("UPDATE", "DELETE")
    ]
