"""One call's view of a transaction that it shares: it reads at once, and its writes wait until it is done.

So a call that fails has written nothing, and takes no other with it: no savepoint is needed. What the calls of a
transaction have written is then sent together, statement by statement, tables that others refer to first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import Delete, Insert, Table, Update
from sqlalchemy.sql import visitors

from billing.books import LOCKS
from billing.sql import Db, Question, Row, Statement
from billing.tables import BOOKS
from billing.tables import Table as OurTable

INSERT, UPDATE, DELETE = range(3)
Asker = Callable[[Sequence[Question]], list[list[Row]]]


class Alone(Exception):  # noqa: N818 - an order, not an error
    """This call cannot be made in a transaction with others: it is made alone, afterwards."""


@dataclass(frozen=True, slots=True)
class Nature:
    """What a statement does to which tables. `order`: its place among writes that wait."""

    tables: frozenset[str]
    order: tuple[int, int]
    writes: bool
    waits: bool


@lru_cache(maxsize=4096)
def nature_of(statement: Statement) -> Nature:
    """Return what a statement does. Only writes of rows that belong to one book can wait: others read the rest."""
    clause = statement.clause
    tables = frozenset(part.name for part in visitors.iterate(clause) if isinstance(part, Table))
    if not isinstance(clause, Insert | Update | Delete) or not isinstance(clause.table, Table):
        return Nature(tables, (0, 0), writes=False, waits=False)
    kind = (
        INSERT if isinstance(clause, Insert) else UPDATE if isinstance(clause, Update) else DELETE
    )
    table = clause.table
    # A book is opened and discarded at once: its number, and whose it is, are settled with other transactions.
    of_book = "book_id" in table.primary_key.columns or (table is BOOKS and kind == UPDATE)
    return Nature(tables, (kind, _places()[table.name]), writes=True, waits=of_book)


@lru_cache(maxsize=1)
def _places() -> Mapping[str, int]:
    return {table.name: place for place, table in enumerate(OurTable.metadata.sorted_tables)}


class SharedDb(Db):
    """A transaction as one of several calls sees it, which must be about different accounts."""

    __slots__ = (
        "_answers",
        "_ask",
        "_expected",
        "_said",
        "_under",
        "_written",
        "books",
        "touched",
        "writes",
    )

    def __init__(self, under: Db, ask: Asker, said: set[str]) -> None:
        """Read by `ask`. `under`: the transaction itself; `said`: what was said in it for all, such as LOCK."""
        self.driver = under.driver  # type: ignore[misc]  # Db's own __init__ would open a cursor
        self.dialect = under.dialect  # type: ignore[misc]
        self.saved = {}  # type: ignore[misc]
        self.notes = {}  # type: ignore[misc]
        self.budgets = under.budgets
        self._under, self._ask, self._said = under, ask, said
        self._written: set[str] = set()
        self._expected: Sequence[Question] = ()
        self._answers: dict[Any, list[Row]] = {}
        self.writes: Final[list[Question]] = []
        """What is to be written, in order, once the call is done."""
        self.books: Final[set[int]] = set()
        """The books that these rows belong to."""
        self.touched = False
        """Whether something was written at once: undoing this call then undoes the whole transaction."""

    def run(self, statement: Statement, /, **values: Any) -> None:
        self.run_each(statement, (values,))

    def run_each(self, statement: Statement, each: Sequence[Mapping[str, Any]], /) -> None:
        if not each:
            return
        nature = nature_of(statement)
        self._answers.clear()  # they are from before this
        if not nature.waits:
            self.touched = True
            self._under.run_each(statement, each)
            return
        self._written |= nature.tables
        for values in each:
            self.writes.append((statement, values))
            book_id = values.get("book_id") or values.get("of_book")
            if book_id is not None:
                self.books.add(book_id)

    def driver_sql(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._under.driver_sql(text)
            self._under.flush()

    def count(self, statement: Statement, /, **values: Any) -> int:
        self._answers.clear()
        changed = self._under.count(statement, **values)
        self.touched = self.touched or changed > 0
        return changed

    def rows(self, statement: Statement, /, **values: Any) -> list[Row]:
        return self.rows_of((statement, values))[0]

    def rows_of(self, *asked: Question) -> list[list[Row]]:
        for statement, _ in asked:
            if not self._written.isdisjoint(nature_of(statement).tables):
                raise Alone("it reads what it has written itself")
        if self._answers and all(_known_by(each) in self._answers for each in asked):
            return [self._answers.pop(_known_by(each)) for each in asked]
        answers = self._ask([*asked, *self._expected])
        for expected, rows in zip(self._expected, answers[len(asked) :], strict=True):
            self._answers[_known_by(expected)] = rows
        self._expected = ()
        del answers[len(asked) :]
        for (statement, _), rows in zip(asked, answers, strict=True):
            if rows and nature_of(statement).writes and statement not in LOCKS:
                self.touched = True
        return answers

    def ahead(self, asked: Iterable[Question]) -> None:
        if not self.one_writer:  # there nothing travels
            self._expected = tuple(asked)

    def flush(self) -> None:
        """Nothing is queued that others wait for: what is read or locked here is so at once."""

    def close(self) -> None:
        pass


def _known_by(question: Question) -> Any:
    statement, values = question
    return statement, frozenset(values.items())
