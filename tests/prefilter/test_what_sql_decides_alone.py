"""What Redis cannot decide exactly, it does not: too large, of another kind, of another version, too late."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from textwrap import dedent

import pytest

from policies.kinds.credits import Credits
from policies.policy_set import PolicySet
from quota import DeadlinePassed, Denial, InvalidRequest
from quota.ask import Ask
from quota.prefilter import packing, prints, program, reporter
from quota.prefilter.compiler import Compiler
from quota.prefilter.prefilter import AskSql, Passed
from quota.prefilter.prints import redis_key
from quota.redis import Script
from tests.prefilter.behind import behind
from tests.world import SECTIONS, START

PLANS = """
default_plan: own
plans:
  own: {sources: [{kind: daily_allowance, units: 5}]}
  months: {sources: [{kind: allowance, per: 1mo, units: 5}]}
  day: {sources: [{kind: daily_allowance, units: 5, window: calendar}]}
  credit: {paid_use: auto, sources: [{kind: credits}]}
"""
DENIED = ("allowance_exhausted", "redis")
IN_SQL = ("allowance_exhausted", "sql")


@pytest.fixture
def world(redis_url):
    with behind(redis_url, SECTIONS + PLANS) as opened:
        yield opened


def test_an_account_with_more_rows_than_redis_keeps_is_decided_in_sql(world, monkeypatch):
    monkeypatch.setattr(packing, "ROWS_MOST", 3)
    for _ in range(5):
        world.ask(1)
    world.learn()
    assert [world.said() for _ in range(3)] == [IN_SQL] * 3
    assert world.known() is None, "what was known of it is not kept"
    monkeypatch.undo()
    world.front.news._reporter._large.clear()
    assert world.said() == IN_SQL
    assert world.said() == DENIED


def test_an_account_that_is_too_large_is_not_read_at_every_denial(world, monkeypatch):
    monkeypatch.setattr(packing, "ROWS_MOST", 3)
    for _ in range(5):
        world.ask(1)
    world.learn()
    assert world.said() == IN_SQL
    assert world.front.news._unknown == {}
    world.front.news.unknown("u")
    assert world.front.news._unknown == {}


def test_an_account_that_grows_in_redis_is_let_go_before_it_breaks_anything(redis_url):
    many = PLANS.replace("units: 5}]}", "units: 40}]}", 1)
    with behind(redis_url, SECTIONS + many) as world:
        limits = "NAMES_MOST, MEMBERS_MOST, ROWS_MOST = 127, 250, "
        text = world.front.script.text
        assert f"{limits}1500" in text
        few = Script.of(text.replace(f"{limits}1500", f"{limits}20"))
        for whoever in (world.front, world.front.news):
            monkeyed = "script" if whoever is world.front else "_script"
            setattr(whoever, monkeyed, few)
        world.learn()
        for _ in range(40):
            assert world.said(1)[0] == "granted"
        assert world.said(1) == IN_SQL
        assert world.known() is None


def test_many_members_of_one_account_do_not_run_out_of_numbers(redis_url):
    team = """
    default_plan: team
    plans:
      team:
        limits: [{kind: rate, limit: 1, per: 1h, scope: member}]
        sources: [{kind: daily_allowance, units: 9000}]
    """
    with behind(redis_url, SECTIONS + dedent(team)) as world:
        world.learn()
        for number in range(300):
            seen = world.front.decide(world.comptroller.policies, asked(f"{number}", f"m{number}"))
            assert isinstance(seen, (Passed, AskSql))
        assert world.said(1, member="m7")[0] == "granted"
        assert world.said(1, member="m7")[0] == "rate_exceeded"


def asked(key, member=None):
    return Ask("u", "clip", {"n": 1}, key, None, member, consent=False, not_after=None)


def test_a_filter_that_fills_up_is_made_anew(redis_url, monkeypatch):
    monkeypatch.setattr(reporter, "SINGLY_MOST", 20)
    with behind(redis_url, SECTIONS + PLANS.replace("units: 5}]}", "units: 100}]}", 1)) as world:
        world.learn()
        sizes = set()
        for _ in range(60):
            world.ask(1)
            sizes.add(len(world.known().keys))
        assert sizes == {16, 64, 128}


def test_a_lot_that_is_dearer_than_the_script_can_reckon_is_decided_in_sql(redis_url):
    dear = SECTIONS.replace(
        "ten:   {units: 10, price: 4.00", "ten:   {units: 10, price: 9999999999999.00"
    )
    with behind(redis_url, dear + PLANS) as world:
        for number in range(6):
            world.buy("ten", reference=str(number))
        world.learn()
        assert world.said(100, plan="credit") == ("credits_exhausted", "sql")
        assert world.said(100, plan="credit") == ("credits_exhausted", "sql")


def test_a_policy_of_another_kind_is_decided_in_sql(redis_url, monkeypatch):
    known = tuple(kind for kind in program.SOURCES if kind is not Credits)
    monkeypatch.setattr(program, "SOURCES", known)
    with behind(redis_url, SECTIONS + PLANS) as world:
        seen = world.verdicts()
        assert world.said(1, plan="credit") == ("credits_exhausted", "sql")
        world.learn()
        assert world.said(1, plan="credit") == ("credits_exhausted", "sql")
        assert seen == []


def test_a_policy_set_whose_names_collide_is_decided_in_sql(redis_url, monkeypatch):
    same = b"same"
    monkeypatch.setattr("quota.prefilter.compiler.name_print", lambda _: same)
    with behind(redis_url, SECTIONS + PLANS) as world:
        world.ask(5)
        world.learn()
        assert world.said() == IN_SQL


def test_two_keys_of_one_fingerprint_cost_a_question_and_no_answer(redis_url, monkeypatch):
    for module in ("prefilter", "snapshot"):
        monkeypatch.setattr(f"quota.prefilter.{module}.key_print", lambda *_: b"same")
    monkeypatch.setattr("quota.methods.fronted.key_print", lambda *_: b"same")
    with behind(redis_url, SECTIONS + PLANS) as world:
        grants = [world.ask(1) for _ in range(5)]
        assert [grant.granted for grant in grants] == [True] * 5
        assert [world.said() for _ in range(3)] == [IN_SQL] * 3
        world.comptroller.release(grants[0].id, reason="failed")
        world.tell()
        assert world.said()[0] == "granted"


def test_what_another_version_has_left_is_as_nothing(world):
    world.ask(5)
    assert world.said() == DENIED
    key = redis_key("u")
    blob = world.front.redis.command("GET", key)
    world.front.redis.command("SET", key, b"\x01" + blob[1:])
    seen = world.verdicts()
    assert world.said() == IN_SQL
    assert world.said() == DENIED
    assert [verdict.name for verdict in seen] == ["COLD", "DENIED"]


@pytest.mark.parametrize("garbage", [b"", b"\x02", b"nonsense"])
def test_what_is_no_state_at_all_is_as_nothing(world, garbage):
    world.front.redis.command("SET", redis_key("u"), garbage)
    assert world.said(5)[0] == "granted"


def test_at_the_end_of_a_month_rolling_months_are_decided_in_sql_and_then_again_in_redis(world):
    world.clock.set(datetime(2026, 3, 27, 12, tzinfo=UTC))
    world.comptroller.settle(world.ask(5, plan="months").id)
    world.tell()
    world.learn()
    assert world.said(plan="months") == DENIED
    world.clock.set(datetime(2026, 3, 28, 12, tzinfo=UTC))
    assert world.said(plan="months") == IN_SQL
    assert world.said(plan="months") == IN_SQL
    world.clock.set(datetime(2026, 4, 1, 12, tzinfo=UTC))
    world.learn()
    assert world.said(5, plan="months") == DENIED


def test_a_window_that_ends_between_two_clocks_is_resolved_for_the_scripts_own(world):
    world.clock.set(datetime(2026, 3, 3, 0, 10, tzinfo=UTC))
    world.ask(5, plan="day")
    world.learn()
    world.clock.set(datetime(2026, 3, 2, 23, 50, tzinfo=UTC))  # the account's time does not go back
    seen = world.verdicts()
    denial = world.ask(1, plan="day")
    assert (denial.reason, denial.decided_by) == DENIED
    assert denial.at == datetime(2026, 3, 3, 0, 10, tzinfo=UTC)
    assert [verdict.name for verdict in seen] == ["OTHER_WINDOW", "DENIED"]


def test_nothing_is_taken_in_redis_after_not_after(world):
    world.learn()
    seen = world.verdicts()
    with pytest.raises(DeadlinePassed):
        world.ask(1, not_after=START - timedelta(microseconds=1))
    assert [verdict.name for verdict in seen] == ["LATE"]
    assert world.known().leases == ()
    assert world.ask(1, not_after=START).granted


def test_a_denial_comes_before_a_deadline_that_has_passed(world):
    world.ask(5)
    assert world.said(not_after=START - timedelta(days=1)) == DENIED


def test_units_that_do_not_fit_are_decided_in_sql(redis_url):
    huge = SECTIONS.replace("max: 1000}", "max: 100000000}")
    plans = PLANS.replace("units: 5}]}", "units: 50000000}]}", 1)
    with behind(redis_url, huge + plans) as world:
        world.ask(40_000_000)
        world.learn()
        assert world.said(20_000_000) == IN_SQL
        assert world.said(1)[0] == "granted"
        assert world.said(20_000_000) == IN_SQL


def test_an_attribute_that_no_operation_has_is_refused_as_without_redis(world):
    for attributes in ({"m": 1}, {"n": Decimal("0.5")}, {"n": 0}):
        with pytest.raises(InvalidRequest):
            world.admit(1, attributes=attributes)


def test_the_servers_own_clock_decides_where_none_is_given(redis_url):
    with behind(redis_url, SECTIONS + PLANS, server_time=True) as world:
        world.ask(5)
        world.learn()
        denial = world.ask(5)
        assert isinstance(denial, Denial)
        assert (denial.reason, denial.decided_by) == DENIED
        seconds, micros = world.front.redis.command("TIME")
        now = datetime.fromtimestamp(int(seconds), UTC) + timedelta(microseconds=int(micros))
        assert timedelta(0) <= now - denial.at < timedelta(minutes=1)
        assert denial.retry_at is not None
        known = world.known()
        assert known.told <= round(now.timestamp() * 1_000_000)


def test_programs_know_every_name_of_their_policy_set():
    compiler = Compiler(PolicySet.parse(SECTIONS + PLANS))
    assert set(compiler.names.values()) == {"usd", "daily_allowance", "allowance", "credits"}
    assert all(prints.name_print(name) == raw for raw, name in compiler.names.items())
