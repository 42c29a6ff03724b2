"""Single messages: what each makes of what is known, in the order in which they should not have come."""

from __future__ import annotations

from typing import Any

import pytest

from quota.prefilter.answers import Verdict
from quota.prefilter.events import Message
from tests.prefilter.behind import Behind, behind
from tests.world import SECTIONS

PLANS = "default_plan: own\nplans:\n  own: {sources: [{kind: daily_allowance, units: 3}]}\n"
DENIED = ("allowance_exhausted", "redis")


class Kept(Behind):
    """Keeps what it would tell, by what it is, until a test sends it."""

    def keeps(self) -> dict[str, list[Message]]:
        kept: dict[str, list[Message]] = {}

        def keep(messages: list[Message]) -> None:
            for message in messages:
                kept.setdefault(str(message.args[0]), []).append(message)

        self.front.news._send = keep  # type: ignore[method-assign]
        return kept

    def send(self, message: Message) -> Any:
        return self.front.redis.run(self.front.script, message.key, message.timed())


@pytest.fixture
def world(redis_url):
    with behind(redis_url, SECTIONS + PLANS) as opened:
        opened.grant(1)
        opened.learn()
        yield Kept(opened.comptroller, opened.clock, opened.keys)


def test_a_grant_is_told_in_full(world):
    kept = world.keeps()
    grant = world.ask(2)
    assert world.send(kept["g"][0]) == 1
    known = world.known()
    assert (known.seq, known.seen) == (2, 2)
    assert [lease.expires_at for lease in known.leases][-1] == grant.expires_at
    assert [use.units for use in known.uses] == [1, 2]
    assert all(not lease.flags & 1 for lease in known.leases)


def test_a_grant_that_is_told_twice_is_there_once(world):
    kept = world.keeps()
    world.ask(2)
    first = world.send(kept["g"][0])
    before = world.known()
    assert (first, world.send(kept["g"][0])) == (1, 0)
    assert world.known() == before


def test_a_grant_that_is_told_after_its_end_does_not_come_back(world):
    kept = world.keeps()
    world.comptroller.release(world.ask(2).id, reason="failed")
    world.learn()
    world.send(kept["p"][0])
    assert world.send(kept["g"][0]) == 0
    known = world.known()
    assert (known.seq, len(known.leases), len(known.uses)) == (3, 1, 1)


def test_a_grant_after_something_that_was_lost_lets_nothing_be_denied(world):
    kept = world.keeps()
    world.comptroller.set_plan("u", "own")
    world.ask(2)
    told = world.known().told
    world.send(kept["g"][0])
    known = world.known()
    assert (known.seq, known.seen, known.told) == (1, 3, 0)
    assert told
    assert world.said() == ("allowance_exhausted", "sql")


def test_a_grant_that_was_written_with_what_was_due_lets_nothing_be_denied(world):
    kept = world.keeps()
    (open_one,) = world.known().leases
    world.clock.set(open_one.expires_at)
    world.learn()
    world.send(kept["p"][0])
    world.ask(1)
    world.send(kept["g"][0])
    known = world.known()
    assert (known.seq, known.seen, known.told) == (1, 3, 0), (
        "its hold has expired, which SQL told in full"
    )


def test_what_was_written_lets_nothing_be_denied_until_all_of_it_is_told(world):
    world.grant(2)
    kept = world.keeps()
    world.learn()
    world.comptroller.set_plan("u", "own")
    world.tell()
    world.send(kept["s"][0])
    assert world.said() == ("allowance_exhausted", "sql")
    world.send(kept["p"][0])  # from before
    assert world.known().seen == 3
    verdicts = world.verdicts()
    assert world.said() == ("allowance_exhausted", "sql")
    assert verdicts == [Verdict.DOUBTFUL], "whoever asks, and not this process alone"
    world.send(kept["p"][-1])
    assert world.known().seq == 3
    assert world.send(kept["s"][0]) == 0, "that is known by now"
    assert world.known().told


def test_of_two_states_the_later_wins_in_whatever_order(world):
    kept = world.keeps()
    world.learn()
    world.grant(2)
    world.learn()
    older, newer = kept["p"]
    for message in (newer, older):
        world.send(message)
        assert world.known().seq == 2
    assert world.send(older) == 0


def test_a_state_keeps_what_is_noted_and_not_yet_known(world):
    kept = world.keeps()
    world.learn()
    passed = world.front.decide(world.comptroller.policies, asked("note"))
    world.send(kept["p"][0])
    known = world.known()
    assert [lease.print for lease in known.leases if lease.flags & 1] == [passed.print]
    assert [use.units for use in known.uses] == [1, 1]
    assert known.may_know(passed.print)


def test_undoing_takes_back_a_note_and_nothing_that_sql_has_confirmed(world):
    kept = world.keeps()
    passed = world.front.decide(world.comptroller.policies, asked("note"))
    world.front.news.undone("u", passed.print)
    world.tell()
    assert world.send(kept["u"][0]) == 1
    assert world.send(kept["u"][0]) == 0
    assert len(world.known().leases) == 1
    world.ask(1, key="kept")
    world.send(kept["g"][0])
    world.front.news.undone("u", kept["g"][0].args[3][6:10])
    world.tell()
    assert world.send(kept["u"][-1]) == 0
    assert len(world.known().leases) == 2


def asked(key):
    from quota.ask import Ask

    return Ask("u", "clip", {"n": 1}, key, None, None, consent=False, not_after=None)


def test_what_was_read_a_while_ago_is_told_as_so_old(redis_url):
    with behind(redis_url, SECTIONS + PLANS, server_time=True) as world:
        kept = Kept(world.comptroller, world.clock, world.keys)
        world.ask(1)
        messages = kept.keeps()
        world.learn()
        late = messages["p"][0]
        moment = late.moment
        assert moment is not None
        assert not moment.given
        world.front.redis.command("FLUSHDB")  # which knew it better
        kept.send(late._replace(moment=moment._replace(seconds=moment.seconds - 20)))
        seconds, micros = world.front.redis.command("TIME")
        ago = int(seconds) * 1_000_000 + int(micros) - world.known().told
        assert 20_000_000 <= ago < 60_000_000


def test_nothing_is_told_of_an_account_that_redis_does_not_know(world):
    kept = world.keeps()
    world.ask(1)
    world.comptroller.set_plan("u", "own")
    world.front.news.undone("u", b"none")
    world.tell()
    world.front.redis.command("FLUSHDB")
    assert [world.send(kept[op][0]) for op in "gsu"] == [0, 0, 0]
    assert world.known() is None
