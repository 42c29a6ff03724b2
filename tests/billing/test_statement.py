"""The statement of one account: every line dated, with what it took, earned and cost."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from billing.render import render
from billing.statement import Statement
from tests.billing.test_report import drop_triggers
from tests.world import DAY, HOUR, World, a_world, plan

MARCH = datetime(2026, 3, 1, tzinfo=UTC)
APRIL = datetime(2026, 4, 1, tzinfo=UTC)
PAID = (
    "{paid_use: auto, sources: [{kind: daily_allowance, units: 5, split: true}, {kind: credits}]}"
)


@pytest.fixture
def world():
    with a_world(plan(PAID)) as made:
        yield made


def statement(world: World, since=MARCH, until=APRIL, account="u") -> Statement:
    found = world.comptroller.statement(account, since, until)
    assert found.check.ok, found.check.problems
    return found


def seen(found: Statement, *names: str) -> list[tuple[object, ...]]:
    return [tuple(getattr(line, name) for name in names) for line in found.lines]


def test_each_line_says_what_was_taken_from_where_and_what_is_left(world):
    lot = world.buy("ten", reference="order-77")
    first = world.grant(7, attributes={"prompt": "a dog"}, member="ann")
    world.comptroller.settle(first.id, gpu_seconds=41, delivered={"n": 6})
    failed = world.grant(1)
    world.comptroller.release(failed.id, reason="failed", gpu_seconds=2)
    found = statement(world)
    assert seen(found, "what", "source", "weight", "units", "lot_units", "credits_after") == [
        ("purchase", "", None, 0, 10, 10),
        ("granted", "daily_allowance", 5, 5, 0, 10),
        ("granted", "credits", 2, 2, -2, 8),
        ("settled", "daily_allowance", 5, 0, 0, 8),
        ("settled", "credits", 2, -1, 1, 9),
        ("granted", "credits", 1, 1, -1, 8),
        ("released", "credits", 1, -1, 1, 9),
    ]
    assert seen(found, "used_after", "limit")[1] == (5, 5)
    assert [line.revenue_minor for line in found.lines] == [0, 0, 0, 0, 40, 0, 0]
    assert next(line.sold_minor for line in found.lines) == 400
    assert sum(line.gpu_estimated_micro_usd for line in found.lines) == 80_000
    assert sum(line.gpu_micro_usd for line in found.lines) == 43_000
    granted = found.lines[1]
    assert (granted.grant_id, granted.member) == (first.id, "ann")
    assert granted.attributes == {"n": 7, "prompt": "a dog"}
    assert found.lines[0].detail == "ten, reference order-77"
    assert found.lines[2].lot_id == lot.id
    assert found.lines[-1].detail == "failed"
    assert (found.opening_credits, found.closing_credits) == (0, 9)
    assert found.totals.units == {"credits": 1, "daily_allowance": 5}
    assert found.totals.revenue_minor == {"usd": 40}
    assert found.totals.grants == 2


def test_a_change_of_settings_is_a_line_of_nothing(world):
    world.comptroller.set_plan("u", "own")
    world.comptroller.set_account("u", timezone="Asia/Tokyo")
    world.comptroller.set_paid_use("u", "ask", spend_cap_minor=500)
    world.comptroller.freeze("u", reason="a chargeback")
    world.comptroller.unfreeze("u")
    assert seen(statement(world), "what", "detail", "units") == [
        ("plan", "own", 0),
        ("zone", "Asia/Tokyo", 0),
        ("paid_use", "ask, at most 500 minor units per month", 0),
        ("freeze", "a chargeback", 0),
        ("unfreeze", "", 0),
    ]


def test_what_has_fallen_due_is_there_before_anybody_has_written_it(world):
    world.comptroller.add_credits(
        "u", units=4, reference="launch", expires_at=world.clock() + 3 * HOUR
    )
    world.grant(6)  # five free ones, one of the credits
    world.clock.advance(5 * HOUR)
    found = statement(world)
    assert seen(found, "what", "units", "lot_units", "credits_after") == [
        ("credits", 0, 4, 4),
        ("granted", 5, 0, 4),
        ("granted", 1, -1, 3),
        ("expired", -5, 0, 3),
        ("expired", -1, 1, 4),
        ("lot_expiry", 0, -4, 0),
    ]
    before = render(found, "json")
    assert world.comptroller.sweep() == 2
    assert render(statement(world), "json") == before


def test_a_period_begins_with_what_the_one_before_it_left(world):
    world.buy("ten")
    world.grant(8)  # expires an hour later
    cut = world.clock() + HOUR
    world.clock.advance(DAY)
    world.comptroller.settle(world.grant(9).id)
    first, second = statement(world, until=cut), statement(world, since=cut)
    assert (first.opening_credits, first.closing_credits) == (0, 7)
    assert (second.opening_credits, second.closing_credits) == (7, 6)
    assert [line.what for line in second.lines][:2] == ["expired", "expired"]
    whole = statement(world)
    assert whole.lines == first.lines + second.lines


def test_the_end_of_a_period_is_not_part_of_it(world):
    at = world.clock()
    world.grant(1)
    assert not statement(world, until=at).lines
    assert len(statement(world, since=at).lines) == 1


def test_an_account_that_nobody_knows_has_an_empty_statement(world):
    found = statement(world, account="nobody")
    assert (found.lines, found.opening_credits, found.closing_credits) == ((), 0, 0)


def test_a_forgotten_account_leaves_no_statement_under_its_name(world):
    world.grant(1)
    world.comptroller.forget("u")
    assert not statement(world).lines


def test_the_check_finds_a_balance_that_is_not_what_the_lines_leave():
    with a_world(plan(PAID)) as world:
        world.buy("ten")
        drop_triggers(world)
        world.write("UPDATE comptroller_lot_balance SET units_gone = 1")
        problems = world.comptroller.statement("u", MARCH, APRIL).check.problems
        assert problems == ("all lines leave 10 credits available, the lots have 9",)
        world.write("UPDATE comptroller_lot_balance SET units_gone = 0")
