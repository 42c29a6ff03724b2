"""What each kind of call does in a transaction that it shares, and what before and after it.

The parts are those of the call alone, in the same order. Nothing of a call is told or written down elsewhere before
the commit, so that it can be made once more, alone, whatever becomes of the transaction.
"""

# ruff: noqa: SLF001, ARG001 - its parts are those of Comptroller, and take the same arguments

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from quota import lifecycle
from quota.grants import Decision, Ending, Grant, Status
from quota.ids import parse_grant_id
from quota.locked import Report
from quota.methods.grants import live, released_report, settled_report
from quota.methods.requests import Looked, RequestMethods
from quota.prefilter.front import Answer
from quota.prefilter.prefilter import AskSql, Passed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from decimal import Decimal

    from billing.sql import Db
    from quota.ask import Ask
    from quota.methods.base import HostSession


class Work(ABC):
    """A call that may share a transaction."""

    @property
    @abstractmethod
    def key(self) -> object:
        """Calls of equal keys are about one account."""

    @property
    def looks(self) -> bool:
        """Whether it looks before it takes the lock."""
        return False

    def look(self, db: Db) -> Any:  # noqa: ARG002 - most do not look
        """Look without writing, and return the answer if that was all; None: `take` comes next."""
        return None

    @abstractmethod
    def take(self, db: Db) -> Any:
        """Do it, under the lock of its account. May be called again, after what it did was undone."""

    @abstractmethod
    def answered(self, outcome: Any) -> Any:
        """Return the answer, now that it is committed, or raise the error that it is."""


@dataclass(slots=True)
class Admission(Work):
    """An admit that goes on to SQL. `told`: what Redis said, if it was asked. `expects_denial`: it looks first."""

    methods: RequestMethods
    ask: Ask
    told: Answer | None
    expects_denial: bool
    looked: Looked | None = field(default=None, init=False)

    @property
    def key(self) -> object:
        if self.looked is None or self.looked.found.book is None:
            return self.ask.account
        return self.looked.found.book.id

    @property
    def looks(self) -> bool:
        # Alone, one that Redis has not passed looks first: that its time is over it hears before that it is denied.
        first = self.expects_denial or self.ask.not_after is not None
        return first and not isinstance(self.told, Passed)

    def look(self, db: Db) -> Decision | None:
        looked = self.methods._look(db, self.ask)
        if not isinstance(looked, Looked):
            return looked
        self.looked = looked
        return None

    def take(self, db: Db) -> Decision:
        return self.methods._take(db, self.ask, self.looked)

    def answered(self, outcome: Decision) -> Decision:
        front = self.methods._front
        if self.told is not None and front is not None:
            self.methods._heard(front, self.ask, self.told, outcome)
        self.methods._record(outcome)
        return outcome


@dataclass(slots=True)
class Finish(Work):
    """A settle or a release."""

    methods: RequestMethods
    ids: tuple[int, int]
    report: Report

    @property
    def key(self) -> object:
        return self.ids[0]

    def take(self, db: Db) -> Ending:
        return self.methods._finished(db, self.ids, self.report)

    def answered(self, outcome: Ending) -> Ending:
        return outcome


@dataclass(slots=True)
class Renewal(Work):
    """A start (`by` is None) or an extend."""

    methods: RequestMethods
    ids: tuple[int, int]
    by: timedelta | None

    @property
    def key(self) -> object:
        return self.ids[0]

    def take(self, db: Db) -> Grant | Status:
        return self.methods._renewed(db, self.ids, self.by)

    def answered(self, outcome: Grant | Status) -> Grant:
        return live(outcome, self.ids)


def goes_on(told: Answer | None) -> bool:
    """Whether an admit that Redis was asked about, if it was, goes on to a transaction of SQL that may be shared."""
    return told is None or isinstance(told, Passed | AskSql)


def starting(
    methods: RequestMethods, grant_id: str, *, session: HostSession | None = None
) -> Work | None:
    """Return what `start` does; None: it is no business of SQL."""
    return _renewal(methods, grant_id, None)


def extending(
    methods: RequestMethods, grant_id: str, by: timedelta, *, session: HostSession | None = None
) -> Work | None:
    """Return what `extend` does; None: it is no business of SQL."""
    return _renewal(methods, grant_id, lifecycle.extension(by))


def settling(
    methods: RequestMethods,
    grant_id: str,
    *,
    gpu_seconds: Decimal | float | None = None,
    gpu: str | None = None,
    delivered: Mapping[str, object] | None = None,
    session: HostSession | None = None,
) -> Work | None:
    """Return what `settle` does; None: it is no business of SQL. GPU time in seconds."""
    return _finish(methods, grant_id, settled_report(gpu_seconds, gpu, delivered))


def releasing(
    methods: RequestMethods,
    grant_id: str,
    *,
    reason: str,
    gpu_seconds: Decimal | float | None = None,
    gpu: str | None = None,
    session: HostSession | None = None,
) -> Work | None:
    """Return what `release` does; None: it is no business of SQL. GPU time in seconds."""
    return _finish(methods, grant_id, released_report(reason, gpu_seconds, gpu))


def _renewal(methods: RequestMethods, grant_id: str, by: timedelta | None) -> Work | None:
    if methods._unbooked(grant_id) is not None:
        return None
    return Renewal(methods, parse_grant_id(grant_id), by)


def _finish(methods: RequestMethods, grant_id: str, report: Report) -> Work | None:
    if methods._unbooked(grant_id) is not None:
        return None
    return Finish(methods, parse_grant_id(grant_id), report)
