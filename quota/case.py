"""One request against one state of its account: what is read, and the decision on it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from billing.books import BookState
from billing.sql import Db, Question
from policies.decision import Decision
from policies.policy_set import PolicySet
from policies.request import AttributeValue, Circumstances, Request
from policies.rules import Ruleset
from policies.state import BudgetRead, History, Read, State, UsageRead
from policies.table import spelled
from policies.waterfall import decide
from quota.ask import Ask
from quota.budgets import spent_question
from quota.load import (
    Picture,
    empty_history,
    empty_readings,
    load_history,
    load_readings,
    picture_questions,
    usage_question,
)


@dataclass(frozen=True, slots=True)
class Case:
    """One request against one state of the account."""

    ask: Ask
    policy_set: PolicySet
    picture: Picture | None
    now: datetime
    rules: Ruleset
    request: Request
    circumstances: Circumstances
    attributes: Mapping[str, AttributeValue]
    reads: tuple[Read, ...]

    def decide(self, state: State) -> Decision:
        return decide(self.request, self.rules, self.circumstances, state, self.now)


@dataclass(frozen=True, slots=True)
class Look:
    """A decision on what was read without a lock, and the state that it rests on."""

    case: Case
    decision: Decision
    state: State

    @property
    def book(self) -> BookState | None:
        """The book as it was read; None where the account had none."""
        return None if self.case.picture is None else self.case.picture.book


def case_of(policy_set: PolicySet, ask: Ask, picture: Picture | None, now: datetime) -> Case:
    """Put a request together with what the account is, as of `now` or the account's own time if that is later.

    Raises:
        InvalidRequest: the plan, the operation or an attribute is unknown or not allowed.
    """
    book = None if picture is None else picture.book
    now = now if book is None else max(now, book.at)
    plan = ask.plan or policy_set.plan_of_account(None if book is None else book.plan)
    member = None
    if ask.member is not None:
        member = ask.member if book is None else book.hashed("member", ask.member)
    request = policy_set.request(ask.operation, ask.attributes, member, ask.consent)
    rules = policy_set.rules(plan, ask.operation)
    circumstances = Circumstances(plan) if book is None else book.circumstances(plan)
    reads = rules.reads(request, circumstances)
    attributes = request.attributes
    return Case(ask, policy_set, picture, now, rules, request, circumstances, attributes, reads)


def questions_of(case: Case, book: BookState) -> Iterator[Question]:
    """Yield what deciding this case will ask, if nothing is due on the book."""
    yield from picture_questions(book)
    usage = [read for read in case.reads if isinstance(read, UsageRead)]
    if usage:
        yield usage_question(book.id, usage, case.now)
    for read in case.reads:
        if isinstance(read, BudgetRead):
            yield spent_question(read, case.now)


def look_at(db: Db, case: Case) -> Look:
    """Load what the policies read, and decide."""
    state = state_of(db, case)
    return Look(case, case.decide(state), state)


def state_of(db: Db, case: Case) -> State:
    """Load what the policies read: numbers, or the rows behind them where something due is not written yet."""
    if case.picture is None:
        return empty_readings(db, case.reads, case.now)
    if case.picture.has_dues(case.now):
        return history_of(db, case, case.reads)
    return load_readings(db, case.picture, case.reads, case.now)


def history_of(db: Db, case: Case, reads: tuple[Read, ...]) -> History:
    """Load the rows behind what these reads ask for."""
    return (
        empty_history(db, reads, case.now)
        if case.picture is None
        else load_history(db, case.picture, reads, case.now)
    )


def all_reads(case: Case) -> tuple[Read, ...]:
    """Return what the policies of every plan read: an upgrade is offered only if it would help."""
    reads: dict[Read, None] = {}
    for plan in case.policy_set.plans:
        rules = case.policy_set.rules(plan, case.request.operation)
        reads |= dict.fromkeys(rules.reads(case.request, replace(case.circumstances, plan=plan)))
    return tuple(reads)


def request_hash_of(book: BookState, ask: Ask, attributes: Mapping[str, AttributeValue]) -> str:
    """Return what tells two requests apart: member, operation and normalised attributes, as a salted hash."""
    content = [
        ask.member,
        ask.operation,
        {name: spelled(value) for name, value in attributes.items()},
    ]
    return book.hashed("request", json.dumps(content, sort_keys=True, ensure_ascii=False))
