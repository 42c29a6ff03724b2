"""Column types that are exact on both databases."""

from __future__ import annotations

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
        return value if value is None or dialect.name != "sqlite" else micros(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Turn what is stored into an instant."""
        return value if value is None or dialect.name != "sqlite" else from_micros(value)
