"""Column types that are exact on both databases."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, DateTime, Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine

from policies.instants import from_micros, micros


class Instant(TypeDecorator[datetime]):
    """An aware datetime in UTC with microseconds.

    SQLite has no such type and drops time zones: there it is an integer, microseconds since 1970.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return the database's own type."""
        return dialect.type_descriptor(
            BigInteger() if dialect.name == "sqlite" else DateTime(timezone=True)
        )

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """Turn an instant into what is stored."""
        convert = self.bind(dialect)
        return value if convert is None else convert(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Turn what is stored into an instant."""
        convert = self.result(dialect)
        return value if convert is None else convert(value)

    def bind(self, dialect: Dialect) -> Callable[[datetime | None], int | None] | None:
        """Return the function that turns an instant into what is stored; None where the driver does it."""
        return _stored if dialect.name == "sqlite" else None

    def result(self, dialect: Dialect) -> Callable[[int | None], datetime | None] | None:
        """Return the function that turns what is stored into an instant; None where the driver does it."""
        return _loaded if dialect.name == "sqlite" else None


def _stored(instant: datetime | None) -> int | None:
    return None if instant is None else micros(instant)


def _loaded(count: int | None) -> datetime | None:
    return None if count is None else from_micros(count)
