"""An admission with Redis in front: what it has answered, and what SQL then does with what it has passed on."""

from __future__ import annotations

from abc import abstractmethod
from functools import partial
from typing import TYPE_CHECKING

from policies.decision import Reason
from quota import admission
from quota.ask import Ask
from quota.grants import Decision, Denial, Grant
from quota.methods.base import HostSession, Methods
from quota.prefilter.events import GrantNote
from quota.prefilter.front import Answer, Front, denial_of
from quota.prefilter.prefilter import AskSql, Passed, Refused
from quota.prefilter.prints import key_print, member_print
from quota.stores.telling import when_committed

if TYPE_CHECKING:
    from billing.sql import Db
    from quota.granting import Granted


class FrontedMethods(Methods):
    """What an admission does with Redis in front."""

    def _behind(
        self, front: Front, ask: Ask, told: Answer, session: HostSession | None
    ) -> Decision:
        """Return Redis's answer, or go on to SQL, and tell Redis what it said."""
        if isinstance(told, Refused):
            with self._db.reading() as db:
                known = admission.find(db, ask.account, ask.key)
            told = denial_of(told, self.policies, ask) if known is None else told
        if isinstance(told, Denial | Grant):
            return told
        if not isinstance(told, Passed):
            decision = self._in_sql(ask, session, passed=False)
        else:
            undo = partial(front.news.undone, ask.account, told.print)
            try:
                decision = self._in_sql(ask, session, passed=True)
            except BaseException:
                undo()
                raise
            if session is not None and decision.granted:
                when_committed(session, lambda: None, otherwise=undo)
        self._heard(front, ask, told, decision)
        return decision

    @abstractmethod
    def _in_sql(self, ask: Ask, session: HostSession | None, *, passed: bool) -> Decision:
        """Decide in SQL. `passed`: it will probably be granted."""

    def _note(self, db: Db, ask: Ask, granted: Granted) -> None:
        """Leave a note of a grant, to be told to Redis when it is committed."""
        if self._front is not None:
            raw = key_print(ask.account, ask.key)
            member = member_print(ask.account, ask.member)
            db.notes[granted.book.id] = GrantNote(ask.account, raw, member, granted)

    @staticmethod
    def _heard(front: Front, ask: Ask, told: Answer, decision: Decision) -> None:
        """Tell Redis what SQL has decided otherwise."""
        anew = decision.granted and not getattr(decision, "replayed", False)
        if isinstance(told, Passed) and not anew:
            front.news.undone(ask.account, told.print)
        if isinstance(decision, Denial) and _would_help(told, decision):
            front.news.unknown(ask.account)


def _would_help(told: Answer, denial: Denial) -> bool:
    """Whether Redis could deny the same the next time, if it were told what SQL says of the account."""
    if isinstance(told, AskSql):
        return told.helps
    # What budgets have spent Redis does not know, however often it is told of the account.
    return all(found.reason != Reason.BUDGET_EXHAUSTED for found in denial.findings)
