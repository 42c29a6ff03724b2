"""Budgets behind Redis: what they have spent is shared by all accounts, and no account's key can hold it."""

from __future__ import annotations

import pytest

from quota import Denial, Grant
from quota.prefilter import budgets as budgets_module
from quota.prefilter.answers import Verdict
from quota.prefilter.budgets import BudgetMemory
from tests.prefilter.behind import behind, two_processes
from tests.world import SECTIONS, START

PLANS = """
default_plan: own
plans:
  own: {sources: [{kind: daily_allowance, units: 5}]}
budgets:
  day: {usd_per_day: 0.1}
"""  # a clip of n costs n cents
DENIED = ("allowance_exhausted", "redis")


@pytest.fixture
def world(redis_url):
    with behind(redis_url, SECTIONS + PLANS) as opened:
        opened.ask(5)
        opened.ask(5)
        yield opened


def spent(decision: Grant | Denial) -> int | None:
    return next(found.used for found in decision.findings if found.policy == "day")


def test_a_denial_by_redis_says_what_budgets_have_spent(world):
    denial = world.ask()
    assert (denial.reason, denial.decided_by, spent(denial)) == (*DENIED, 50_000)


def test_it_never_says_less_than_this_process_has_spent(world):
    world.ask(4, account="v")
    denial = world.ask()
    assert spent(denial) == 90_000
    world.learn()
    denial = world.ask()
    assert (denial.decided_by, spent(denial)) == ("redis", 90_000)


def test_what_was_read_before_a_commit_of_ours_is_not_remembered_after_it(world):
    memory = world.front._budgets
    epoch = memory.epoch
    world.grant(1, account="w")
    memory.remember({("day", world.clock()): 1}, epoch)
    assert world.said() == ("allowance_exhausted", "sql"), "how much was spent is not known"
    denial = world.ask()
    assert (denial.decided_by, spent(denial)) == ("redis", 60_000)


def test_another_process_says_what_was_so_two_seconds_ago_at_most(redis_url, tmp_path, monkeypatch):
    seconds = [100.0]
    monkeypatch.setattr(budgets_module, "monotonic_seconds", lambda: seconds[0])
    with two_processes(redis_url, tmp_path, SECTIONS + PLANS) as (one, other):
        for process in (one, other):
            process.ask(5)
            process.ask(5)
        assert spent(other.ask()) == 50_000
        one.ask(4, account="v")
        one.learn()
        denial = other.ask()
        assert (denial.decided_by, spent(denial)) == ("redis", 50_000)
        seconds[0] += 2.1
        assert spent(other.ask()) == 90_000


def test_an_exhausted_budget_is_found_by_sql_and_leaves_redis_as_it_is(world):
    world.ask(4, account="v")
    world.learn("x")
    seen = world.verdicts()
    for _ in range(2):
        assert world.said(5, account="x") == ("budget_exhausted", "sql")
        assert world.known("x").leases == (), "what was noted is undone"
    assert set(seen) == {Verdict.PASSED}
    assert world.front.news._unknown == {}, "it would not help Redis to hear of the account again"


def test_memory_is_empty_until_told_and_after_each_commit_of_ours():
    memory = BudgetMemory()
    assert memory.spent([], START) is None
    memory.remember({}, memory.epoch)
    assert memory.spent([], START) == {}
    memory.forget()
    assert memory.spent([], START) is None
