"""Replay: recorded demand through the real engine, on a clock set to the recording's instants.

Nothing is bypassed: each row is admitted, settled or released by the Comptroller's own methods,
and holds expire as they do in production. Ends come before arrivals at one instant, an end created
at t precedes the next row at t, and after the last row is decided nothing more happens.

Rows are read one by one and only open grants are kept, so that millions of rows need no more
memory than the accounts that they name. What is counted from the engine's answers is compared with
the books at the end.
"""

from __future__ import annotations

import heapq
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import partial
from typing import ClassVar, Final

from policies.errors import ComptrollerError, InvalidRequest
from policies.instants import EPOCH, micros
from policies.policy_set import PolicySet
from quota.ask import name
from quota.engine import Comptroller
from quota.grants import Denial, Ending, Grant
from quota.replay_books import BookTotals, book_totals, has_grants
from quota.replay_totals import AccountTotals, Totals
from quota.scratch import scratch
from quota.stores.opening import open_store, without_password
from quota.traces import Row, Status

FAILED: Final = "failed"
"""The reason with which a failed row is released."""

ADMITTED_MAX: Final = 10_000
"""How many different requests are remembered as admissible."""

PROGRESS_ROWS: Final = 64
"""How many rows pass between two reports of progress."""

_MICROSECOND: Final = timedelta(microseconds=1)

OnDenial = Callable[[Comptroller, Row, Denial], bool]
"""Acts on a denial, say by buying what it offers, and answers whether the row is to be decided once more."""


class ReplayDisagrees(ComptrollerError):  # noqa: N818 - what it says
    """The engine's answers and its books do not add up to the same totals."""

    exit_code: ClassVar[int] = 1


@dataclass(slots=True)
class SetClock:
    """A clock that stands where it was set."""

    now: datetime = EPOCH

    def __call__(self) -> datetime:
        return self.now


@dataclass(frozen=True, slots=True)
class _OpenGrant:
    """A grant that will end: as the row says, or by expiry where `status` is open."""

    grant_id: str
    status: Status
    gpu_seconds: Decimal | None
    units: dict[str, int]
    account: AccountTotals


def replay(
    rows: Iterable[Row],
    policy_set: PolicySet,
    *,
    name: str = "trace",
    plan: str | None = None,
    database: str | None = None,
    redis: str | None = None,
    skip_invalid: bool = False,
    on_denial: OnDenial | None = None,
    progress: Callable[[int], None] | None = None,
) -> Totals:
    """Run recorded rows through the engine and add up what it answers.

    Args:
        rows: in order of time.
        policy_set: the policies in force for the whole of it.
        name: what errors call the trace.
        plan: the plan of every row, whatever the rows say.
        database: a URL; the default is a private temporary database that is gone afterwards.
        redis: a URL of what answers denials in front of it; what else is kept there is left alone.
        skip_invalid: count rows that cannot be requests instead of stopping at the first.
        on_denial: called with each denial, at its instant: it may buy the pack that is offered, as somebody would
            have. Where it answers True the row is decided once more, and only that answer counts.
        progress: called every few rows with the number of rows read.

    Raises:
        InvalidRequest: a row cannot be a request, the plan is unknown, or the database holds
            grants already.
        ReplayDisagrees: the engine's answers and its books do not add up.
        StoreUnavailable: the database cannot be used.
    """
    if plan is not None:
        policy_set.plan(plan)
    clock = SetClock()
    with scratch(database) as engine, closing(open_store(engine)) as store:
        with Comptroller.open(policy_set, store.engine, redis=redis, clock=clock) as comptroller:
            with store.reading() as db:
                if has_grants(db):
                    shown = without_password(str(database))
                    raise InvalidRequest(
                        f"the database `{shown}` holds grants already: replay into an empty one"
                    )
            run = _Replay(
                comptroller, policy_set, clock, name, plan, on_denial, skip_invalid=skip_invalid
            )
            with _apart(comptroller, run.totals) as tell:
                run.run(rows, progress, tell)
        with store.reading() as db:
            run.close(book_totals(db))
    return run.totals


@contextmanager
def _apart(comptroller: Comptroller, totals: Totals) -> Iterator[Callable[[], None]]:
    """Keep what a replay has in Redis apart from what is there of the same accounts, and leave nothing.

    Yields what tells Redis the news: after each row, so that a replay answers twice in the same way.
    """
    front = comptroller._front  # noqa: SLF001 - a part of the engine, that no user needs
    if front is None:
        yield lambda: None
        return
    front.keys.prefix = f"comptroller-replay-{uuid.uuid4().hex}"
    front.news.by_hand = True
    try:
        yield front.news.flush
    finally:
        front.erase(totals.accounts)


class _Replay:
    def __init__(
        self,
        comptroller: Comptroller,
        policy_set: PolicySet,
        clock: SetClock,
        name: str,
        plan: str | None,
        on_denial: OnDenial | None,
        *,
        skip_invalid: bool,
    ) -> None:
        self._on_denial = on_denial
        self._comptroller, self._policy_set, self._clock = comptroller, policy_set, clock
        self._name, self._plan, self._skip_invalid = name, plan, skip_invalid
        self._charges_expired = policy_set.on_expire == "charge"
        self._admitted: set[tuple[str, str, tuple[tuple[str, object], ...]]] = set()
        self._open: list[tuple[datetime, int, _OpenGrant]] = []
        self.totals = Totals(policy_set.version)
        for plan_name in policy_set.plans:
            for operation in policy_set.operations:
                rules = policy_set.rules(plan_name, operation)
                self.totals.units.update(dict.fromkeys((s.label for s in rules.sources), 0))

    def run(
        self,
        rows: Iterable[Row],
        progress: Callable[[int], None] | None,
        tell: Callable[[], None],
    ) -> None:
        """Decide every row, and `tell` what came of it. After the last one nothing happens, but dues are written."""
        for row in rows:
            if progress is not None and row.number % PROGRESS_ROWS == 0:
                progress(row.number)
            fault = row.fault or self._fault(row)
            if fault is None:
                self._end_until(row.at)
                fault = self._decide(row)
                tell()
            if fault is not None:
                if not self._skip_invalid:
                    raise InvalidRequest(f"{self._name}:{row.line}: {fault}")
                self.totals.invalid += 1
        self._comptroller.sweep()

    def close(self, books: BookTotals) -> None:
        """Take revenue from the books, and make sure that they say what the engine answered.

        Raises:
            ReplayDisagrees: they do not.
        """
        totals = self.totals
        answered = BookTotals(
            granted=totals.granted,
            settled=totals.settled,
            released=totals.released,
            expired=totals.expired,
            open=totals.open,
            units={source: units for source, units in totals.units.items() if units},
            estimated_micro_usd=totals.estimated_micro_usd,
            actual_micro_usd=totals.actual_micro_usd,
            revenue_minor=books.revenue_minor,
        )
        if answered != books:
            raise ReplayDisagrees(
                f"the engine's answers and its books disagree: {answered} and {books}"
            )
        totals.revenue_minor = books.revenue_minor

    def _fault(self, row: Row) -> str | None:
        """Say why the policy file does not admit a row as a request.

        Asked before anything happens at its instant: a row that is none makes nothing happen.
        """
        plan = self._plan or row.plan or self._policy_set.default_plan
        # Demand repeats itself: most rows ask for what another row has asked for.
        asked = (plan, row.operation, tuple(row.attributes.items()))
        try:
            name(row.account, "account")
            if row.member is not None:
                name(row.member, "member")
            if asked not in self._admitted:
                request = self._policy_set.request(
                    row.operation, row.attributes, row.member, consent=False
                )
                self._policy_set.rules(plan, row.operation).weigh(request.attributes)
        except InvalidRequest as error:
            return str(error)
        if len(self._admitted) < ADMITTED_MAX:
            self._admitted.add(asked)
        return None

    def _end_until(self, at: datetime) -> None:
        """Let happen what happens by an instant, in order of time."""
        while self._open and self._open[0][0] <= at:
            ends_at, _, open_grant = heapq.heappop(self._open)
            self._clock.now = ends_at
            self._end(open_grant)
        self._clock.now = at

    def _end(self, ended: _OpenGrant) -> None:
        totals = self.totals
        if ended.status == "open":
            # The engine expires it at this very instant by itself, whoever looks at it next.
            totals.expired += 1
            if not self._charges_expired:
                self._give_back(ended)
            return
        ending: Ending
        if ended.status == "settle":
            ending = self._comptroller.settle(ended.grant_id, gpu_seconds=ended.gpu_seconds)
            totals.settled += 1
        else:
            ending = self._comptroller.release(
                ended.grant_id, reason=FAILED, gpu_seconds=ended.gpu_seconds
            )
            totals.released += 1
        if not ending.by_this_call:
            raise ReplayDisagrees(
                f"grant `{ended.grant_id}` had ended already when its row ended it: {ending.status}"
            )
        totals.actual_micro_usd += ending.gpu_cost_micro_usd
        if ending.units_charged == 0:
            self._give_back(ended)

    def _give_back(self, ended: _OpenGrant) -> None:
        self.totals.units.subtract(ended.units)
        ended.account.units -= sum(ended.units.values())

    def _decide(self, row: Row) -> str | None:
        """Admit a row, and count the answer. Returns why it is no request, if it is none."""
        totals = self.totals
        admit = partial(
            self._comptroller.admit,
            account=row.account,
            operation=row.operation,
            attributes=row.attributes,
            key=str(row.number),
            plan=self._plan or row.plan,
            member=row.member,
        )
        try:
            decision = admit()
        except InvalidRequest as error:
            return str(error)
        if not decision and self._on_denial and self._on_denial(self._comptroller, row, decision):
            decision = admit()
        account = totals.accounts.get(row.account)
        if account is None:
            account = totals.accounts[row.account] = AccountTotals()
        account.requests += 1
        if isinstance(decision, Grant):
            totals.granted += 1
            account.granted += 1
            self._keep_open(row, decision, account)
        else:
            totals.denied += 1
            totals.denied_by_reason[decision.reason] += 1
            account.denied += 1
        return None

    def _keep_open(self, row: Row, grant: Grant, account: AccountTotals) -> None:
        units = grant.units_by_source
        self.totals.units.update(units)
        self.totals.estimated_micro_usd += grant.gpu_cost_micro_usd
        account.units += sum(units.values())
        account.gpu_cost_micro_usd += grant.gpu_cost_micro_usd
        status, ends_at = row.status, grant.expires_at
        lives_micros = micros(grant.expires_at) - micros(grant.at)
        if row.gpu_seconds is None or row.gpu_seconds >= Decimal(lives_micros).scaleb(-6):
            status = "open"
        if status != "open" and row.gpu_seconds is not None:
            # Instants have microseconds. What is finer is cut off: it stays before the expiry.
            ends_at = grant.at + int(Fraction(row.gpu_seconds) * 1_000_000) * _MICROSECOND
        # An operation that runs on no GPU of ours (a vendor's, say) costs what was estimated.
        model = self._policy_set.operation(row.operation).gpu_cost
        spent = None if model is None or model.gpu is None else row.gpu_seconds
        entry = _OpenGrant(grant.id, status, spent, units, account)
        heapq.heappush(self._open, (ends_at, row.number, entry))
