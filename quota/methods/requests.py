"""Methods about one request: admit, estimate, job."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from billing.sql import Db
from policies.advice import Advice
from policies.errors import DeadlinePassed, GrantEnded
from policies.policy_set import PolicySet
from quota import admission, views
from quota.ask import Ask, checked_ask
from quota.budgets import Day, charge_plainly
from quota.case import Look
from quota.granting import Granted
from quota.grants import Decision, Denial, Denied, Grant, Job
from quota.ids import grant_id
from quota.methods.base import HostSession
from quota.methods.fronted import FrontedMethods
from quota.methods.grants import GrantMethods
from quota.methods.leased import LeasedMethods
from quota.methods.retried import retried
from quota.prefilter.front import Answer

REASON_FAILED: Final = "failed"


@dataclass(frozen=True, slots=True)
class Looked:
    """What would be granted: seen at an instant, without a lock, under a policy set."""

    at: datetime
    policy_set: PolicySet
    found: Look


class RequestMethods(FrontedMethods, GrantMethods, LeasedMethods):
    """Methods about one request."""

    def admit(
        self,
        *,
        account: str,
        operation: str,
        attributes: Mapping[str, object] | None = None,
        key: str,
        plan: str | None = None,
        member: str | None = None,
        consent: bool | int = False,
        not_after: datetime | None = None,
        session: HostSession | None = None,
    ) -> Decision:
        """Decide one request, and take what it is granted.

        The same account and key bring the first grant again, marked `replayed`. A denial binds nothing.

        Args:
            account: who is limited and who pays.
            operation: what is asked for, as the policy file calls it.
            attributes: its attributes; those left out take their defaults.
            key: names this request; a retry must use the same one.
            plan: what the host knows; the default is the account's own.
            member: the person inside a pooled account.
            consent: whether credits may be used where the account asks first; a number: at most so many units of them.
            not_after: an instant after which nothing may be taken.
            session: the host's own session.

        Raises:
            InvalidRequest: something asked for is unknown or not allowed.
            IdempotencyConflict: the key was used for another request.
            DeadlinePassed: `not_after` is past.
            AccountBusy: the account stayed locked past the timeout.
            StaleTransaction: the host's transaction had read before it wrote.
            StoreUnavailable: the database cannot be used.
        """
        ask = checked_ask(
            account=account,
            operation=operation,
            attributes=attributes,
            key=key,
            plan=plan,
            member=member,
            consent=consent,
            not_after=not_after,
        )
        told = None if self._front is None else self._front.decide(self.policies, ask)
        return self._decided(ask, told, session=session)

    @retried
    def _decided(
        self, ask: Ask, told: Answer | None, *, session: HostSession | None = None
    ) -> Decision:
        """Go on with a request that Redis was asked about, if there is one in front; see `admit`."""
        if told is None or self._front is None:
            decision = self._in_sql(ask, session, passed=False)
        else:
            decision = self._behind(self._front, ask, told, session)
        self._record(decision)
        return decision

    def _record(self, decision: Decision) -> None:
        """Have a denial written down, if it is one."""
        if isinstance(decision, Denial):
            self._denials.add(decision)

    def _in_sql(self, ask: Ask, session: HostSession | None, *, passed: bool) -> Decision:
        """Decide in SQL. `passed`: it will probably be granted, so that the account is locked at once."""

        def decide(plain: frozenset[Day]) -> Decision:
            if passed:
                with self._db.writing(session) as db:
                    charge_plainly(db, plain)
                    return self._take(db, ask, None)
            with self._db.upgradable(session) as transaction:
                looked = self._look(transaction.db, ask, snapshot=transaction.snapshot)
                if not isinstance(looked, Looked):
                    return looked
                db = transaction.write()
                charge_plainly(db, plain)
                return self._take(db, ask, looked)

        return self._with_blocks(decide, joined=session is not None)

    def _look(self, db: Db, ask: Ask, *, snapshot: bool = True) -> Decision | Looked:
        """Look, and write nothing. A denial or an earlier grant is the answer; what would be granted is to be taken."""
        now, policy_set = self._clock(), self.policies
        found = admission.look(db, policy_set, ask, now, snapshot=snapshot)
        if isinstance(found, admission.Found):
            return views.grant_view(db, found.ids, now, replayed=True)
        if ask.not_after is not None and now > ask.not_after:
            raise DeadlinePassed(
                f"not_after {ask.not_after.isoformat()} is past: nothing was taken"
            )
        if not found.decision.granted:
            return _denial(ask, policy_set, found, admission.advice_for(db, found))
        return Looked(now, policy_set, found)

    def _take(self, db: Db, ask: Ask, looked: Looked | None) -> Decision:
        """Lock the account, decide, and take what is granted. `looked`: what was seen of it before, if anything was."""
        policy_set, clock, found = self.policies, self._clock, None
        if looked is not None:
            policy_set, found, seen_at = looked.policy_set, looked.found, looked.at
            clock = lambda: max(seen_at, self._clock())  # noqa: E731 - a clock is a callable
        outcome = admission.admit(db, policy_set, ask, clock, found)
        if isinstance(outcome, admission.Found):
            return views.grant_view(db, outcome.ids, self._clock(), replayed=True)
        if isinstance(outcome, Look):
            return _denial(ask, policy_set, outcome, admission.advice_for(db, outcome))
        self._note(db, ask, outcome)
        return _grant(ask, policy_set, outcome)

    def estimate(
        self,
        *,
        account: str,
        operation: str,
        attributes: Mapping[str, object] | None = None,
        key: str = "estimate",
        plan: str | None = None,
        member: str | None = None,
        consent: bool | int = False,
        not_after: datetime | None = None,
    ) -> Decision:
        """Return the decision that `admit` would make now. Takes nothing, and writes nothing.

        Raises:
            InvalidRequest: something asked for is unknown or not allowed.
            StoreUnavailable: the database cannot be used.
        """
        ask = checked_ask(
            account=account,
            operation=operation,
            attributes=attributes,
            key=f"{uuid.uuid4()}:{key}"[:200],
            plan=plan,
            member=member,
            consent=consent,
            not_after=not_after,
        )
        now, policy_set = self._clock(), self.policies
        with self._db.reading() as db:
            looked = admission.look(db, policy_set, ask, now)
            if isinstance(looked, admission.Found):
                raise LookupError("an estimate's key is new")
            if not looked.decision.granted:
                return _denial(ask, policy_set, looked, admission.advice_for(db, looked))
        return _estimated(ask, policy_set, looked, key)

    @contextmanager
    def job(
        self,
        *,
        account: str,
        operation: str,
        attributes: Mapping[str, object] | None = None,
        key: str,
        plan: str | None = None,
        member: str | None = None,
        consent: bool | int = False,
        not_after: datetime | None = None,
    ) -> Iterator[Job]:
        """Admit a request and do its work: settles at the end, releases as `failed` when the body raises.

        Raises:
            Denied: the request was refused; `.denial` says why.
            GrantEnded: the key brought a grant that is not live any more: its work must not run again.
            InvalidRequest: something asked for is unknown or not allowed.
        """
        decision = self.admit(
            account=account,
            operation=operation,
            attributes=attributes,
            key=key,
            plan=plan,
            member=member,
            consent=consent,
            not_after=not_after,
        )
        job = started_job(decision)
        try:
            yield job
        except BaseException:
            job.ending = self.release(
                job.grant.id, reason=REASON_FAILED, gpu_seconds=job.gpu_seconds, gpu=job.gpu
            )
            raise
        job.ending = self.settle(
            job.grant.id, gpu_seconds=job.gpu_seconds, gpu=job.gpu, delivered=job.delivered
        )


def started_job(decision: Decision) -> Job:
    """Return the job of a decision.

    Raises:
        Denied: the request was refused.
        GrantEnded: the key brought a grant that is not live any more.
    """
    if isinstance(decision, Denial):
        raise Denied(f"denied: {decision.reason}", denial=decision)
    if not decision.live:
        raise GrantEnded(
            f"grant `{decision.id}` has ended: it is {decision.status}", status=decision.status
        )
    return Job(decision)


def _grant(ask: Ask, policy_set: PolicySet, granted: Granted) -> Grant:
    return Grant(
        id=grant_id(granted.book.id, granted.number),
        account=ask.account,
        operation=ask.operation,
        attributes=granted.attributes,
        at=granted.at,
        policy_version=policy_set.version,
        findings=granted.decision.findings,
        plan=granted.plan,
        member=ask.member,
        key=ask.key,
        allocations=granted.decision.allocations,
        gpu_cost_micro_usd=granted.decision.gpu_cost_micro_usd,
        expires_at=granted.expires_at,
        status="held",
        live=True,
    )


def _estimated(ask: Ask, policy_set: PolicySet, looked: Look, key: str) -> Grant:
    case, decision = looked.case, looked.decision
    return Grant(
        id="",
        account=ask.account,
        operation=ask.operation,
        attributes=case.attributes,
        at=case.now,
        policy_version=policy_set.version,
        findings=decision.findings,
        plan=case.rules.plan,
        member=ask.member,
        key=key,
        allocations=decision.allocations,
        gpu_cost_micro_usd=decision.gpu_cost_micro_usd,
        expires_at=case.rules.operation.hold.queued.after(case.now),
        status="held",
        live=False,
    )


def _denial(ask: Ask, policy_set: PolicySet, looked: Look, advice: Advice) -> Denial:
    case, decision = looked.case, looked.decision
    return Denial(
        id=f"de_{uuid.uuid4().hex}",
        account=ask.account,
        operation=ask.operation,
        attributes=case.attributes,
        at=case.now,
        policy_version=policy_set.version,
        findings=decision.findings,
        plan=case.rules.plan,
        member=ask.member,
        reason=str(decision.reason),
        retry_at=advice.retry_at,
        offers=advice.offers,
    )
