"""Column types that are exact on both databases."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import BigInteger, DateTime, Dialect, Text
from sqlalchemy.types import TypeDecorator, TypeEngine

from policies.instants import EPOCH, MICROSECOND, micros

WORDS: Final = Text().with_variant(Text(collation="C"), "postgresql")
"""Text that is compared byte by byte on every database: keys and names mean what they are, not how they sort."""


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

    def result(self, dialect: Dialect) -> Callable[[Any], datetime | None] | None:
        """Return the function that turns what is stored into an instant; None where the driver does it."""
        if dialect.name == "sqlite":
            return _loaded
        # The others answer in the time zone of the session, which may be the host's.
        return None if dialect.driver == "asyncpg" else _in_utc


def _stored(instant: datetime | None) -> int | None:
    return None if instant is None else micros(instant)


def _loaded(count: int | None) -> datetime | None:
    # As `from_micros` does, without the call: an admit reads hundreds of instants.
    return None if count is None else EPOCH + count * MICROSECOND


def _in_utc(instant: datetime | None) -> datetime | None:
    return instant if instant is None or instant.tzinfo is UTC else instant.astimezone(UTC)
