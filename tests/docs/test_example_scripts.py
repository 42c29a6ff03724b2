"""The limiter and the what-if of docs/examples run for real."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal

import pytest

import limiter
import what_if
from policies import PolicySet
from policies.diff import diff
from quota.edges import cli
from quota.testing import FakeClock, assert_books_sound
from video_app.product import POLICIES

# --- the limiter ---------------------------------------------------------------------------------


@pytest.fixture(params=["nothing", "redis"])
def limiters(request, monkeypatch):
    """Two processes' limiters, as far as they share anything, and their clock. Without Redis there is but one."""
    clock = FakeClock()
    if request.param == "nothing":
        monkeypatch.delenv("COMPTROLLER_REDIS", raising=False)
        with limiter.opened(clock) as alone:
            yield [alone, alone], clock
            assert_books_sound(alone.comptroller)
        return
    monkeypatch.setenv("COMPTROLLER_REDIS", request.getfixturevalue("redis_url"))
    with limiter.opened(clock) as one, limiter.opened(clock) as other:
        yield [one, other], clock
        for each in (one, other):
            assert each.comptroller.grants("caller") == []  # SQL has not heard of them


def test_the_limiter_is_exact_whoever_calls_at_once(limiters):
    several, clock = limiters

    def calls_that_go_on(count: int) -> int:
        with ThreadPoolExecutor(8) as threads:
            waits = list(threads.map(lambda n: several[n % 2].wait("caller"), range(count)))
        return waits.count(timedelta(0))

    assert calls_that_go_on(40) == 5  # the burst
    assert several[0].wait("caller") == timedelta(seconds=2)  # 30 a minute
    clock.advance(seconds=2, microseconds=-1)
    assert calls_that_go_on(10) == 0
    clock.advance(microseconds=1)
    assert calls_that_go_on(10) == 1


def test_the_limiter_knows_callers_and_plans_apart(limiters):
    (one, _), _ = limiters
    assert [bool(one.wait("caller")) for _ in range(6)] == [False] * 5 + [True]
    assert not one.wait("somebody else")
    assert [bool(one.wait("big", plan="pro")) for _ in range(51)] == [False] * 50 + [True]


def test_the_limiter_prints_what_its_callers_would_get(monkeypatch, capsys):
    monkeypatch.delenv("COMPTROLLER_REDIS", raising=False)
    limiter.main()
    said = capsys.readouterr().out.splitlines()
    assert said[4] == "call 5: 200"
    assert said[6].startswith("call 7: 429, Retry-After 0:00:0")


# --- what if -------------------------------------------------------------------------------------


def what_if_said(capsys, *arguments: str) -> list[list[str]]:
    what_if.main(arguments)
    return [row.split() for row in capsys.readouterr().out.splitlines()]


def test_a_lower_allowance_denies_more_sells_more_and_saves(capsys):
    header, today, four, two = what_if_said(capsys)
    assert (" ".join(header[:3]), today[:2]) == ("free units denied", ["as", "today"])
    assert (four[0], two[0]) == ("4", "2")
    denied = [int(each[-5]) for each in (today, four, two)]
    sold, earned, cost, saved = (
        [Decimal(each[column].removeprefix("$")) for each in (today, four, two)]
        for column in (-4, -3, -2, -1)
    )
    assert denied == sorted(set(denied))
    assert sold == sorted(set(sold))
    assert all(mine <= total for mine, total in zip(earned, sold, strict=True))
    assert saved == [cost[0] - each for each in cost]
    assert 0 == saved[0] < saved[1] < saved[2]


def test_without_buyers_nothing_is_sold_and_the_rest_is_what_replay_says(capsys, tmp_path):
    _, today, two = what_if_said(capsys, "--buyers", "0", "--units", "2")
    assert today[-4:-2] == two[-4:-2] == ["$0.00", "$0.00"]
    totals = tmp_path / "totals.json"
    arguments = ["replay", what_if.HERE / "demand.csv", "--format", "csv", "--policies", POLICIES]
    assert cli.run([str(each) for each in [*arguments, "--json", totals]]) == 0
    replayed = json.loads(totals.read_text())
    assert int(today[-5]) == replayed["denied"]
    assert Decimal(today[-2][1:]) * 10**6 == replayed["gpu_cost_micro_usd"]["actual"]


def test_who_buys_uses_what_was_bought_and_buys_three_packs_at_most(capsys, tmp_path):
    start = FakeClock().now
    lines = ["at,account,operation,status,gpu_seconds,attr.seconds"]
    for number in range(45):
        at = (start + timedelta(minutes=2 * number)).isoformat()
        lines.append(f"{at},ann,video.generate,succeeded,60,5")
    trace = tmp_path / "trace.csv"
    trace.write_text("\n".join(lines))
    asked = ["--trace", str(trace), "--units", "6"]
    _, today, _ = what_if_said(capsys, *asked, "--buyers", "100")
    assert today[-5:-2] == ["9", "$12.00", "$12.00"]  # 6 free, 30 bought
    _, today, _ = what_if_said(capsys, *asked, "--buyers", "0")
    assert today[-5:-2] == ["39", "$0.00", "$0.00"]


def test_an_allowance_is_only_ever_lowered_and_nothing_else_changes():
    policy_set = PolicySet.load(POLICIES)
    assert [str(change) for change in diff(policy_set, what_if.lowered(policy_set, 2))] == [
        "plan standard: daily_allowance 6 -> 2 units per rolling 24h"
    ]
    assert what_if.lowered(policy_set, 7).version == policy_set.version
