"""Asking for rows as records spell them, so that they can be compared with them unconverted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Select, cast, extract, select, type_coerce

from billing.columns import Instant
from billing.sql import Statement


def as_stored(
    columns: Sequence[ColumnElement[Any]], rows: Callable[[Select[Any]], Select[Any]]
) -> Statement:
    """Return the statement that asks for these columns, with instants in microseconds since 1970.

    `rows` adds to the query which rows are wanted.
    """
    in_file = (type_coerce(each, BigInteger) if _is_instant(each) else each for each in columns)
    in_server = (_micros(each) if _is_instant(each) else each for each in columns)
    return Statement(rows(select(*in_file)), postgresql=rows(select(*in_server)))


def _is_instant(column: ColumnElement[Any]) -> bool:
    return isinstance(column.type, Instant)


def _micros(column: ColumnElement[Any]) -> ColumnElement[int]:
    # PostgreSQL extracts a decimal number, so that nothing is lost.
    return cast(extract("epoch", column) * 1_000_000, BigInteger)
