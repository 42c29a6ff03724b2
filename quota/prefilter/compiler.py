"""One policy set's programs, compiled once, and what its names and windows mean to the state in Redis."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final, NamedTuple

from policies.instants import Length, micros
from policies.kinds.spend import SpendLimit
from policies.policy import Policy
from policies.policy_set import PolicySet
from policies.request import Circumstances, Request
from policies.rules import Ruleset
from policies.table import spelled
from quota.ask import Ask
from quota.prefilter.facts import Facts
from quota.prefilter.prints import name_print, request_print
from quota.prefilter.program import Program, compiled

DAY: Final = 86_400_000_000
MONTH: Final = 34 * DAY
"""The longest calendar month, with a change of time zone."""
PROGRAMS_MOST: Final = 4096


class Question(NamedTuple):
    """What is asked, of which policies, in which circumstances, and all that as the script is told it."""

    rules: Ruleset
    request: Request
    circumstances: Circumstances
    program: Program | None
    mark: bytes
    """Tells two requests under one key apart: a fingerprint of member, operation and normalised attributes."""


class Compiler:
    """Compiles requests under one policy set."""

    def __init__(self, policy_set: PolicySet) -> None:
        """Read what the set's policies are called, and how far they look back."""
        self.policy_set: Final = policy_set
        names = {policy_set.currency}
        longest = MONTH  # the account's own spend cap may look back by a month
        for rules in self._rulesets():
            for policy in (*rules.limits, *rules.sources):
                names.add(policy.label)
                longest = max(longest, _reach(policy))
                if isinstance(policy, SpendLimit) and isinstance(policy.limit, dict):
                    names |= set(policy.limit)
        self.names: Final = {name_print(name): name for name in names}
        self.lookback: Final = longest
        """How far any window looks back, in microseconds."""
        self._distinct = len(self.names) == len(names)
        self._programs: dict[Any, Program | None] = {}
        self._questions: dict[Any, Question] = {}

    def question(self, ask: Ask, facts: Facts, member: bytes, now: datetime) -> Question:
        """Return what is asked, of which policies, in which circumstances, if these are the facts.

        Raises:
            InvalidRequest: the plan, the operation or an attribute is unknown or not allowed.
        """
        # Most requests differ in nothing but account and key. A type counts: 1 is no True.
        values = tuple((name, type(value), value) for name, value in ask.attributes.items())
        key = (ask.operation, ask.plan, ask.consent, type(ask.consent), facts.text, member, values)
        try:
            known = self._questions.get(key)
        except TypeError:  # an attribute that cannot be hashed, and that no operation has
            return self._question(ask, facts, member, now)
        if known is not None and known.program is not None and known.program.holds(micros(now)):
            return known
        if len(self._questions) > PROGRAMS_MOST:
            self._questions.clear()
        # What SQL decides today it may not tomorrow: there are days at the end of a month that it decides.
        made = self._questions[key] = self._question(ask, facts, member, now)
        return made

    def _question(self, ask: Ask, facts: Facts, member: bytes, now: datetime) -> Question:
        policy_set = self.policy_set
        plan = ask.plan or policy_set.plan_of_account(facts.plan)
        asked = None if ask.member is None else member.hex()
        request = policy_set.request(ask.operation, ask.attributes, asked, ask.consent)
        rules, circumstances = policy_set.rules(plan, ask.operation), facts.circumstances(plan)
        program = self.program(rules, request, circumstances, now)
        attributes = {name: spelled(value) for name, value in request.attributes.items()}
        content = json.dumps([ask.member, ask.operation, attributes], sort_keys=True)
        return Question(rules, request, circumstances, program, request_print(content))

    def program(
        self, rules: Ruleset, request: Request, circumstances: Circumstances, now: datetime
    ) -> Program | None:
        """Return what the script needs to know of a request at `now`, or None where SQL decides alone.

        Raises:
            InvalidRequest: its weight or its GPU cost cannot be found for these attributes.
        """
        if not self._distinct:
            return None
        # Of the member the program says nothing: the script is told who asks beside it.
        key = (
            rules.plan,
            rules.operation_name,
            rules.weigh(request.attributes).units,
            request.consent,
            circumstances.zones,
            circumstances.paid_use,
            circumstances.spend_cap,
            circumstances.frozen,
        )
        at = micros(now)
        found = self._programs.get(key)
        if found is not None and found.holds(at):
            return found
        if len(self._programs) > PROGRAMS_MOST:
            self._programs.clear()
        made = compiled(rules, request, circumstances, self.lookback, now)
        self._programs[key] = made
        return made

    def _rulesets(self) -> Iterator[Ruleset]:
        for plan in self.policy_set.plans:
            for operation in self.policy_set.operations:
                yield self.policy_set.rules(plan, operation)


def _reach(policy: Policy) -> int:
    """Return how far a policy's window may look back, in microseconds, with room for changes of time zone."""
    length: Length | None = getattr(policy, "length", None)
    if length is None:
        return 0
    return length.micros + 2 * DAY + length.months * MONTH
