"""Whatever Redis is told, in whatever order, twice or never: it denies what SQL denies, or what SQL denied just now.

Two processes share a database and a Redis. What they tell is kept, and delivered later, again, or not at all.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta
from typing import Any

from hypothesis import Phase, given, seed, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine
from sqlalchemy.pool import StaticPool

from policies.policy_set import PolicySet
from quota import Comptroller, ComptrollerError, Denial, Grant
from quota.ask import Ask
from quota.grants import Decision
from quota.prefilter.events import Message
from quota.prefilter.front import Front, denial_of
from quota.prefilter.prefilter import Passed, Refused
from quota.prefilter.program import CREDITS_FRESH, FRESH
from quota.redis.wire import Argument
from quota.testing import FakeClock
from tests.world import START

POLICIES = PolicySet.parse("""
schema: 1
operations:
  clip:
    attributes: {n: {type: integer, default: 1, min: 1, max: 9}}
    weight: {each: {n: 1}}
    gpu_cost: {usd: 0.01}
    hold_for: 40s
packs: {three: {units: 3, price: 1.00, valid_for: 1mo}}
plans:
  free:
    limits: [{kind: rate, limit: 4, per: 40s, burst: 3}, {kind: concurrency, limit: 2}]
    sources:
      - {kind: allowance, name: quick, per: 50s, units: 4, split: true}
      - {kind: allowance, name: slow, per: 5m, units: 7}
  paid:
    paid_use: auto
    limits: [{kind: spend, limit: 400, per: 24h}, {kind: usage, units: 12, per: 90s}]
    sources: [{kind: allowance, name: quick, per: 50s, units: 4}, {kind: credits}]
default_plan: free
""")
FRESHNESS = {"free": FRESH, "paid": CREDITS_FRESH}
REACHED: Counter[str] = Counter()


# How often each comes, of so many.
WEIGHTS: dict[tuple[str, Any], int] = {
    **{("grant", n): 5 for n in (1, 1, 2, 3)},
    **{("ask", n): 7 for n in (1, 2, 4, 6, 9)},
    **{("end", how): 2 for how in ("settle", "release", "extend")},
    **{("account", what): 1 for what in ("buy", "free", "paid", "freeze")},
    ("account", "thaw"): 3,
    ("refresh", None): 14,
    ("state", None): 3,
    **{("deliver", which): 2 for which in (0, 1, 2, 3)},
    **{("deliver again", which): 1 for which in (0, 1, 2, 3)},
    **{("deliver all", in_order): 2 for in_order in (True, False)},
    **{("wait", seconds): 1 for seconds in (0.5, 1.5, 2, 2.5, 6, 29, 31, 45, 120)},
    ("lose", "what waits"): 2,
    ("lose", "all that Redis knows"): 1,
}
STEPS = st.lists(
    st.sampled_from([step for step, weight in WEIGHTS.items() for _ in range(weight)]),
    min_size=30,
    max_size=90,
)


class Stage:
    """Two processes, and what they have to tell."""

    def __init__(self, stack: ExitStack, server: Any) -> None:
        self.server, self.clock = server, FakeClock(START)
        server.flush()
        self.writer = stack.enter_context(self.opened("sqlite://"))
        self.asker = stack.enter_context(self.opened(self.writer._db.engine))
        self.waiting: list[tuple[bytes, list[Argument]]] = []
        self.told: list[tuple[bytes, list[Argument]]] = []
        self.grants: list[str] = []
        self.asked = 0
        self.past: list[tuple[datetime, bytes]] = []
        """The database as it was, and until when."""
        for front in (self.front(self.writer), self.front(self.asker)):
            front.news.by_hand = True
            front.news._send = self.keep  # type: ignore[method-assign]

    def opened(self, database: Any) -> Comptroller:
        return Comptroller.open(POLICIES, database, self.server.url, self.clock)

    @staticmethod
    def front(comptroller: Comptroller) -> Front:
        assert comptroller._front is not None
        return comptroller._front

    def keep(self, messages: list[Message]) -> None:
        self.waiting += [(message.key, message.timed()) for message in messages]

    def key(self) -> str:
        self.asked += 1
        return f"key-{self.asked}"

    # --- what happens -------------------------------------------------------------------------

    def happen(self, what: str, detail: Any) -> None:
        REACHED[what] += 1
        before = self.database().serialize() if what in ("grant", "end", "account") else b""
        getattr(self, what.replace(" ", "_"))(detail)
        news = self.front(self.writer).news
        if news._events or news._written:
            self.past.append((self.clock(), before))
        news.flush()

    def database(self) -> sqlite3.Connection:
        connection = self.writer._db.engine.raw_connection().driver_connection
        assert isinstance(connection, sqlite3.Connection)
        return connection

    def grant(self, n: int) -> None:
        decision = self.writer.admit(
            account="u", operation="clip", attributes={"n": n}, key=self.key()
        )
        if isinstance(decision, Grant):
            self.grants.append(decision.id)

    def end(self, how: str) -> None:
        if not self.grants:
            return
        try:
            if how == "settle":
                self.writer.settle(self.grants.pop(0))
            elif how == "release":
                self.writer.release(self.grants.pop(), reason="failed")
            else:
                self.writer.extend(self.grants[-1], timedelta(seconds=60))
        except ComptrollerError:
            self.grants.clear()

    def account(self, what: str) -> None:
        if what == "buy":
            self.writer.record_purchase("u", pack="three", reference=self.key())
        elif what == "freeze":
            self.writer.freeze("u", reason="chargeback")
        elif what == "thaw":
            self.writer.unfreeze("u")
        else:
            self.writer.set_plan("u", what)

    def state(self, _: None) -> None:
        self.front(self.writer).news.unknown("u")

    def wait(self, seconds: float) -> None:
        self.clock.advance(timedelta(seconds=seconds))

    # --- what Redis hears ---------------------------------------------------------------------

    def deliver(self, which: int) -> None:
        if self.waiting:
            self.send(self.waiting.pop(which % len(self.waiting)))

    def deliver_again(self, which: int) -> None:
        if self.told:
            self.send(self.told[-1 - which % len(self.told)])

    def deliver_all(self, in_order: bool) -> None:
        messages, self.waiting = self.waiting, []
        for message in messages if in_order else reversed(messages):
            self.send(message)

    def refresh(self, _: None) -> None:
        """Tell what SQL says of the whole account, and that it is heard."""
        self.state(None)
        self.front(self.writer).news.flush()
        self.deliver_all(in_order=True)

    def lose(self, what: str) -> None:
        if what == "what waits":
            self.waiting.clear()
        else:
            self.server.flush()

    def send(self, message: tuple[bytes, list[Argument]]) -> None:
        self.told.append(message)
        front = self.front(self.asker)
        REACHED[f"told {message[1][0]!s}: {front.redis.run(front.script, *message)}"] += 1

    # --- what Redis answers -------------------------------------------------------------------

    def ask(self, n: int) -> None:
        """Ask Redis through the other process, and compare a denial with what SQL says now."""
        ask = Ask("u", "clip", {"n": n}, self.key(), None, None, consent=False, not_after=None)
        front = self.front(self.asker)
        told = front.decide(POLICIES, ask)
        REACHED[f"answered {type(told).__name__}"] += 1
        if isinstance(told, Passed) and n % 2:
            front.news.undone("u", told.print)
            front.news.flush()
        denial = denial_of(told, POLICIES, ask) if isinstance(told, Refused) else told
        if not isinstance(denial, Denial):
            return
        truth = self.estimated(self.asker, n)
        if said(truth) == said(denial):
            REACHED[f"right: {denial.reason}"] += 1
            return
        was = [said(each) for each in self.was_so(n, FRESHNESS[denial.plan])]
        assert said(denial) in was, f"{denial}\n  {truth}"
        REACHED["right a moment ago"] += 1

    @staticmethod
    def estimated(comptroller: Comptroller, n: int) -> Decision:
        return comptroller.estimate(account="u", operation="clip", attributes={"n": n})

    def was_so(self, n: int, within: timedelta) -> Iterator[Decision]:
        """Yield what SQL would say now on what it knew at some instant within a length of time."""
        for until, content in self.past:
            if self.clock() - until <= within:
                database = sqlite3.connect(
                    ":memory:", isolation_level=None, check_same_thread=False
                )
                database.deserialize(content)
                engine = create_engine("sqlite://", creator=lambda: database, poolclass=StaticPool)  # noqa: B023
                with Comptroller.open(POLICIES, engine, clock=self.clock) as then:
                    yield self.estimated(then, n)
                engine.dispose()


def said(denial: Decision) -> tuple[Any, ...] | None:
    if not isinstance(denial, Denial):
        return None
    return (denial.reason, denial.at, denial.findings, denial.retry_at, denial.offers)


ROUNDS_MAX = 10
REASONS = (
    "allowance_exhausted",
    "rate_exceeded",
    "concurrency_exceeded",
    "account_frozen",
    "usage_exceeded",
)
WANTED = [
    *(f"right: {reason}" for reason in REASONS),
    *(f"told {op}: {told}" for op in "psug" for told in (0, 1)),
    "right a moment ago",
    "answered Passed",
]


def test_no_denial_is_wrong_for_longer_than_news_may_be_old(redis_server):
    @settings(max_examples=settings().max_examples, phases=[Phase.generate])
    @given(steps=STEPS)
    def programs(steps: list[tuple[str, Any]]) -> None:
        with ExitStack() as stack:
            stage = Stage(stack, redis_server)
            for what, detail in steps:
                stage.happen(what, detail)

    programs()
    for number in range(ROUNDS_MAX):
        missed = [event for event in WANTED if not REACHED[event]]
        if not missed:
            return
        seed(number)(programs)()
    raise AssertionError(f"never happened: {missed}")
