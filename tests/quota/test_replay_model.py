"""Replay against a model that shares no code with it, on traces that are made of edges."""

from __future__ import annotations

import heapq
import random
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from math import ceil

import pytest

from policies import PolicySet
from quota.replay import replay
from quota.traces import read_trace

UNITS = 3
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
START = datetime(2026, 3, 28, 22, tzinfo=UTC)
POLICIES = f"""
schema: 1
gpus: {{a10: {{usd_per_hour: 1.10}}}}
operations:
  image.generate:
    attributes: {{images: {{type: integer, default: 1, min: 1, max: {UNITS}}}}}
    weight: {{each: {{images: 1}}}}
    gpu_cost: {{gpu: a10, gpu_seconds: {{base: 8, each: {{images: 3.5}}}}}}
    hold_for: 1h
plans:
  rolling: {{sources: [{{kind: daily_allowance, units: {UNITS}}}]}}
default_plan: rolling
on_release: {{failed: {{units: return}}}}
"""
# Ties, exact days, expiries to the microsecond.
STEPS = [timedelta(0), timedelta(microseconds=1), timedelta(minutes=30), HOUR, 6 * HOUR, DAY]
SECONDS = ["", "0", "0.5", "1800", "3599.999999", "3600", "90000"]


def trace(seed: int, rows: int = 70) -> list[list[str]]:
    chance = random.Random(seed)
    at, made = START, []
    for _ in range(rows):
        at += chance.choice(STEPS)
        status = chance.choice(["succeeded", "failed", "open"])
        cells = [at.isoformat(), chance.choice("AB"), "image.generate", status]
        made.append([*cells, chance.choice(SECONDS), str(chance.randint(1, UNITS))])
    return made


def price(seconds: Fraction) -> int:
    return ceil(seconds * Fraction("1.10") / 3600 * 10**6)


def model(rows: list[list[str]]) -> dict:
    counts: Counter[str] = Counter()
    taken: dict[str, dict[int, tuple[datetime, int]]] = defaultdict(dict)
    units, estimated, actual = 0, 0, 0
    ends: list[tuple[datetime, int, str, int, str, Fraction]] = []
    for number, (instant, account, _, status, seconds, images) in enumerate(rows):
        at, asked = datetime.fromisoformat(instant), int(images)
        while ends and ends[0][0] <= at:
            _, which, whose, size, how, spent = heapq.heappop(ends)
            counts[how] += 1
            actual += price(spent)
            if how != "settled":
                taken[whose].pop(which)
                units -= size
        in_window = sum(size for since, size in taken[account].values() if at - since < DAY)
        if in_window + asked > UNITS:
            counts["denied"] += 1
            continue
        counts["granted"] += 1
        taken[account][number] = (at, asked)
        units += asked
        estimated += price(8 + Fraction("3.5") * asked)
        ending = {"succeeded": "settled", "failed": "released"}.get(status)
        if ending and seconds and Fraction(seconds) < 3600:
            spent = Fraction(seconds)
            after = timedelta(microseconds=int(spent * 10**6))
            heapq.heappush(ends, (at + after, number, account, asked, ending, spent))
        else:
            heapq.heappush(ends, (at + HOUR, number, account, asked, "expired", Fraction(0)))
    return {
        **{name: counts[name] for name in ("granted", "denied", "settled", "released", "expired")},
        "open": len(ends),
        "units": {"daily_allowance": units},
        "gpu_cost_micro_usd": {"estimated": estimated, "actual": actual},
    }


@pytest.mark.parametrize("seed", range(6))
def test_replay_says_what_the_model_says(seed):
    rows, policy_set = trace(seed), PolicySet.parse(POLICIES)
    header = "at,account,operation,status,gpu_seconds,attr.images\n"
    lines = [header, *(",".join(cells) + "\n" for cells in rows)]
    found = replay(read_trace(lines, "csv", policy_set, name="t"), policy_set).as_dict()
    expected = model(rows)
    assert {name: found[name] for name in expected} == expected
    assert expected["denied"]
    assert expected["expired"]
