"""Methods that account for what happened: statement, report, verify, explain, export."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from billing.discrepancy import Discrepancy
from billing.export import export
from billing.report import Report, dimensions
from billing.statement import Statement
from policies.errors import InvalidRequest
from policies.instants import as_utc
from quota import reports, statements
from quota import verify as verification
from quota.ask import name
from quota.explain import Explanation, explain
from quota.ids import parse_grant_id
from quota.methods.base import Methods
from quota.verify import Progress


class AuditMethods(Methods):
    """Methods that account for what happened."""

    def statement(self, account: str, since: datetime, until: datetime) -> Statement:
        """Return an account's lines from `since` on and before `until`, what is due folded in.

        Its `check` says whether it agrees with the books to the unit and the cent.

        Raises:
            InvalidRequest: an instant is naive, or the period ends before it begins.
        """
        account, now = name(account, "account"), self._clock()
        with self._db.reading() as db:
            return statements.statement(db, account, _period(since, until), now)

    def report(
        self,
        since: datetime,
        until: datetime,
        by: Sequence[str] = ("plan", "operation"),
        timezone: str = "UTC",
    ) -> Report:
        """Return units, GPU cost, revenue and margin of the whole business, and deferred revenue.

        Counts from `since` on and before `until`. A closed period never changes, whether or when a
        sweep runs. Its `check` says whether it agrees with the books to the cent.

        Args:
            since: the first instant that counts.
            until: the first instant that does not.
            by: any of plan, operation, source, account, member, currency, and day or month.
            timezone: whose days or months these are.

        Raises:
            InvalidRequest: an instant is naive, or a name or the time zone is unknown.
        """
        period, wanted, now = _period(since, until), dimensions(by), self._clock()
        if period[1] <= now:
            self._db.wait_for_writers()
        with self._db.reading(unhurried=True) as db:
            return reports.report(db, period, wanted, timezone, now)

    def verify(
        self, *, progress: Progress | None = None, workers: int | None = 1
    ) -> list[Discrepancy]:
        """Re-derive everything from the chained records, and return what is not as they say.

        Empty when the books are sound. `progress` is told how many records were verified, of how
        many. Nobody waits for it: each book is read in a snapshot of its own.

        `workers`: how many processes verify at the same time; None: one for each core, where there
        is enough to do. They are started anew: a program that asks for several must be one that can
        be imported, and its own policy kinds must be found there.

        Raises:
            InvalidRequest: `workers` is no such number, or other processes cannot open the database.
            StoreUnavailable: the database cannot be read.
        """
        return list(verification.verify(self._db, progress, workers))

    def explain(self, grant_id: str) -> Explanation:
        """Return what each policy read and found for a grant, and what became of it.

        `.same` says whether deciding again from its record gives the same.

        Raises:
            UnknownGrant: there is no such grant.
        """
        ids, now = parse_grant_id(grant_id), self._clock()
        with self._db.reading() as db:
            return explain(db, ids, now)

    def export(self) -> Iterator[str]:
        """Yield all records and transfers as the lines of a CSV file, for auditors.

        Raises:
            StoreUnavailable: the database cannot be read.
        """
        return export(lambda: self._db.reading(unhurried=True))


def _period(since: object, until: object) -> tuple[datetime, datetime]:
    start, end = as_utc(since, "since"), as_utc(until, "until")
    if end < start:
        raise InvalidRequest(f"the period ends at {end.isoformat()}, before it begins")
    return start, end
