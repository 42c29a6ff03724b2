"""Operations that are limits only: decided in Redis alone, in one round trip. Their grants are volatile and unbooked.

The id of such a grant says what and whose it is, since no table does: `un_`, the key's fingerprint, operation, account.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from policies.decision import Finding
from policies.errors import DeadlinePassed, IdempotencyConflict, UnknownGrant
from policies.instants import from_micros
from policies.kinds.rate import RateLimit
from policies.policy_set import PolicySet
from policies.state import RateRead, Read, Readings
from policies.suggest import shown
from policies.waterfall import decide
from quota.ask import Ask
from quota.grants import Grant, Status
from quota.prefilter.answers import Verdict, asked
from quota.prefilter.compiler import Question
from quota.prefilter.later import LaterFindings
from quota.prefilter.prefilter import (
    AskSql,
    Passed,
    Prefilter,
    Refused,
    Steps,
    deadline_micros,
)
from quota.prefilter.prints import member_print, unbooked_print

SETTLED: Final = 8
RELEASED: Final = 16
STATUSES: Final[Mapping[int, Status]] = {SETTLED: "settled", RELEASED: "released"}
_ID: Final = re.compile(r"un_([0-9a-f]{16})_([^/]{1,600})/(.{1,200})\Z")


class Ids(NamedTuple):
    """What the id of an unbooked grant says: its key's fingerprint, what it is, and whose."""

    print: bytes
    operation: str
    account: str

    @property
    def text(self) -> str:
        """The id."""
        # A slash ends the operation's name.
        operation = self.operation.replace("%", "%25").replace("/", "%2F")
        return f"un_{self.print.hex()}_{operation}/{self.account}"


class Unbooked(NamedTuple):
    """A grant that only Redis knows. `flags`: how it has ended; `numbers`: what the script read for it, in order."""

    print: bytes
    question: Question
    at: datetime
    expires_at: datetime
    flags: int = 0
    replayed: bool = False
    stale: bool = False
    """Whether Redis should be told again what SQL says of the account."""
    numbers: tuple[int, ...] = ()
    found: tuple[Finding, ...] | None = None

    def findings(self) -> tuple[Finding, ...]:
        """Return what each policy found: decided again on what was read, where it is not known."""
        if self.found is not None:
            return self.found
        rules, request, circumstances, *_ = self.question
        readings = Readings(_numbers(self))
        return decide(request, rules, circumstances, readings, self.at).findings


def parse_unbooked_id(text: object) -> Ids | None:
    """Return what such an id says; None: it is another kind of id."""
    match = _ID.match(text) if isinstance(text, str) else None
    if match is None:
        return None
    operation = match[2].replace("%2F", "/").replace("%25", "%")
    return Ids(bytes.fromhex(match[1]), operation, match[3])


def unknown(ids: Ids) -> UnknownGrant:
    """Return what to raise where Redis knows no such grant."""
    return UnknownGrant(
        f"there is no grant {shown(ids.text)}: it was never booked, and has expired"
    )


def unbooked_steps(
    prefilter: Prefilter,
    policy_set: PolicySet,
    ask: Ask,
    now: datetime,
    given_now: str,
    deadline: int,
) -> Steps[Passed | AskSql | Refused | Unbooked]:
    """Decide one request in Redis alone; see `Prefilter.steps`.

    Raises:
        InvalidRequest: the plan or an attribute is unknown or not allowed.
        IdempotencyConflict: the key was used for another request.
        DeadlinePassed: `not_after` is past.
    """
    compiler, facts = prefilter.compiler(policy_set), prefilter.facts(ask.account)
    key, member = prefilter.keys.of(ask.account), member_print(ask.account, ask.member)
    raw = unbooked_print(ask.account, ask.key)
    for _ in range(4):
        question = compiler.question(ask, facts, member, now)
        program = question.program
        if program is None:
            return AskSql("a policy is of a kind that Redis does not decide", helps=False)
        args = asked(given_now, deadline, raw + question.mark, facts.text, program.data, member)
        verdict, at, *rest = yield key, args
        match verdict:
            case Verdict.PASSED:
                expires, numbers, stale = rest
                return Unbooked(
                    raw,
                    question,
                    from_micros(at),
                    from_micros(expires),
                    stale=bool(stale),
                    numbers=tuple(numbers),
                )
            case Verdict.REPLAYED:
                granted_at, expires, flags = rest
                since, until = from_micros(granted_at), from_micros(expires)
                return Unbooked(raw, question, since, until, flags, replayed=True)
            case Verdict.CONFLICT:
                raise IdempotencyConflict(
                    f"key `{ask.key}` was used for another request of this account: use a new key"
                )
            case Verdict.LATE if at <= deadline_micros(ask.not_after):
                deadline = deadline_micros(ask.not_after)
            case Verdict.LATE:
                raise DeadlinePassed("not_after is past: nothing was taken")
            case Verdict.DENIED:
                return prefilter.refused(question, policy_set, at, rest)
            case Verdict.FACTS:
                facts = prefilter.remember(ask.account, rest[0])
            case Verdict.OTHER_WINDOW:
                now = from_micros(at)
            case _:
                return AskSql("Redis does not know enough", cold=True)
    return AskSql("what Redis knows keeps changing")


def _numbers(made: Unbooked) -> dict[Read, int]:
    """Return what the script read, by read: the limits are in one order here and there."""
    rules, request, circumstances, *_ = made.question
    asked, told = rules.asked(request, circumstances), iter(made.numbers)
    found: dict[Read, int] = {}
    for limit in rules.in_force(circumstances.spend_cap).unguarded:
        for read in limit.reads(asked):
            if isinstance(limit, RateLimit) and isinstance(read, RateRead):
                whole, rest = next(told), next(told)
                found[read] = whole * read.scale + rest
            else:
                found[read] = next(told)
    return found


def grant_of(made: Unbooked, policy_set: PolicySet, ask: Ask, now: datetime, by: Any) -> Grant:
    """Return the grant as the caller sees it. `by`: who decided."""
    status: Status = STATUSES.get(made.flags, "held")
    return Grant(
        id=Ids(made.print, ask.operation, ask.account).text,
        account=ask.account,
        operation=ask.operation,
        attributes=made.question.request.attributes,
        at=made.at,
        policy_version=policy_set.version,
        findings=() if made.replayed else LaterFindings(made.findings),
        plan=made.question.rules.plan,
        member=ask.member,
        key=ask.key,
        allocations=(),
        gpu_cost_micro_usd=0,
        expires_at=made.expires_at,
        status=status,
        live=status == "held" and now < made.expires_at,
        replayed=made.replayed,
        decided_by=by,
    )
