"""Budgets leased in blocks: what is at hand, what is left to others, and what comes back when."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from policies.policy_set import PolicySet
from quota import Comptroller, Denial, Grant
from quota.budgets import Terms
from quota.testing import FakeClock
from tests.hosts.host import on_driver
from tests.world import DAY, START, World, a_world, discrepancies, plan

CENT = 10_000
"""Micro-dollars that one unit is estimated at."""

FREE = "{paid_use: auto, sources: [{kind: daily_allowance, units: 100000}]}"
NEXT = "{paid_use: auto, sources: [{kind: daily_allowance, units: 100000}, {kind: credits}]}"
LEASE, GRACE = Terms().lease, Terms().grace
Opening = Callable[..., World]


def capped(usd_per_day: Any, *, sources: str = FREE, more: str = "") -> PolicySet:
    return plan(sources, more=f"budgets: {{all: {{usd_per_day: {usd_per_day}}}{more}}}")


@pytest.fixture
def opening(database) -> Iterator[Opening]:
    """Return what opens one more process's Comptroller on the same database, on one clock. All end sound."""
    with ExitStack() as stack:
        clock = FakeClock(START)

        def opened(policy_set: PolicySet) -> World:
            world = stack.enter_context(a_world(policy_set, database=database))
            world.comptroller._clock = clock
            world.clock = clock
            return world

        yield opened


def days(world: World) -> list[Any]:
    columns = "name, spent_micro_usd, leased_micro_usd, blocks"
    return world.rows(f"SELECT {columns} FROM comptroller_budget_day ORDER BY starts_at, name")


def blocks(world: World) -> list[Any]:
    columns = "name, number, leased_micro_usd, spent_micro_usd"
    return world.rows(
        f"SELECT {columns} FROM comptroller_budget_block ORDER BY starts_at, name, number"
    )


def used(decision: Grant | Denial, budget: str = "all") -> int:
    return {found.policy: found.used for found in decision.findings}[budget]


def crash(world: World) -> None:
    """Let a process end without a word: nothing is returned."""
    world.comptroller._db.holder.leased = False  # type: ignore[union-attr]
    world.comptroller._db.engine.dispose()


def test_a_grant_is_charged_to_a_block_and_its_record_names_it(opening):
    world = opening(capped(1000))
    grant = world.grant()
    assert blocks(world) == [("all", 1, 16 * CENT, CENT)]
    assert days(world) == [("all", 0, 16 * CENT, 1)]
    (body,) = world.rows("SELECT body FROM comptroller_record WHERE kind = 'grant'")[0]
    assert b'"budgets":[["all",' in bytes(body)
    assert b",10000,1]]" in bytes(body)
    assert world.comptroller.explain(grant.id).same


def test_what_was_used_is_what_grants_have_spent_not_what_is_leased(opening):
    world, other = opening(capped(1000)), opening(capped(1000))
    assert used(world.grant(3)) == 0
    assert used(other.grant(account="v")) == 3 * CENT
    assert used(world.grant()) == 4 * CENT


def test_a_block_that_is_spent_within_a_second_is_followed_by_one_twice_as_large(opening):
    world = opening(capped(1000))
    for _ in range(17):
        world.grant()
    assert blocks(world) == [("all", 2, 32 * CENT, CENT)]
    assert days(world) == [("all", 16 * CENT, 32 * CENT, 2)]
    for _ in range(31):
        world.grant()
    world.clock.advance(timedelta(seconds=9))
    world.grant()
    assert blocks(world) == [("all", 3, 16 * CENT, CENT)]


def test_all_blocks_together_hold_no_more_than_an_eighth_of_what_is_left(opening, database):
    world = opening(capped(100))
    with ExitStack() as stack:
        for number in range(40):
            opened = Comptroller.open(capped(100), database, clock=world.clock)
            stack.enter_context(opened)
            World(opened, world.clock).grant(account=f"account {number}")
        assert len(blocks(world)) == 40
        spent, leased = 40 * CENT, sum(block[2] for block in blocks(world))
        assert leased - spent <= (100_000_000 - spent) // 8
    assert days(world) == [("all", spent, 0, 40)]


def test_closing_returns_what_is_left(opening, database):
    world = opening(capped(1000))
    with a_world(capped(1000), database=database) as other:
        other.grant(5)
        assert days(world) == [("all", 0, 80 * CENT, 1)]
    assert days(world) == [("all", 5 * CENT, 0, 1)]
    assert blocks(world) == []


def test_what_a_dead_process_holds_is_denied_until_its_lease_and_grace_are_over(opening):
    dead, alive = opening(capped(10)), opening(capped(10))
    dead.grant()
    crash(dead)
    (_, _, leased, _) = blocks(alive)[0]
    assert leased == 10_000_000 // 8 // 16
    most = (10_000_000 - leased) // CENT
    denial = alive.deny(most + 1, account="v")
    assert denial.reason == "budget_exhausted"
    assert used(denial) == leased
    alive.grant(most, account="v")
    alive.deny(7, account="v")
    alive.clock.advance(LEASE + GRACE - timedelta(microseconds=1))
    alive.deny(7, account="v")
    alive.clock.advance(timedelta(microseconds=1))
    alive.grant(7, account="v")
    assert days(alive) == [("all", 10_000_000, 0, 1)]
    assert used(alive.deny(account="v")) == 10_000_000


def test_who_is_denied_for_what_others_hold_does_not_queue_for_the_days_row(opening, outside):
    other, world = opening(capped(10)), opening(capped(10))
    other.grant()
    held = blocks(world)[0][2]
    world.grant((10_000_000 - held) // CENT, account="v")
    refused = world.deny(5, account="v")
    with outside.transaction():
        outside.execute("SELECT FROM comptroller.budget_day FOR UPDATE")
        again = world.deny(5, account="v")
    assert (again.reason, again.findings) == (refused.reason, refused.findings)
    other.comptroller.close()
    world.grant(5, account="v")


def test_a_sweep_returns_what_dead_processes_hold(opening):
    dead, alive = opening(capped(1000)), opening(capped(1000))
    dead.grant()
    crash(dead)
    alive.clock.advance(LEASE + GRACE)
    alive.comptroller.sweep()
    assert blocks(alive) == []
    assert days(alive) == [("all", CENT, 0, 1)]


def test_a_process_whose_block_was_returned_charges_nothing_to_it(opening):
    slow, other = opening(capped(1000)), opening(capped(1000))
    slow.grant()
    slow.clock.advance(LEASE + GRACE)
    other.comptroller.sweep()
    slow.grant()
    assert [block[1] for block in blocks(slow)] == [2]
    assert days(slow) == [("all", CENT, 16 * CENT, 2)]


def test_one_process_alone_uses_a_budget_to_the_last_micro_dollar(opening):
    world = opening(capped("12.345678"))
    for n in (100, 1, 400, 1, 1, 500, 200, 31):
        world.grant(n)
    assert used(world.deny()) == 12_340_000
    assert sum(day[1] for day in days(world)) + sum(b[3] for b in blocks(world)) == 12_340_000


def test_a_block_belongs_to_its_day_and_is_not_charged_on_the_next(opening):
    world = opening(capped(1000))
    world.clock.set(datetime(2026, 3, 2, 23, 59, 30, tzinfo=UTC))
    world.grant(2)
    world.clock.advance(timedelta(seconds=30))
    assert used(world.grant()) == 0
    assert blocks(world) == [("all", 1, 32 * CENT, 2 * CENT), ("all", 1, 16 * CENT, CENT)]
    world.clock.advance(GRACE)  # the first block has ended with its day, not at the end of a minute
    world.comptroller.sweep()
    assert blocks(world) == [("all", 1, 16 * CENT, CENT)]
    assert days(world) == [("all", 2 * CENT, 0, 1), ("all", 0, 16 * CENT, 1)]


def test_each_budget_leases_by_the_days_of_its_own_time_zone(opening):
    zoned = ", west: {usd_per_day: 500, timezone: America/Los_Angeles}"
    world = opening(capped(1000, more=zoned))
    world.clock.set(datetime(2026, 3, 3, 7, tzinfo=UTC))
    world.grant()
    world.clock.set(datetime(2026, 3, 3, 9, tzinfo=UTC))
    grant = world.grant()
    assert (used(grant), used(grant, "west")) == (CENT, 0)
    starts = world.rows("SELECT name, starts_at FROM comptroller_budget_day ORDER BY starts_at")
    assert [name for name, _ in starts] == ["west", "all", "west"]


def test_where_one_of_two_budgets_has_no_block_neither_is_charged(opening):
    two = ", small: {usd_per_day: 0.05}"
    world = opening(capped(1000, more=two))
    for _ in range(5):
        world.grant()
    assert world.deny().reason == "budget_exhausted"
    assert days(world) == [("all", 0, 16 * CENT, 1), ("small", 5 * CENT, 0, 0)]
    assert blocks(world) == [("all", 1, 16 * CENT, 5 * CENT)]


def test_what_others_hold_of_a_budget_sends_a_request_on_to_the_next_source(opening):
    guard = (
        "budgets: {all: {usd_per_day: 10, sources: [daily_allowance], when_exhausted: next_source}}"
    )
    policies = plan(NEXT, more=guard)
    dead, world = opening(policies), opening(policies)
    dead.grant()
    crash(dead)
    world.grant(992, account="v")
    world.comptroller.add_credits("v", units=10, reference="gift")
    grant = world.grant(5, account="v")
    assert [part.source for part in grant.allocations] == ["credits"]
    # It has spent $9.93, and five cents more would fit: but what the dead process holds is not to be had.
    assert used(grant) + 5 * CENT > 10_000_000
    assert world.comptroller.explain(grant.id).same


def test_a_refusal_leaves_no_trace(opening):
    world = opening(capped(10))
    world.grant(995)
    world.deny(6)
    before = {name: rows for name, rows in world.dump().items() if "denial" not in name}
    world.deny(7)
    assert {name: rows for name, rows in world.dump().items() if "denial" not in name} == before


def test_a_budget_that_was_lowered_is_exhausted_at_once(opening):
    world, lowered = opening(capped(1000)), opening(capped("0.1"))
    world.grant(10)
    assert lowered.deny(account="v").reason == "budget_exhausted"
    assert blocks(world) == [("all", 1, 160 * CENT, 10 * CENT)]


def test_an_overrun_is_debited_to_the_block_at_hand_or_to_the_day(opening):
    world = opening(capped(1000))
    grants = [world.grant(), world.grant()]
    world.comptroller.settle(grants[0].id, gpu_seconds=20)
    assert blocks(world) == [("all", 1, 16 * CENT, 3 * CENT)]
    world.comptroller.settle(grants[1].id, gpu_seconds=2000)
    assert blocks(world) == [("all", 1, 16 * CENT, 3 * CENT)]
    assert days(world) == [("all", 199 * CENT, 16 * CENT, 1)]
    assert used(world.grant()) == 202 * CENT


def test_a_child_of_a_fork_leases_blocks_of_its_own(opening):
    world = opening(capped(1000))
    world.grant()
    world.comptroller._db.after_fork()
    world.grant()
    assert [block[1] for block in blocks(world)] == [1, 2]
    assert world.comptroller._db.holder.name in str(
        world.rows("SELECT holder FROM comptroller_budget_block WHERE number = 2")
    )


def test_health_says_what_budgets_have_spent_and_what_is_leased(opening):
    world = opening(capped(1000, more=", small: {usd_per_day: 0.05}"))
    world.grant(2)
    all_of_it, small = world.comptroller.health().budgets
    assert (all_of_it.name, all_of_it.spent_micro_usd) == ("all", 2 * CENT)
    assert all_of_it.leased_micro_usd == 30 * CENT
    assert (small.spent_micro_usd, small.leased_micro_usd) == (2 * CENT, 0)
    assert small.limit_micro_usd == 5 * CENT


# --- in the host's session ------------------------------------------------------------------------


def test_what_the_host_rolls_back_was_never_spent(opening, host):
    world = opening(capped(1000))
    with Session(host) as session:
        world.grant(session=session)
        session.rollback()
    assert blocks(world) == [("all", 1, 16 * CENT, 0)]
    with Session(host) as session:
        world.grant(session=session)
        world.grant(session=session)
        session.commit()
    assert blocks(world) == [("all", 1, 16 * CENT, 2 * CENT)]
    assert days(world) == [("all", 0, 16 * CENT, 1)]


def test_nobody_waits_for_a_block_that_another_transaction_is_charging(opening, host):
    world = opening(capped(1000))
    world.grant()
    with Session(host) as session:
        world.grant(account="v", session=session)
        world.grant(account="w")
        world.grant(account="x")
        session.commit()
    assert blocks(world) == [("all", 1, 16 * CENT, 2 * CENT), ("all", 2, 16 * CENT, 2 * CENT)]


def test_in_a_hosts_session_on_its_only_connection_the_days_own_row_is_charged(database):
    only = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 1}
    host = create_engine(on_driver(database, "psycopg"), **only)
    with a_world(capped(1000), database=host) as world:
        with Session(host) as session:
            world.grant(session=session)
            world.grant(session=session)
            session.commit()
        assert days(world) == [("all", 2 * CENT, 0, 0)]
        world.grant()
        assert blocks(world) == [("all", 1, 16 * CENT, CENT)]
        with Session(host) as session:
            world.grant(session=session)
            session.commit()
        assert blocks(world) == [("all", 1, 16 * CENT, 2 * CENT)]
    host.dispose()


def test_a_host_that_has_locked_a_day_does_not_wait_for_itself(opening, host):
    world = opening(capped("0.05"))
    with Session(host) as session:
        for _ in range(5):
            world.grant(session=session)
        assert world.admit(session=session).reason == "budget_exhausted"
        session.commit()
    assert days(world) == [("all", 5 * CENT, 0, 0)]


# --- what verify finds ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("UPDATE comptroller_budget_block SET spent_micro_usd = spent_micro_usd - 1", "spent of"),
        ("UPDATE comptroller_budget_block SET spent_micro_usd = spent_micro_usd + 1", "of block 1"),
        ("UPDATE comptroller_budget_block SET leased_micro_usd = 999999", "leased of budget all"),
        ("DELETE FROM comptroller_budget_block", "leased of budget all"),
        ("UPDATE comptroller_budget_day SET spent_micro_usd = 1", "spent of budget all"),
        ("UPDATE comptroller_budget_day SET leased_micro_usd = 0", "leased of budget all"),
        ("UPDATE comptroller_budget_day SET blocks = 0", "blocks of budget all"),
    ],
)
def test_a_block_that_was_tampered_with_is_found(database, change, said):
    clock = FakeClock(START)
    with Comptroller.open(capped(1000), database, clock=clock) as comptroller:
        world = World(comptroller, clock)
        world.grant()
        assert discrepancies(comptroller) == []
        world.write(change)
        assert any(said in str(found) for found in discrepancies(comptroller))
        crash(world)  # what it would return the database refuses: the rows do not add up any more


def test_blocks_of_days_past_are_part_of_what_those_days_have_spent(opening):
    world = opening(capped(1000))
    for _ in range(3):
        for _ in range(20):
            world.grant()
        world.clock.advance(DAY)
    world.grant()
    world.comptroller.sweep()
    assert [day[1] + day[2] for day in days(world)[:3]] == [20 * CENT] * 3
