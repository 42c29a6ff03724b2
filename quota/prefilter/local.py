"""Limits in this process alone, for operations that are limits only while Redis is away.

Each process then counts for itself, so that a limit is that many times what it says: better than none, and said by
`decided_by`. The rules are the same function on the same kinds of rows.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from policies.advice import advise
from policies.decision import Decision
from policies.errors import DeadlinePassed, IdempotencyConflict
from policies.instants import micros
from policies.policy_set import PolicySet
from policies.state import History, OpenGrant
from policies.waterfall import decide
from policies.window import LONG_AGO
from quota.ask import Ask
from quota.forks import Forkable
from quota.prefilter.compiler import Compiler
from quota.prefilter.facts import Facts
from quota.prefilter.prefilter import Refused
from quota.prefilter.prints import member_print, unbooked_print
from quota.prefilter.unbooked import Ids, Unbooked

ACCOUNTS_MOST: Final = 10_000
ROWS_SWEPT: Final = 1024


@dataclass(slots=True)
class _Account:
    rates: dict[tuple[str, str | None], tuple[int, int]] = field(default_factory=dict)
    grants: dict[bytes, Unbooked] = field(default_factory=dict)
    last: datetime = LONG_AGO

    def sweep(self, now: datetime) -> None:
        """Let go of what limits nothing any more."""
        self.grants = {raw: kept for raw, kept in self.grants.items() if now < kept.expires_at}
        at = micros(now)
        self.rates = {
            key: (tat, scale) for key, (tat, scale) in self.rates.items() if tat > at * scale
        }


class LocalLimits(Forkable):
    """The limits of the accounts that ask this process. Safe for several threads."""

    def __init__(self, compiler: Callable[[PolicySet], Compiler]) -> None:
        """Begin with nobody."""
        self._compiler = compiler
        self.after_fork()
        self.starts_anew_in_children()

    def after_fork(self) -> None:
        """Begin with nobody, and with a lock that nobody holds."""
        self._accounts: OrderedDict[str, _Account] = OrderedDict()
        self._guard = threading.Lock()

    def decide(
        self, policy_set: PolicySet, ask: Ask, facts: Facts, now: datetime
    ) -> Unbooked | Refused:
        """Decide one request here, and take what it is granted.

        Raises:
            InvalidRequest: the plan or an attribute is unknown or not allowed.
            IdempotencyConflict: the key was used for another request.
            DeadlinePassed: `not_after` is past.
        """
        compiler = self._compiler(policy_set)
        question = compiler.question(ask, facts, member_print(ask.account, ask.member), now)
        rules, request, circumstances, *_ = question
        raw = unbooked_print(ask.account, ask.key)
        with self._guard:
            account = self._account(ask.account)
            now = max(now, account.last)  # an account's time never runs backwards
            if len(account.grants) + len(account.rates) > ROWS_SWEPT:
                account.sweep(now)
            made = account.grants.get(raw)
            if made is not None and now < made.expires_at:
                if made.question.mark != question.mark:
                    raise IdempotencyConflict(
                        f"key `{ask.key}` was used for another request of this account: use a new key"
                    )
                return made._replace(replayed=True)
            history = _history(account)
            decision = decide(request, rules, circumstances, history, now)
            if decision.granted and ask.not_after is not None and now > ask.not_after:
                raise DeadlinePassed("not_after is past: nothing was taken")
            if decision.granted:
                until = rules.operation.hold.queued.after(now)
                made = account.grants[raw] = Unbooked(
                    raw, question, now, until, found=decision.findings
                )
                account.last = now
                _keep_rates(account, decision)
                return made
        advice = advise(policy_set, rules, request, circumstances, history, now)
        return Refused(rules, request, decision, advice, now)

    def change(
        self, ids: Ids, now: datetime, *, flags: int = 0, until: datetime | None = None
    ) -> tuple[Unbooked, bool] | None:
        """End a grant with `flags`, or keep it until an instant. Returns it, and whether it was live; None: unknown."""
        with self._guard:
            account = self._accounts.get(ids.account)
            found = None if account is None else account.grants.get(ids.print)
            if account is None or found is None:
                return None
            made = found
            live = not made.flags and now < made.expires_at
            if live and (flags or until is not None):
                expires_at = max(made.expires_at, until or made.expires_at)
                made = made._replace(flags=flags, expires_at=expires_at)
                account.grants[ids.print] = made
            return made, live

    def _account(self, name: str) -> _Account:
        account = self._accounts.setdefault(name, _Account())
        self._accounts.move_to_end(name)
        if len(self._accounts) > ACCOUNTS_MOST:
            self._accounts.popitem(last=False)
        return account


def _history(account: _Account) -> History:
    grants = tuple(
        OpenGrant(made.expires_at, made.question.request.member or "")
        for made in account.grants.values()
        if not made.flags
    )
    return History(grants=grants, rates=dict(account.rates))


def _keep_rates(account: _Account, decision: Decision) -> None:
    for read, tat in decision.rates:
        account.rates[read.policy, read.member] = (tat, read.scale)
