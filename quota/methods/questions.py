"""Methods that ask: what is, what was, whether it is sound. And `sweep`, which changes no answer."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from billing import schema
from billing.books import lock_book_by_id, read_book
from policies.errors import ComptrollerError
from policies.instants import as_utc
from policies.units import whole
from quota import accounts, admission, views
from quota.ask import KEY_MAX, name, text
from quota.denials import DenialRecord, load_denials, lost_denials
from quota.grants import Grant
from quota.ids import parse_grant_id
from quota.methods.inbox import InboxMethods
from quota.methods.leased import LeasedMethods
from quota.methods.topping_up import TopUpMethods
from quota.prefilter.unbooked import parse_unbooked_id
from quota.standings import Standing, standings
from quota.sweeps import books_with_dues, overdue_holds, share_expired, sweep_book
from quota.views import Balance

LIST_MAX: Final = 1000
LAST: Final = 2**62
FOREVER: Final = datetime.max.replace(tzinfo=UTC)
LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)
HEALTH_WINDOW: Final = timedelta(days=1)


def listed(most: object) -> int:
    """Return how many are listed at a time, where at most so many are asked for.

    Raises:
        InvalidRequest: it is no number from 1 up.
    """
    return min(whole(most, "most"), LIST_MAX)


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the parts work. `overdue_holds`: expired grants not yet written down, which a sweep would.

    `budgets`: what each has spent today. `expired_share`: of the grants that ended within the last day, the share that
    expired: work that never reported.
    """

    ok: bool
    database: str
    writable: bool
    redis: str
    schema_version: str | None
    policy_version: str
    policy_problem: str | None
    overdue_holds: int
    ended: int
    expired: int
    denials_lost: int
    budgets: tuple[Standing, ...] = ()
    problem: str | None = None

    @property
    def expired_share(self) -> str:
        """The share that expired, as a percentage."""
        return f"{100 * self.expired // self.ended} %" if self.ended else "0 %"


class QuestionMethods(LeasedMethods, InboxMethods, TopUpMethods):
    """Methods that ask."""

    def get(self, grant_id: str) -> Grant:
        """Return a grant as it stands now.

        Raises:
            UnknownGrant: there is none of that id.
        """
        unbooked = parse_unbooked_id(grant_id)
        if unbooked is not None and self._front is not None:
            return self._front.lives.get(unbooked, self.policies)
        ids, now = parse_grant_id(grant_id), self._clock()
        with self._db.reading() as db:
            return views.grant_view(db, ids, now)

    def find(self, account: str, *, key: str) -> Grant | None:
        """Return the grant that a key has brought, or None.

        Raises:
            InvalidRequest: the account's name or the key is none.
        """
        account, key, now = name(account, "account"), text(key, "key", most=KEY_MAX), self._clock()
        with self._db.reading() as db:
            ids = admission.find(db, account, key)
            return None if ids is None else views.grant_view(db, ids, now)

    def grants(
        self, account: str, *, open_only: bool = False, most: int = 100, before: int = LAST
    ) -> list[Grant]:
        """Return an account's grants, the newest first: at most `most`, numbered below `before`; or the open ones.

        Raises:
            InvalidRequest: the account's name is none, or `most` is no number from 1 up.
        """
        account, most, now = name(account, "account"), listed(most), self._clock()
        with self._db.reading() as db:
            book = read_book(db, account)
            if book is None:
                return []
            numbers = views.grant_numbers(
                db, book.id, open_only=open_only, most=most, before=before
            )
            found = [views.grant_view(db, (book.id, number), now) for number in numbers]
            return [grant for grant in found if grant.live or not open_only]

    def denials(
        self,
        account: str,
        since: datetime | None = None,
        until: datetime | None = None,
        *,
        most: int = 100,
    ) -> tuple[DenialRecord, ...]:
        """Return why an account was denied between two instants, the newest first.

        Raises:
            InvalidRequest: an instant is naive, or `most` is no number from 1 up.
        """
        account, most = name(account, "account"), listed(most)
        start = LONG_AGO if since is None else as_utc(since, "since")
        end = FOREVER if until is None else as_utc(until, "until")
        self._denials.flush()
        with self._db.reading() as db:
            return load_denials(db, account, start, end, most)

    def tags(self, account: str) -> dict[str, str]:
        """Return an account's tags.

        Raises:
            InvalidRequest: the account's name is none.
        """
        with self._db.reading() as db:
            book = read_book(db, name(account, "account"))
            return {} if book is None else accounts.tags_of(db, book.id)

    def balance(self, account: str, *, member: str | None = None) -> Balance:
        """Return what an account, or one member of it, has now.

        Raises:
            InvalidRequest: the account is on a plan that the policy file does not have.
        """
        account, now = name(account, "account"), self._clock()
        member = None if member is None else name(member, "member")
        with self._db.reading() as db:
            return views.balance(db, self.policies, account, member, now)

    def sweep(self) -> int:
        """Write down what has fallen due on quiet accounts, and return how many records that took. Changes no answer.

        On PostgreSQL it also returns to budgets what dead processes had leased of them. Events of Stripe's that could
        not be worked off are tried again, the bytes of those that were ignored are erased after 30 days, and accounts
        that have opted in are topped up.

        Raises:
            AccountBusy: the database stayed locked past the timeout; what was swept so far stays.
        """
        now, written, after = self._clock(), 0, 0
        self._return_blocks(now)
        self._work_off_the_inbox()
        self._erase_ignored()
        self._top_up_all()
        while True:
            with self._db.reading() as db:
                books = books_with_dues(db, now, after)
            if not books:
                return written
            for book_id in books:
                with self._db.writing() as db:
                    written += sweep_book(db, book_id, now)
            after = books[-1]

    def health(self) -> Health:
        """Say whether the parts work. Never raises for a part that does not: `ok` is false, and `problem` says why."""
        now, database, version, problem = self._clock(), "up", None, None
        overdue = ended = expired = lost = 0
        writable = False
        budgets: tuple[Standing, ...] = ()
        policies = self.policies
        try:
            with self._db.reading() as db:
                version = schema.stored_version(db)
                overdue, lost = overdue_holds(db, now), lost_denials(db)
                ended, expired = share_expired(db, now - HEALTH_WINDOW)
                budgets = tuple(standings(db, policies, now))
            with self._db.writing() as db:
                # On a file that cannot be written, only a statement that would write is refused.
                lock_book_by_id(db, 0)
                writable = True
        except ComptrollerError as error:
            problem = str(error)
            database = "down" if version is None else "not writable"
        return Health(
            ok=problem is None and version == schema.WANTED and self._policy_file.problem is None,
            database=database,
            writable=writable,
            redis="not configured" if self._front is None else self._front.state(),
            schema_version=version,
            policy_version=policies.version,
            policy_problem=self._policy_file.problem,
            overdue_holds=overdue,
            ended=ended,
            expired=expired,
            denials_lost=lost,
            budgets=budgets,
            problem=problem,
        )
