"""Real processes under one budget on PostgreSQL: the cap holds, and those that crash do not drain it."""

from __future__ import annotations

import json
import random

import pytest

from quota.budgets import Terms
from tests.databases import a_database
from tests.processes.budgets import capped, started
from tests.world import World, a_world

CENT = 10_000
PROCESSES = 3
KILLED = 6


@pytest.fixture
def database(tmp_path):
    with a_database("postgresql", tmp_path) as url:
        yield url


def granted_micro_usd(world: World) -> int:
    ((total,),) = world.rows("SELECT coalesce(sum(gpu_cost_micro_usd), 0) FROM comptroller_grant")
    return int(total)


def spend(world: World, micro_usd: int) -> None:
    """Be granted so much in few requests, none of which is denied."""
    while units := min(micro_usd // CENT, 1000):
        world.grant(units, account="healthy")
        micro_usd -= units * CENT


def finish(world: World, limit: int) -> None:
    """Spend all that is left, to the last cent."""
    spend(world, limit - granted_micro_usd(world))
    assert world.deny(account="healthy").reason == "budget_exhausted"
    assert granted_micro_usd(world) == limit


def test_the_estimates_of_a_day_never_pass_the_cap_whoever_grants(database):
    limit = 400 * CENT
    processes = [started(database, f"p{number}", 4, 1000) for number in range(PROCESSES)]
    told = [process.communicate(timeout=300)[0].splitlines()[-1] for process in processes]
    counts = [tuple(each) for line in told for each in json.loads(line)]
    assert {reason for _, reason in counts} == {"budget_exhausted"}
    with a_world(capped(4), database=database) as world:
        spent = granted_micro_usd(world)
        assert spent == CENT * sum(count for count, _ in counts)
        assert limit - limit // Terms().share <= spent <= limit
        # All have closed, so that nothing is leased any more.
        if spent < limit:
            finish(world, limit)


def test_processes_that_are_killed_again_and_again_do_not_drain_a_budget(database):
    chance = random.Random(7)
    limit = 2_000 * CENT
    with a_world(capped(20), database=database) as world:
        for number in range(KILLED):
            process = started(database, f"p{number}", 20)
            assert process.stdout is not None
            for _ in range(chance.randrange(1, 30)):
                assert process.stdout.readline() == ".\n"
            process.kill()
            process.communicate()
        while world.rows("SELECT 1 FROM pg_stat_activity WHERE application_name = ?", "killed"):
            pass  # the server is still doing what they had asked for
        held = "SELECT coalesce(sum(leased_micro_usd - spent_micro_usd), 0) FROM comptroller_budget_block"
        ((left_behind,),) = world.rows(held)
        spent = granted_micro_usd(world)
        # They have ended in the middle of leases and grants, and hold no more than an eighth of what was left.
        assert 0 < left_behind <= limit // Terms().share
        spend(world, limit - spent - int(left_behind))
        world.clock.advance(Terms().lease + Terms().grace)
        finish(world, limit)
