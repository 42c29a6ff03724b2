"""A scenario: rounds of load with faults in their middle, and after each round everything that must be true.

Every fault comes in turn, in an order that the seed chooses. Where the load has not yet met an outcome that it is
there to meet, it goes on for some rounds more.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from datetime import timedelta
from itertools import chain, cycle
from pathlib import Path
from typing import Any, Final, Literal

from quota import Comptroller, Grant
from quota.prefilter.program import CREDITS_FRESH, FRESH
from tests.faults.arena import Arena, an_arena, redis_key
from tests.faults.books import read_books
from tests.faults.checks import all_wrong
from tests.faults.clock import MICROSECOND
from tests.faults.faults import BRINGS, EVERY
from tests.faults.journal import Entry, described
from tests.faults.outcomes import Outcome, outcomes_of, table
from tests.faults.plan import units_of

SEED: Final = int(os.environ.get("COMPTROLLER_FAULTS_SEED", "1"))
ROUNDS: Final = int(os.environ.get("COMPTROLLER_FAULTS_ROUNDS", "0"))
"""None: as many as it takes for every fault to come once."""
OPERATIONS: Final = 20
"""Of each lane in one round."""
MORE_ROUNDS: Final = 6
"""After so many rounds more without an outcome, it was never reached."""
STEPS: Final = tuple(timedelta(seconds=each) for each in (0.2, 1, 4, 11, 25, 45))
PAUSES: Final = tuple(timedelta(minutes=each) for each in (0, 6, 45, 700))
REPLAYS: Final = 10
EXHAUSTED_BY: Final = 20
"""Requests: these accounts have less than that many times what is asked for."""


def survive(
    title: str,
    folder: Path,
    *,
    database: Literal["sqlite", "postgresql"],
    faults: Sequence[Iterable[str]],
    must: Iterable[Outcome],
    cluster: bool = False,
    budget: bool = False,
) -> None:
    """Run a scenario: `faults`, one of each list at once; `must`: outcomes that it fails without.

    `budget`: each grant is charged to one. Then Redis denies little: what budgets have spent it does not know.

    Raises:
        AssertionError: something was wrong, or an outcome was never reached.
    """
    with an_arena(folder, seed=SEED, database=database, cluster=cluster, budget=budget) as arena:
        wanted, lists = list(must), [list(each) for each in faults]
        for each in lists:
            arena.rng.shuffle(each)
        rounds = ROUNDS or max(map(len, lists))
        turns, possible = [cycle(each) for each in lists], set(chain(*lists))
        for number in range(rounds + MORE_ROUNDS):
            missing = _missing(arena, wanted)
            if arena.wrong or (number >= rounds and not missing):
                break
            again = sorted(possible & set(chain(*(BRINGS.get(each, ()) for each in missing))))
            in_turn = [next(each) for each in turns]
            _round(arena, again[:1] if number >= rounds and again else in_turn)
        _finish(arena, title, wanted)


def _round(arena: Arena, names: Sequence[str]) -> None:
    arena.crew.go(OPERATIONS)
    marks = sorted(arena.rng.uniform(0.05, 0.95) for _ in range(8))
    steps = [arena.rng.choice(STEPS) for _ in marks]
    begin, end = arena.rng.uniform(0.05, 0.3), arena.rng.uniform(0.6, 0.8)

    def go_on(part: float) -> None:
        while marks and marks[0] <= part:
            arena.crew.reach(marks.pop(0))
            arena.clock.advance(steps.pop(0))
        arena.crew.reach(part)

    go_on(begin)
    with ExitStack() as healing:
        for name in names:
            healing.enter_context(EVERY[name](arena))
            arena.faults[name] += 1
        go_on(end)
    go_on(1)
    arena.crew.finish()
    _look(arena)
    arena.clock.advance(arena.rng.choice(PAUSES))


# --- what must be true after a round ------------------------------------------------------------


def _look(arena: Arena) -> None:
    with arena.opened(redis=False) as plain, arena.opened(redis=True) as fronted:
        if arena.is_cold:
            arena.is_cold = False
            arena.reached[Outcome.REBUILT] += _is_warm(arena)
        _nobody_stays_denied(arena, plain, fronted)
        _replays_bring_the_first_grant(arena, (plain, fronted))
        arena.wrong.extend(str(each) for each in plain.verify())
    books = read_books(arena.database)
    arena.wrong.extend(all_wrong(books, arena.entries()))
    if arena.budget != any(books.budgets.values()):
        arena.wrong.append(f"budgets: {books.budgets} was charged")


def _is_warm(arena: Arena) -> bool:
    key = redis_key("free")
    if "redis" in arena.servers:
        return bool(arena.redis.run("EXISTS", key))
    port = arena.cluster.primary_of(arena.cluster.slot_of(key))
    return bool(arena.cluster.at(port).run("EXISTS", key))


def _nobody_stays_denied(arena: Arena, plain: Comptroller, fronted: Comptroller) -> None:
    """After the documented bound Redis denies nobody whom SQL alone would grant; nor does it change another answer."""
    for account, units in (("free", 3), ("paid", 9)):
        _news_are_lost(arena, plain, fronted, account, units)
    arena.clock.advance(CREDITS_FRESH + MICROSECOND)
    _same_answers(arena, plain, fronted, "paid")
    arena.clock.advance(FRESH - CREDITS_FRESH)
    for account in ("free", "fast", "paid"):
        _same_answers(arena, plain, fronted, account)
    ping = _ask(arena, fronted, "ping", "probe", {})
    if not ping or ping.decided_by != "redis":
        arena.wrong.append(f"long after all faults, a request for limits only brought {ping}")
    assert fronted._front is not None
    if set(fronted._front.redis.states.values()) != {"closed"}:
        arena.wrong.append("long after all faults, Redis is not asked")


def _news_are_lost(
    arena: Arena, plain: Comptroller, fronted: Comptroller, account: str, units: int
) -> None:
    """Let Redis know that nothing is left, then free it all without a word, as one does who dies after his commit."""
    assert fronted._front is not None
    granted = []
    for _ in range(EXHAUSTED_BY):
        answer = _ask(arena, fronted, "clip", account, {"n": units})
        if isinstance(answer, Grant):
            granted.append(answer)
        elif answer.decided_by == "redis":
            break
        fronted._front.news.flush()
    for grant in granted:
        plain.release(grant.id, reason="failed")
    plain.add_credits(account, units=units, reference=f"unheard-{len(arena.asked)}")
    denied = _ask(arena, fronted, "clip", account, {"n": units})
    arena.reached[Outcome.STALE] += not denied and denied.decided_by == "redis"


def _same_answers(arena: Arena, plain: Comptroller, fronted: Comptroller, account: str) -> None:
    for units in (5, 1):
        asked: dict[str, Any] = {
            "account": account,
            "operation": "clip",
            "plan": account,
            "attributes": {"n": units},
        }
        expected = plain.estimate(**asked)
        answer = _ask(arena, fronted, "clip", account, {"n": units})
        if (bool(expected), _said(expected)) != (bool(answer), _said(answer)):
            arena.wrong.append(f"SQL alone says {expected}, and with Redis in front it is {answer}")


def _said(decision: Any) -> object:
    if isinstance(decision, Grant):
        return [(part.source, part.units, part.lot_id) for part in decision.allocations]
    return decision.reason, decision.retry_at


def _ask(
    arena: Arena, comptroller: Comptroller, operation: str, account: str, attributes: Any
) -> Any:
    key = f"conductor-{len(arena.asked)}"
    answer = comptroller.admit(
        account=account, operation=operation, plan=account, attributes=attributes, key=key
    )
    _note(arena, account, key, answer)
    return answer


def _note(arena: Arena, account: str, key: str, answer: Any) -> None:
    number = len(arena.asked)
    entry = Entry(
        "conductor", number, 0, "admit", account, key, shared=True, answer=described(answer)
    )
    arena.asked.append(entry)


def _replays_bring_the_first_grant(arena: Arena, faces: Sequence[Comptroller]) -> None:
    """Of what was acknowledged and of what nobody knows of; whether it is the same grant, `all_wrong` sees."""
    entries = [entry for entry in arena.crew.entries() if entry.kind in ("admit", "commit")]
    known = [entry for entry in entries if "allocations" in (entry.answer or {})]
    unknown = [entry for entry in entries if not entry.answer or "error" in entry.answer]
    for some in (known, unknown):
        for entry in arena.rng.sample(some, min(REPLAYS, len(some))):
            asked: dict[str, Any] = {
                "account": entry.account,
                "operation": "clip",
                "plan": entry.account,
                "attributes": {"n": units_of(entry.account, entry.key)},
                "key": entry.key,
            }
            for comptroller in faces:
                answer = comptroller.admit(**asked)
                _note(arena, entry.account, entry.key, answer)
                if some is known and not (entry.answer or {}).get("host") and not answer:
                    arena.wrong.append(f"{entry} was replayed, and {answer}")


# --- the end ------------------------------------------------------------------------------------


def _outcomes(arena: Arena) -> Counter[Outcome]:
    counted = outcomes_of(arena.crew.entries()) + arena.reached
    counted[Outcome.UNDONE] += arena.crew.told()["u"]
    return counted


def _missing(arena: Arena, wanted: Iterable[Outcome]) -> list[Outcome]:
    counted = _outcomes(arena)
    return [each for each in wanted if not counted[each]]


def _finish(arena: Arena, title: str, wanted: Iterable[Outcome]) -> None:
    counted = _outcomes(arena)
    operations = len(arena.crew.entries())
    arena.wrong.extend(arena.crew.close())
    said = table(title, operations, arena.faults, counted)
    print(said)
    missing = [each.value for each in _missing(arena, wanted)]
    again = (
        f"COMPTROLLER_FAULTS_SEED={SEED} COMPTROLLER_FAULTS_ROUNDS={ROUNDS} "
        f"pytest {os.environ.get('PYTEST_CURRENT_TEST', '').split(' ')[0]}"
    )
    listed = "\n".join(arena.wrong[:20])
    assert not arena.wrong, f"{said}\n{listed}\n{len(arena.wrong)} things are wrong. Again: {again}"
    assert not missing, f"{said}\nnever reached: {missing}. Again: {again}"
