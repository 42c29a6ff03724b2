"""Operations that are limits only: Redis alone, and a process alone, answer as a model in dictionaries does."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from policies.advice import advise
from policies.policy_set import PolicySet
from policies.request import Circumstances
from policies.state import History, OpenGrant
from policies.waterfall import decide
from quota import AsyncComptroller, Comptroller, ComptrollerError, Denial
from quota.prefilter.prints import member_print
from quota.testing import FakeClock
from tests.prefilter.worlds import ACCOUNT, START, parsed, policy_sets

NOBODY_THERE = "redis://127.0.0.1:1"
LIVES = timedelta(minutes=10)
GONE = {("refused", "UnknownGrant"), ("refused", "StoreUnavailable")}
"""Where Redis is away, it cannot be asked whether it knows of what this process has let go."""
REACHED: Counter[str] = Counter()


@dataclass
class Made:
    content: tuple[str, str | None]
    at: datetime
    expires_at: datetime
    status: str = "held"


class Model:
    """One account, under one plan."""

    def __init__(self, policy_set: PolicySet) -> None:
        self.policy_set = policy_set
        self.rates: dict[tuple[str, str | None], tuple[int, int]] = {}
        self.grants: dict[str, Made] = {}
        self.last = START - timedelta(days=365)

    def admit(self, now: datetime, key: str, member: str | None) -> tuple[Any, ...]:
        now = max(now, self.last)
        made = self.grants.get(key)
        if made is not None and now < made.expires_at:
            if made.content != ("ping", member):
                return ("refused", "IdempotencyConflict")
            return ("grant", made.at, made.expires_at, made.status, True, None)
        raw = None if member is None else member_print(ACCOUNT, member).hex()
        request = self.policy_set.request("ping", {}, raw, consent=False)
        rules, circumstances = self.policy_set.rules("p", "ping"), Circumstances("p")
        history = self.history(now)
        decision = decide(request, rules, circumstances, history, now)
        if not decision.granted:
            advice = advise(self.policy_set, rules, request, circumstances, history, now)
            told = (str(decision.reason), advice.retry_at, advice.offers)
            return ("denial", now, decision.findings, *told)
        self.last = now
        for read, tat in decision.rates:
            self.rates[read.policy, read.member] = (tat, read.scale)
        self.grants[key] = Made(("ping", member), now, now + LIVES)
        return ("grant", now, now + LIVES, "held", False, decision.findings)

    def history(self, now: datetime) -> History:
        held = [made for made in self.grants.values() if made.status == "held"]
        grants = (OpenGrant(made.expires_at, self.member(made)) for made in held)
        return History(grants=tuple(grants), rates=self.rates)

    @staticmethod
    def member(made: Made) -> str:
        return "" if made.content[1] is None else member_print(ACCOUNT, made.content[1]).hex()

    def end(self, now: datetime, key: str, status: str) -> tuple[Any, ...]:
        made = self.grants[key]
        if made.status == "held" and now < made.expires_at:
            self.grants[key] = replace(made, status=status)
            return (status, True, False)
        ended = "expired" if made.status == "held" else made.status
        return (ended, False, ended == "expired")

    def extend(self, now: datetime, key: str, by: timedelta) -> tuple[Any, ...]:
        made = self.grants[key]
        if made.status != "held" or now >= made.expires_at:
            return ("refused", "GrantEnded")
        made.expires_at = max(made.expires_at, now + by)
        return ("extended", made.at, made.expires_at)


class Engine:
    """The same calls of the engine, its answers in the model's form."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self.call = call
        self.ids: dict[str, str] = {}

    def asked(self, method: str, *values: Any, **named: Any) -> Any:
        try:
            return self.call(method, *values, **named)
        except ComptrollerError as error:
            return ("refused", type(error).__name__)

    def admit(self, key: str, member: str | None) -> tuple[Any, ...]:
        asked = {"account": ACCOUNT, "operation": "ping", "key": key, "member": member}
        told = self.asked("admit", **asked)
        if isinstance(told, tuple):
            return told
        if isinstance(told, Denial):
            return ("denial", told.at, told.findings, told.reason, told.retry_at, told.offers)
        assert told.id.startswith("un_")
        self.ids[key] = told.id
        found = None if told.replayed else tuple(told.findings)
        return ("grant", told.at, told.expires_at, told.status, told.replayed, found)

    def end(self, key: str, status: str) -> tuple[Any, ...]:
        method, more = ("settle", {}) if status == "settled" else ("release", {"reason": "failed"})
        told = self.asked(method, self.ids[key], **more)
        return told if isinstance(told, tuple) else (told.status, told.by_this_call, told.late)

    def extend(self, key: str, by: timedelta) -> tuple[Any, ...]:
        told = self.asked("extend", self.ids[key], by)
        return told if isinstance(told, tuple) else ("extended", told.at, told.expires_at)


KEYS = [f"key-{number}" for number in range(5)]
STEPS = st.lists(
    st.tuples(
        st.just("admit"), st.sampled_from([None, *KEYS]), st.sampled_from([None, "ann", "bob"])
    )
    | st.tuples(st.just("end"), st.sampled_from(KEYS), st.sampled_from(["settled", "released"]))
    | st.tuples(st.just("extend"), st.sampled_from(KEYS), st.sampled_from([1, 600, 4000]))
    | st.tuples(
        st.just("wait"),
        st.sampled_from([0, 1e-6, 0.5, 1, 3.5, 7, 60, 599, 600, 3600, 86_400, -90]),
        st.just(0),
    ),
    min_size=5,
    max_size=40,
)


def compared(engine: Engine, model: Model, clock: FakeClock, steps: list[Any]) -> None:
    for number, (what, one, other) in enumerate(steps):
        now = clock()
        if what == "wait":
            clock.set(now + timedelta(seconds=one))
        elif what == "admit":
            key = one or f"new-{number}"
            expected = model.admit(now, key, other)
            assert engine.admit(key, other) == expected, (number, what, one)
            REACHED["replay" if expected[-2:-1] == (True,) else str(expected[0])] += 1
        elif one in engine.ids:
            # An end is of the account's time too, which a clock that was turned back is not.
            clock.set(max(now, model.last))
            more = timedelta(seconds=other) if what == "extend" else other
            answer, expired = (
                getattr(engine, what)(one, more),
                clock() >= model.grants[one].expires_at,
            )
            expected = getattr(model, what)(clock(), one, more)
            # What has expired is let go sooner or later.
            assert answer == expected or (expired and answer in GONE), (number, what, one)


ONE_AT_A_TIME = parsed(
    {
        "schema": 1,
        "currency": "usd",
        "operations": {"ping": {"limits_only": True, "hold_for": "10m"}},
        "plans": {
            "p": {
                "limits": [{"kind": "concurrency", "limit": 1}],
                "sources": [{"kind": "allowance", "name": "free", "units": 1, "per": "24h"}],
            }
        },
        "default_plan": "p",
    }
)
EVERY_ANSWER = [
    ("admit", "key-0", None),
    ("admit", "key-0", None),
    ("admit", "key-0", "ann"),
    ("admit", "key-1", None),
    ("end", "key-0", "released"),
    ("admit", "key-1", None),
]
"""A grant, its replay, another request under its key, a denial, and room again: whatever else is generated."""


PHASES = [Phase.explicit, Phase.reuse, Phase.generate]


@pytest.fixture(params=["redis", "cluster", "awaited", "alone", "awaited alone"])
def where(request: Any) -> tuple[Any, bool]:
    if "alone" in request.param:
        return None, "awaited" in request.param
    fixture = "redis_cluster" if request.param == "cluster" else "redis_server"
    return request.getfixturevalue(fixture), request.param == "awaited"


def test_calls_in_any_order_are_answered_as_the_model_does(where):
    server, awaited = where
    share = 1 if server is not None and not awaited else 3

    @settings(max_examples=settings().max_examples // share, phases=PHASES)
    @given(policy_sets(), STEPS)
    @example(ONE_AT_A_TIME, EVERY_ANSWER)
    def programs(policy_set: PolicySet, steps: list[Any]) -> None:
        clock, url = FakeClock(START), NOBODY_THERE
        if server is not None:
            server.flush()
            url = server.url
        if awaited:
            asyncio.run(in_loop(policy_set, url, clock, steps))
            return
        with Comptroller.open(policy_set, "sqlite://", url, clock) as comptroller:

            def call(method: str, *values: Any, **named: Any) -> Any:
                return getattr(comptroller, method)(*values, **named)

            compared(Engine(call), Model(policy_set), clock, steps)

    programs()
    assert {"grant", "denial", "replay", "refused"} <= set(REACHED)


async def in_loop(policy_set: PolicySet, url: str, clock: FakeClock, steps: list[Any]) -> None:
    """Run the steps in a thread, each of its calls in the loop."""
    loop = asyncio.get_running_loop()
    async with AsyncComptroller.open(policy_set, "sqlite://", url, clock) as comptroller:

        def call(method: str, *values: Any, **named: Any) -> Any:
            calling = getattr(comptroller, method)(*values, **named)
            return asyncio.run_coroutine_threadsafe(calling, loop).result(60)

        engine = Engine(call)
        await asyncio.to_thread(compared, engine, Model(policy_set), clock, steps)
