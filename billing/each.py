"""A question asked of PostgreSQL for many accounts at once: one statement, whose parameters are arrays.

Sixty-four look-ups by key cost a server less in one statement than in sixty-four, and a client far less. What is asked
stays the statement that asks for one: it becomes the inner side of a join with the values to ask it for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import Dialect, Select

from billing.arrays import arrays
from billing.sql import NUMBERED, Compiled, Db, Question, Row, Statement

GIVEN: Final = "given"

_PLACE: Final = re.compile(r"\$(\d+)")


class Given(list[Mapping[str, Any]]):
    """The values of many questions: one of its kind, whatever they are."""

    __hash__ = object.__hash__  # type: ignore[assignment]


class Each(Statement):
    """A question for many values. Takes them as `given`; each row begins with the place of its values, from 1."""

    __slots__ = ("of",)

    def __init__(self, of: Statement) -> None:
        """Ask `of`, which must be one that `may_be_asked_together` allows."""
        super().__init__(of.clause, postgresql=of.postgresql)
        self.of = of

    def compiled(self, kind: str, dialect: Dialect) -> Compiled:
        compiled = self._compiled.get(kind)
        if compiled is None:
            compiled = self._compiled[kind] = _CompiledEach(self.of.compiled(kind, dialect))
        return compiled


class _CompiledEach(Compiled):
    """What is compiled of a question for many values."""

    __slots__ = ("_of",)

    def __init__(self, of: Compiled) -> None:
        self._of = of
        types = ", ".join(f"${n}::{kind}[]" for n, kind in enumerate(of.types, start=1))
        columns = ", ".join(f"v{n}" for n in range(1, len(of.types) + 1))
        question = _PLACE.sub(r"each.v\1", of.text)
        self.text = (  # type: ignore[misc]  # the question alone has its own
            f"SELECT each.n, answer.* FROM unnest({types}) WITH ORDINALITY AS each ({columns}, n)"  # noqa: S608
            f" CROSS JOIN LATERAL ({question}) AS answer"
        )
        self.tables, self.adds, self.types = of.tables, False, of.types  # type: ignore[misc]

    def parameters(self, values: Mapping[str, Any]) -> Any:
        return arrays(self._of, values[GIVEN])

    def converted(self, rows: Sequence[Row]) -> list[Row]:
        answers = self._of.converted([row[1:] for row in rows])
        return [(row[0], answer) for row, answer in zip(rows, answers, strict=True)]


@lru_cache(maxsize=1024)
def _each(statement: Statement) -> Each | None:
    """Return a statement as one for many values; None where it cannot be one: it does not read, or limits its rows."""
    clause = statement.postgresql
    if not isinstance(clause, Select) or clause._limit_clause is not None:  # noqa: SLF001 - there is no other way
        return None
    return Each(statement)


def rows_of_many(db: Db, asked: Sequence[Question]) -> list[list[Row]]:
    """Ask many questions, those of one statement together where the database can. Returns the rows of each.

    Statements are asked in the order in which they first occur.
    """
    if db.dialect.paramstyle != NUMBERED:
        return db.rows_of(*asked)
    places: dict[Statement, list[int]] = {}
    for place, (statement, _) in enumerate(asked):
        places.setdefault(statement, []).append(place)
    questions: list[Question] = []
    for statement, of_one in places.items():
        together = _each(statement) if len(of_one) > 1 else None
        if together is None:
            questions += [asked[place] for place in of_one]
        else:
            questions.append((together, {GIVEN: Given(asked[place][1] for place in of_one)}))
    found = iter(db.rows_of(*questions))
    answers: list[list[Row]] = [[] for _ in asked]
    for statement, of_one in places.items():
        if len(of_one) > 1 and _each(statement) is not None:
            for number, row in next(found):
                answers[of_one[number - 1]].append(row)
        else:
            for place in of_one:
                answers[place] = next(found)
    return answers
