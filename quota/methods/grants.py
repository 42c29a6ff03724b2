"""Methods about one grant: start, extend, settle, release, add_gpu_cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

from billing.sql import Db
from policies.errors import GrantEnded, InvalidRequest
from quota import lifecycle, views
from quota.ask import checked_attributes, name, text
from quota.gpu_costs import booked_question
from quota.grants import Ending, Grant, Status
from quota.ids import grant_id, parse_grant_id
from quota.locked import Report, lock_grant
from quota.methods.base import HostSession, Methods
from quota.methods.retried import retried
from quota.prefilter.lives import UnbookedLives
from quota.prefilter.unbooked import Ids, parse_unbooked_id
from quota.versions import stored


class GrantMethods(Methods):
    """Methods about one grant."""

    @retried
    def start(self, grant_id: str, *, session: HostSession | None = None) -> Grant:
        """Take the job up: renews the hold for as long as running work may take.

        Raises:
            GrantEnded: it was cancelled, expired or finished: its work must not run.
            UnknownGrant: there is no such grant.
        """
        return self._renew(grant_id, None, session)

    @retried
    def extend(self, grant_id: str, by: timedelta, *, session: HostSession | None = None) -> Grant:
        """Keep the hold until at least this much later than now. Heartbeats may repeat it.

        Raises:
            GrantEnded: it has ended.
            UnknownGrant: there is no such grant.
            InvalidRequest: `by` is not positive, or longer than a year.
        """
        return self._renew(grant_id, lifecycle.extension(by), session)

    @retried
    def settle(
        self,
        grant_id: str,
        *,
        gpu_seconds: Decimal | float | None = None,
        gpu: str | None = None,
        delivered: Mapping[str, object] | None = None,
        session: HostSession | None = None,
    ) -> Ending:
        """End a grant: the work was delivered, at this GPU cost.

        Args:
            grant_id: the grant.
            gpu_seconds: time on the GPU, in seconds; None: unknown, the estimate is posted and flagged.
            gpu: the GPU type it ran on, if another than the operation's.
            delivered: attributes of what was delivered, if less: re-weighed, never above what is held.
            session: the host's own session.

        Raises:
            UnknownGrant: there is no such grant.
            InvalidRequest: a value is unknown or not allowed.
        """
        return self._finish(grant_id, settled_report(gpu_seconds, gpu, delivered), session)

    @retried
    def release(
        self,
        grant_id: str,
        *,
        reason: str,
        gpu_seconds: Decimal | float | None = None,
        gpu: str | None = None,
        session: HostSession | None = None,
    ) -> Ending:
        """End a grant: the work was not delivered. The policy file says what comes back for which reason.

        `gpu_seconds`: time on the GPU, in seconds; None: unknown, the estimate is posted and flagged.

        Raises:
            UnknownGrant: there is no such grant.
            InvalidRequest: a value is unknown or not allowed.
        """
        return self._finish(grant_id, released_report(reason, gpu_seconds, gpu), session)

    @retried
    def add_gpu_cost(
        self,
        grant_id: str,
        *,
        gpu_seconds: Decimal | float,
        gpu: str | None = None,
        attempt: str,
        session: HostSession | None = None,
    ) -> int:
        """Book the GPU time, in seconds, of a crashed attempt, once per attempt. Returns its cost in micro-dollars.

        Raises:
            UnknownGrant: there is no such grant.
            IdempotencyConflict: the attempt was booked with another time or GPU.
            InvalidRequest: a value is unknown or not allowed.
        """
        ids, spent = parse_grant_id(grant_id), lifecycle.seconds(gpu_seconds)
        if spent is None:
            raise InvalidRequest("gpu_seconds must be given: unknown time is not booked")
        attempt, gpu = text(attempt, "attempt", most=100), _gpu(gpu)
        today = self.policies
        with self._db.writing(session) as db:
            locked = lock_grant(db, ids, self._clock, booked_question(*ids))
            then = stored(db, locked.grant.policy_version, today)
            return lifecycle.book_attempt(
                db, locked, then, today, gpu_seconds=spent, gpu=gpu, attempt=attempt
            )

    def _unbooked(self, grant: str) -> tuple[UnbookedLives, Ids] | None:
        """Return where a grant lives that SQL does not know, and what its id says; None: SQL knows it, or nobody."""
        ids = None if self._front is None else parse_unbooked_id(grant)
        return None if ids is None or self._front is None else (self._front.lives, ids)

    def _renew(self, grant: str, by: timedelta | None, session: HostSession | None) -> Grant:
        unbooked = self._unbooked(grant)
        if unbooked is not None:
            lives, known = unbooked
            hold = self.policies.operation(known.operation).hold.running
            return lives.extend(known, by or timedelta(microseconds=hold.micros), self.policies)
        ids = parse_grant_id(grant)
        with self._db.writing(session) as db:
            renewed = self._renewed(db, ids, by)
        # Raised outside, so that what fell due stays written.
        return live(renewed, ids)

    def _renewed(self, db: Db, ids: tuple[int, int], by: timedelta | None) -> Grant | Status:
        """Renew a hold; what has ended is told by its status."""
        locked = lock_grant(db, ids, self._clock)
        if locked.ended is not None:
            return locked.ended.status
        then = stored(db, locked.grant.policy_version, self.policies)
        grant = views.view_grant(db, locked.book, locked.grant, locked.now)
        expires_at, started_at = lifecycle.renew(db, locked, then, by=by)
        return replace(grant, expires_at=expires_at, started_at=started_at)

    def _finish(self, grant: str, report: Report, session: HostSession | None) -> Ending:
        unbooked = self._unbooked(grant)
        if unbooked is not None:
            lives, known = unbooked
            return lives.end(known, report.status, report.reason)
        ids = parse_grant_id(grant)
        with self._db.writing(session) as db:
            return self._finished(db, ids, report)

    def _finished(self, db: Db, ids: tuple[int, int], report: Report) -> Ending:
        today = self.policies
        locked = lock_grant(db, ids, self._clock, booked_question(*ids))
        then = stored(db, locked.grant.policy_version, today)
        return lifecycle.finish(db, locked, then, today, report)


def settled_report(gpu_seconds: object, gpu: object, delivered: object) -> Report:
    """Check what a settle reports. GPU time in seconds.

    Raises:
        InvalidRequest: a value is of the wrong type, empty, negative or too long.
    """
    checked = None if delivered is None else dict(checked_attributes(delivered))
    return Report("settled", None, lifecycle.seconds(gpu_seconds), _gpu(gpu), checked)


def released_report(reason: object, gpu_seconds: object, gpu: object) -> Report:
    """Check what a release reports. GPU time in seconds.

    Raises:
        InvalidRequest: a value is of the wrong type, empty, negative or too long.
    """
    return Report("released", name(reason, "reason"), lifecycle.seconds(gpu_seconds), _gpu(gpu))


def live(renewed: Grant | Status, ids: tuple[int, int]) -> Grant:
    """Return a grant whose hold was renewed.

    Raises:
        GrantEnded: it had ended.
    """
    if isinstance(renewed, Grant):
        return renewed
    raise GrantEnded(f"grant `{grant_id(*ids)}` has ended: it is {renewed}", status=renewed)


def _gpu(gpu: object) -> str | None:
    return None if gpu is None else name(gpu, "gpu")
