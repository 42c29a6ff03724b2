"""An explanation of a grant: what was read, whether it comes out the same, what became of it."""

from __future__ import annotations

import json

import pytest

from billing.book import canonical
from billing.render import as_values
from policies.errors import UnknownGrant
from tests.world import HOUR, World, a_world, plan

RULES = (
    "{paid_use: ask,"
    " limits: [{kind: rate, limit: 100, per: 1m}, {kind: concurrency, limit: 9, scope: member}],"
    " sources: [{kind: daily_allowance, units: 5, split: true}, {kind: credits}]}"
)


@pytest.fixture
def world():
    with a_world(plan(RULES)) as made:
        made.buy("ten")
        made.comptroller.set_account("u", timezone="Asia/Tokyo")
        yield made


def test_it_tells_what_was_read_found_taken_and_earned(world):
    world.grant(2, member="ann")
    grant = world.grant(7, member="ann", consent=True, attributes={"prompt": "a dog"})
    world.comptroller.settle(grant.id, gpu_seconds=41)
    told = world.comptroller.explain(grant.id)
    assert told.same
    assert not told.differences
    assert told.attributes == {"n": 7, "prompt": "a dog"}
    assert told.policy_version == world.comptroller.policies.version
    numbers = {number.policies: (number.number, number.what) for number in told.numbers}
    assert numbers["concurrency",] == (1, "open grants of member ann")
    assert numbers["daily_allowance",][0] == 2
    assert numbers["rate",][1].startswith("theoretical arrival time of rate rate")
    assert [(lot.lot_id, lot.available) for lot in told.lots] == [("lot_1_1", 10)]
    assert told.findings == grant.findings
    assert told.waterfall[2].startswith("daily_allowance (5 units per rolling 24h")
    assert told.consent is True
    assert told.timezones[0] == "UTC"
    assert told.timezones[1].startswith("Asia/Tokyo asked for at 2026-03-02")
    assert told.ending is not None
    assert (told.ending.status, told.ending.units_charged) == ("settled", 7)
    assert (told.ending.gpu_cost_micro_usd, told.ending.gpu_reported) == (41_000, True)
    (earned,) = told.recognised
    assert (earned.lot_id, earned.revenue_minor, earned.currency) == ("lot_1_1", 160, "usd")
    text = str(told)
    for part in ("a dog", "gave", "$1.60 of lot_1_1", "decided again", ": the same"):
        assert part in text
    assert json.loads(json.dumps(as_values(told)))["findings"][0]["policy"] == "rate"


def test_an_open_grant_has_no_end(world):
    told = world.comptroller.explain(world.grant(1).id)
    assert told.ending is None
    assert "it is open until" in str(told)


def test_an_expiry_that_nobody_has_written_is_told_as_it_will_be_written(world):
    grant = world.grant(1)
    world.clock.advance(2 * HOUR)
    before = world.comptroller.explain(grant.id).ending
    assert before is not None
    assert (before.status, before.at, before.gpu_reported) == ("expired", grant.expires_at, False)
    world.comptroller.sweep()
    assert world.comptroller.explain(grant.id).ending == before


def test_late_work_is_told(world):
    grant = world.grant(1)
    world.clock.advance(2 * HOUR)
    world.comptroller.settle(grant.id, gpu_seconds=3)
    ending = world.comptroller.explain(grant.id).ending
    assert ending is not None
    assert (ending.status, ending.late, ending.gpu_cost_micro_usd) == ("expired", True, 3000)


def test_another_answer_is_told_with_what_differs(world):
    grant = world.grant(3)
    body = rewrite(world, lambda facts: facts["numbers"].__setitem__(-1, 5))
    told = world.comptroller.explain(grant.id)
    assert not told.same
    assert told.differences == ("decision: recorded granted, now denied: consent_needed",)
    assert "NOT THE SAME" in str(told)
    rewrite(world, lambda facts: facts["allocations"][0].__setitem__(2, 2), body)
    assert "allocations" in world.comptroller.explain(grant.id).differences[0]
    rewrite(world, lambda facts: facts["numbers"].pop(), body)
    assert "cannot be decided again" in world.comptroller.explain(grant.id).differences[0]
    rewrite(world, lambda facts: None, body)
    assert world.comptroller.explain(grant.id).same


def rewrite(world: World, change: object, body: bytes | None = None) -> bytes:
    """Change the facts of the only grant's record, as it is or as `body` has it; return what it was."""
    for (name,) in world.rows("SELECT name FROM sqlite_master WHERE type = 'trigger'"):
        world.write(f"DROP TRIGGER {name}")
    if body is None:
        ((body,),) = world.rows("SELECT body FROM comptroller_record WHERE kind = 'grant'")
    content = json.loads(body)
    change(content["facts"])  # type: ignore[operator]
    world.write("UPDATE comptroller_record SET body = ? WHERE kind = 'grant'", canonical(content))
    return bytes(body)


def test_forgotten_free_text_does_not_keep_a_grant_from_being_explained(world):
    grant = world.grant(2, attributes={"prompt": "my secret"}, member="ann")
    world.comptroller.forget("u")
    told = world.comptroller.explain(grant.id)
    assert told.same
    assert "secret" not in str(told)
    assert "ann" not in str(told)


def test_there_is_nothing_to_tell_of_a_grant_that_never_was(world):
    for name in ("gr_1_99", "gr_99_1", "lot_1_1", ""):
        with pytest.raises(UnknownGrant):
            world.comptroller.explain(name)
