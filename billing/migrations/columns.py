"""Short names for the columns of migrations. What they make never changes: migrations are history."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from billing.columns import WORDS, Instant

Column = sa.Column[Any]


def identity(name: str) -> Column:
    """A number that the database gives."""
    kind = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    return sa.Column(name, kind, nullable=False)


def whole(name: str, *, null: bool = False, default: str | None = None) -> Column:
    """A 64-bit integer."""
    return sa.Column(
        name, sa.BigInteger(), nullable=null, server_default=default, autoincrement=False
    )


def small(name: str) -> Column:
    """A small integer."""
    return sa.Column(name, sa.Integer(), nullable=False)


def words(name: str, *, null: bool = False, default: str | None = None) -> Column:
    """Text."""
    return sa.Column(name, WORDS, nullable=null, server_default=default)


def instant(name: str, *, null: bool = False) -> Column:
    """An instant in UTC."""
    return sa.Column(name, Instant(), nullable=null)


def octets(name: str, *, null: bool = False) -> Column:
    """Exact bytes."""
    return sa.Column(name, sa.LargeBinary(), nullable=null)
