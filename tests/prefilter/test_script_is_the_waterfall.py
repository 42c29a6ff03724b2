"""The script and the waterfall are one: on whatever state, the same requests pass, and the same denials come of it."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
import redis
from hypothesis import Phase, given, settings

from policies.advice import advise
from policies.instants import micros
from policies.state import LotView
from policies.waterfall import decide
from policies.window import Zones
from quota.prefilter.answers import Verdict, answered, asked
from quota.prefilter.compiler import Compiler
from quota.prefilter.facts import Facts
from quota.prefilter.packing import RETURNS, packed
from quota.prefilter.prints import key_print, member_print, redis_key
from quota.prefilter.script import script_text
from quota.prefilter.state import AccountState, Lease, Taken
from quota.prefilter.unpacking import unpacked
from tests.prefilter.blobs import UNCONFIRMED, rows_of
from tests.prefilter.worlds import ACCOUNT, START, World, parsed, worlds

SCRIPT = script_text()
REACHED: Counter[str] = Counter()
LIVES = timedelta(seconds=5)
"""So long what SQL has not confirmed."""


@pytest.fixture(scope="module")
def server(redis_server: Any) -> Any:
    with redis.Redis.from_url(redis_server.url) as client:
        yield client


def decided(server: Any, world: World) -> list[Any] | None:
    """Put the world's state into Redis, and ask its script."""
    compiler = Compiler(world.policy_set)
    rules = world.policy_set.rules("p", world.request.operation)
    program = compiler.program(rules, world.request, world.circumstances, world.now)
    blob = packed(world.state)
    assert blob is not None
    if program is None:
        return None
    key, now = redis_key(ACCOUNT), micros(world.now)
    server.delete(key)
    assert server.eval(SCRIPT, 1, key, "p", now, 60_000, blob, 0) == 1
    own, member = key_print(ACCOUNT, "new"), member_print(ACCOUNT, world.member)
    args = asked(now, 2**52, own, world.state.facts.text, program.data, member)
    return answered(server.eval(SCRIPT, 1, key, *args))


def noted(blob: bytes, world: World) -> Counter[str]:
    """Return the units that the script has noted for the key it was asked about, by source."""
    rows, own = rows_of(blob), key_print(ACCOUNT, "new")
    (lease,) = (lease for lease in rows.leases if lease.print == own)
    member = member_print(ACCOUNT, world.member)
    assert (lease.expires_at, lease.member) == (world.now + LIVES, member)
    assert lease.flags == UNCONFIRMED | RETURNS
    names, found = Compiler(world.policy_set).names, Counter[str]()
    for use in rows.uses:
        if use.print == own:
            assert (use.at, use.member) == (world.now, member)
            assert use.paid == (names[use.source] == "credits")
            found[names[use.source]] += use.units
    return found


@settings(max_examples=1500, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(worlds())
def test_the_script_passes_what_the_waterfall_grants_and_nothing_else(server, world):
    answer = decided(server, world)
    if answer is None:
        return
    verdict, now, *rest = answer
    rules = world.policy_set.rules("p", "make")
    history = world.state.history()
    decision = decide(world.request, rules, world.circumstances, history, world.now)
    REACHED[Verdict(verdict).name] += 1
    if verdict == Verdict.MAYBE_REPLAYED:
        return
    assert now == micros(world.now)
    due = any(lease.from_lots and lease.expires_at <= world.now for lease in world.state.leases)
    if decision.granted:
        assert verdict == Verdict.PASSED or due
        if verdict == Verdict.PASSED:
            taken = Counter(part.source for part in decision.allocations for _ in range(part.units))
            assert noted(server.get(redis_key(ACCOUNT)), world) == taken
        return
    if due:
        assert verdict == Verdict.DOUBTFUL
        return
    assert verdict == Verdict.DENIED
    told = unpacked(rest[0], Compiler(world.policy_set).names).history()
    again = decide(world.request, rules, world.circumstances, told, world.now)
    assert again == decision
    question = (world.policy_set, rules, world.request, world.circumstances)
    assert advise(*question, told, world.now) == advise(*question, history, world.now)


def test_what_lots_pay_is_asked_of_sql_while_units_are_due_to_come_back_to_them(server):
    """Credits are first in line and empty, but an expired grant's unit comes back to them: they pay, not the day's."""
    policy_set = parsed(
        {
            "schema": 1,
            "currency": "usd",
            "operations": {"make": {"gpu_cost": {"usd": "0.01"}, "hold_for": "1h"}},
            "plans": {
                "p": {
                    "sources": [
                        {"kind": "credits"},
                        {"kind": "allowance", "name": "free", "units": 5, "per": "24h"},
                    ],
                    "paid_use": "auto",
                }
            },
            "default_plan": "p",
            "packs": {"ten": {"units": 10, "price": {"usd": "4.00"}}},
        }
    )
    lot = LotView("lot_7_1", 10, 400, "usd", 0, 0, None, START - timedelta(days=1), 1)
    print_, member = key_print(ACCOUNT, "old"), member_print(ACCOUNT, None)
    state = AccountState(
        seq=9,
        at=START,
        facts=Facts(None, Zones("UTC"), None, None, False),
        book_id=7,
        rates={},
        lots=(lot,),
        leases=(Lease(START, member, print_, True, True),),
        uses=(Taken("credits", START - timedelta(hours=1), 1, member, print_, (1, 40, "usd")),),
        keys=(print_,),
        reach=400 * 86_400_000_000,
    )
    request = policy_set.request("make", {}, None, False)
    world = World(policy_set, request, state.facts.circumstances("p"), state, None, START)

    decision = decide(
        request, policy_set.rules("p", "make"), world.circumstances, state.history(), START
    )

    assert [part.source for part in decision.allocations] == ["credits"]
    assert decided(server, world) == [Verdict.DOUBTFUL, micros(START)]
