"""One decision in Redis, step by step, and what it comes to. Neither sync nor async: whoever drives it does the asking.

Three outcomes. Refused: answered here, with the reasons that SQL would give, decided by the same pure function on
the state that Redis holds. Passed: SQL makes the grant, or not; it has the last word. Anything else is SQL's alone.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, TypeVar

from policies.advice import Advice, advise
from policies.decision import Decision
from policies.errors import ComptrollerError
from policies.instants import from_micros, micros
from policies.policy_set import PolicySet
from policies.request import Request
from policies.rules import Ruleset
from policies.waterfall import decide
from quota.ask import Ask
from quota.prefilter.answers import Verdict, asked
from quota.prefilter.budgets import BudgetMemory
from quota.prefilter.compiler import Compiler, Question
from quota.prefilter.facts import Facts
from quota.prefilter.prints import Keys, key_print, member_print
from quota.prefilter.unpacking import unpacked
from quota.redis.wire import Argument

ROUNDS_MOST: Final = 4
NEVER: Final = 2**52
FACTS_MOST: Final = 100_000
"""Of how many accounts a process remembers plan and settings: the next call then needs one command."""

Call = tuple[bytes, list[Argument]]
ResultT = TypeVar("ResultT")
Steps = Generator[Call, Any, ResultT]


@dataclass(frozen=True, slots=True)
class Passed:
    """Everything passes, as far as Redis knows, and the request is noted there under this fingerprint of its key."""

    print: bytes


@dataclass(frozen=True, slots=True)
class AskSql:
    """SQL decides alone. `cold`: Redis does not know the account, or not well enough.

    `helps`: whether Redis may answer the next time, if it is told what SQL says of the account.
    """

    why: str
    cold: bool = False
    helps: bool = True


@dataclass(frozen=True, slots=True)
class Refused:
    """Refused, with all that a denial says.

    `book_id`: of the book whose state it rests on, 0 where SQL knew none. `partial`: an old key may not be known here;
    SQL knows it. `stale`: Redis should be told again what SQL says of the account.
    """

    rules: Ruleset
    request: Request
    decision: Decision
    advice: Advice
    at: datetime
    book_id: int = 0
    partial: bool = False
    stale: bool = False


Outcome = Passed | AskSql | Refused
_NOTHING_SET: Final = Facts()


class Prefilter:
    """What a process knows to ask Redis with: programs of the policy set, and facts of accounts."""

    def __init__(self, budgets: BudgetMemory, keys: Keys) -> None:
        """`budgets`: what they have spent, which all accounts share and Redis does not know."""
        self._facts: dict[str, Facts] = {}
        self._compiler: Compiler | None = None
        self._budgets, self.keys = budgets, keys

    def compiler(self, policy_set: PolicySet) -> Compiler:
        """Return the programs of a policy set. The last one used is kept."""
        compiler = self._compiler
        if compiler is None or compiler.policy_set is not policy_set:
            compiler = self._compiler = Compiler(policy_set)
        return compiler

    def steps(
        self, policy_set: PolicySet, ask: Ask, now: datetime, given_now: str, deadline: int
    ) -> Steps[Outcome]:
        """Decide one request: yields what to ask of the script, is sent its answers, returns what it comes to.

        `now`: the clock's; `given_now`: the same in microseconds, or empty for the server's own clock;
        `deadline`: microseconds since 1970 after which nothing may be taken.
        """
        compiler, facts = self.compiler(policy_set), self.facts(ask.account)
        key, raw = self.keys.of(ask.account), key_print(ask.account, ask.key)
        member = member_print(ask.account, ask.member)
        for _ in range(ROUNDS_MOST):
            try:
                question = compiler.question(ask, facts, member, now)
            except ComptrollerError:
                return AskSql("it is not a request that the policy file admits", helps=False)
            if question.program is None:
                return AskSql("a policy is of a kind that Redis does not decide", helps=False)
            program = question.program.data
            args = asked(given_now, deadline, raw, facts.text, program, member)
            verdict, at, *rest = yield key, args
            match verdict:
                case Verdict.PASSED:
                    return Passed(raw)
                case Verdict.DENIED:
                    return self.refused(question, policy_set, at, rest)
                case Verdict.FACTS:
                    facts = self.remember(ask.account, rest[0])
                case Verdict.OTHER_WINDOW:
                    now = from_micros(at)
                case Verdict.LATE if at <= deadline_micros(ask.not_after):
                    # Not the caller's deadline but ours, from a clock that was set since. Nothing was taken.
                    deadline = deadline_micros(ask.not_after)
                case Verdict.COLD | Verdict.DOUBTFUL:
                    return AskSql("Redis does not know enough", cold=True)
                case _:
                    return AskSql("SQL knows")
        return AskSql("what Redis knows keeps changing")

    def facts(self, account: str) -> Facts:
        """Return what was last known of an account: none of it matters until the script agrees."""
        return self._facts.get(account, _NOTHING_SET)

    def forget(self, account: str) -> None:
        """Forget an account's facts."""
        self._facts.pop(account, None)

    def remember(self, account: str, text: bytes) -> Facts:
        """Keep what the script says of an account."""
        if len(self._facts) >= FACTS_MOST:
            # The oldest half goes: what is asked for again is learnt again, by one more command.
            for old in list(self._facts)[: FACTS_MOST // 2]:
                self._facts.pop(old, None)  # another thread may be at it too
        facts = self._facts[account] = Facts.read(text.decode())
        return facts

    def refused(
        self,
        question: Question,
        policy_set: PolicySet,
        at_micros: int,
        told: Sequence[Any],
    ) -> Refused | AskSql:
        """Decide again on the state that Redis gave, to say why, and what would help."""
        rules, request, circumstances, *_ = question
        now, (blob, partial, stale) = from_micros(at_micros), told
        state = unpacked(blob, self.compiler(policy_set).names)
        history = state.history()
        spent = self._spent(policy_set, rules, now)
        if spent is None:
            return AskSql("what budgets have spent is not known")
        history = replace(history, budgets=spent)
        decision = decide(request, rules, circumstances, history, now)
        if decision.granted:
            return AskSql("Redis and the policies disagree")
        advice = advise(policy_set, rules, request, circumstances, history, now)
        # Keys of grants that SQL does not know are all here.
        some = bool(partial) and not rules.operation.limits_only
        return Refused(
            rules, request, decision, advice, now, state.book_id, some, stale=bool(stale)
        )

    def _spent(
        self, policy_set: PolicySet, rules: Ruleset, now: datetime
    ) -> Mapping[tuple[str, datetime], int] | None:
        if rules.operation.limits_only or not policy_set.budgets:
            return {}
        return self._budgets.spent([budget.read for budget in policy_set.budgets.values()], now)


def deadline_micros(not_after: datetime | None) -> int:
    """Return an instant as the script takes it: microseconds since 1970, or a far one for none."""
    return NEVER if not_after is None else micros(not_after)
