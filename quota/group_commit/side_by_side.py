"""Several calls in one transaction, each as if it had the transaction for itself.

Where one writer has the whole file, they go one after the other. Where each statement is a round trip to a server, they
go in step: each runs in a greenlet up to its next question, all questions of a step travel together, and each goes on
with its answer. The code within knows of neither.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import Any, Final

from greenlet import getcurrent, greenlet  # type: ignore[import-untyped]

from billing.books import BOOK_OF, LOCK_UNLESS_BUSY, LOCKS
from billing.each import rows_of_many
from billing.sql import Db, Question, Row, Statement
from quota.group_commit.shared import Alone, SharedDb, nature_of

Part = Callable[[Db], Any]


class Later(Exception):  # noqa: N818 - an order, not an error
    """An earlier call of the transaction has this account: begin again once what it wrote is there."""


class Spoiled(Exception):  # noqa: N818 - an order, not an error
    """A call failed that has written already: the whole transaction has to be undone."""


@dataclass(slots=True, eq=False)
class Side:
    """One of the calls that go side by side: what it does, and once it is done its view and its answer."""

    key: object
    """Calls of equal keys are about one account; those about one account may have different keys."""
    part: Part
    context: Context = field(default_factory=copy_context)
    db: SharedDb | None = None
    answer: Any = None
    alone: bool = False
    """Whether it has to be made alone: it failed, somebody else has its account, or it needs to."""

    def run(self, db: SharedDb) -> bool:
        """Do it, and return whether it is done: otherwise it has to begin again.

        Raises:
            Spoiled: it failed, and cannot be undone by itself.
        """
        try:
            self.answer = self.context.run(self.part, db)
        except Later:
            if db.touched:
                raise Spoiled from None
            return False
        except Exception as error:
            # What is wrong with it, whoever made it learns when it is made alone.
            if db.touched:
                raise Spoiled from error
            self.alone = True
            return True
        self.db = db
        return True


class Transaction(ABC):
    """A transaction that calls share: one after the other in one book, in any way else."""

    def __init__(self, under: Db) -> None:
        """Work in a transaction. Whoever hands it over begins and ends it."""
        self._under: Final = under
        self._writes: dict[Statement, list[Any]] = {}
        self._books: set[int] = set()
        self._said: set[str] = set()

    @abstractmethod
    def run(self, sides: Sequence[Side]) -> None:
        """Do all parts, in order where they are about one account. What they write is on its way when this returns.

        Raises:
            Spoiled: the transaction has to be undone.
        """

    def _keep(self, side: Side) -> None:
        """Add what a call has written to what waits."""
        if side.db is not None:
            for statement, values in side.db.writes:
                self._writes.setdefault(statement, []).append(values)
            self._books |= side.db.books

    def _write(self) -> None:
        """Send what waits: a statement at a time, tables first that others refer to."""
        for statement in sorted(self._writes, key=lambda each: nature_of(each).order):
            self._under.run_each(statement, self._writes[statement])
        self._writes.clear()
        self._books.clear()


class InTurn(Transaction):
    """One call after the other, where nobody else writes meanwhile."""

    def run(self, sides: Sequence[Side]) -> None:
        for side in sides:
            side.run(SharedDb(self._under, self._ask, self._said))
            self._keep(side)
        self._write()

    def _ask(self, asked: Sequence[Question]) -> list[list[Row]]:
        rows = self._under.rows_of(*asked)
        if asked[0][0] in LOCKS and rows[0] and rows[0][0][0] in self._books:
            self._write()  # an earlier call has changed this book
            return self._under.rows_of(*asked)
        return rows


class InStep(Transaction):
    """All calls at once, up to the next question of each."""

    def run(self, sides: Sequence[Side]) -> None:
        waiting: list[Side] = list(sides)
        while waiting:
            waiting = self._round(waiting)
            self._write()

    def _round(self, sides: Iterable[Side]) -> list[Side]:
        """Do what can be done at once, and return what has to wait for it."""
        first: dict[object, Side] = {}
        later = {side for side in sides if first.setdefault(side.key, side) is not side}
        steps = [_Step(side, self._under, self._said) for side in first.values()]
        owners: dict[int, _Step] = {}
        try:
            while steps:
                steps = [step for step in steps if self._goes_on(step, later)]
                # Whose book it is comes first, so that all who want one book ask for it at once, in their order.
                naming = [step for step in steps if step.asked[0][0] is BOOK_OF]
                self._answer(naming or steps, owners)
        finally:
            for step in steps:
                step.give_up()
        return [side for side in sides if side in later]

    def _goes_on(self, step: _Step, later: set[Side]) -> bool:
        """Let a call go on to its next question, if it has its answers, and return whether there is one."""
        done = step.go_on() if step.is_answered else None
        if done is not None:
            later.update(() if done else (step.side,))
            self._keep(step.side)
        return done is None

    def _answer(self, steps: Sequence[_Step], owners: dict[int, _Step]) -> None:
        """Answer these calls' questions at once. A book that is not to be had ends the call that asked for it."""
        locks: list[_Step] = []
        for step in steps:
            statement, values = step.asked[0]
            if statement in LOCKS:
                book_id = values["book_id"]
                if book_id in self._books or owners.setdefault(book_id, step) is not step:
                    step.error = Later()
                else:
                    step.asked[0] = (LOCK_UNLESS_BUSY, values)
                    locks.append(step)
        asking = [step for step in steps if step.error is None]
        # What is read of a book is read once it is locked, also where another call asks the same.
        questions = [step.asked[0] for step in locks]
        questions += [
            each for step in asking for each in step.asked if each[0] is not LOCK_UNLESS_BUSY
        ]
        answers = iter(rows_of_many(self._under, questions) if questions else ())
        locked = {step: next(answers) for step in locks}
        for step in asking:
            step.answers = [
                locked[step] if statement is LOCK_UNLESS_BUSY else next(answers)
                for statement, _ in step.asked
            ]
            if not locked.get(step, True):
                step.error = Alone("somebody else has its account")


class _Step:
    """A call that stops at each of its questions until they are answered."""

    __slots__ = ("_greenlet", "answers", "asked", "error", "side")

    def __init__(self, side: Side, under: Db, said: set[str]) -> None:
        self.side = side
        self.asked: list[Question] = []
        self.answers: list[list[Row]] = []
        self.error: Exception | None = None
        parent = getcurrent()

        def ask(asked: Sequence[Question]) -> list[list[Row]]:
            self.asked, self.answers, self.error = list(asked), [], None
            parent.switch(None)
            if self.error is not None:
                raise self.error
            return self.answers

        self._greenlet = greenlet(lambda: side.run(SharedDb(under, ask, said)), parent)

    @property
    def is_answered(self) -> bool:
        """Whether it can go on; it also can where it has not asked anything yet."""
        return bool(self.answers) or self.error is not None or not self.asked

    def go_on(self) -> bool | None:
        """Go on to the next question: None. Otherwise it has ended: whether it is done."""
        ended: bool | None = self._greenlet.switch()
        return ended if self._greenlet.dead else None

    def give_up(self) -> None:
        """End it where it stands."""
        if self._greenlet and not self._greenlet.dead:
            self._greenlet.throw()
