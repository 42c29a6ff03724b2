"""What nodes of a Cluster say about slots, read without asking any."""

from __future__ import annotations

import hiredis
import pytest

from quota.redis.target import Address
from quota.redis.topology import REFRESH_SECONDS, Redirect, Topology

ASKED = Address("10.0.0.1", 7000)


def error(text: str) -> hiredis.ReplyError:
    return hiredis.ReplyError(text)


@pytest.mark.parametrize(
    ("reply", "redirect"),
    [
        (error("MOVED 3999 10.0.0.2:7001"), Redirect(3999, Address("10.0.0.2", 7001), once=False)),
        (error("ASK 3999 10.0.0.2:7001"), Redirect(3999, Address("10.0.0.2", 7001), once=True)),
        (error("MOVED 1 node-2.example:7"), Redirect(1, Address("node-2.example", 7), once=False)),
        (error("MOVED 1 2001:db8::1:7001"), Redirect(1, Address("2001:db8::1", 7001), once=False)),
        (error("MOVED 1 :7001"), Redirect(1, Address("10.0.0.1", 7001), once=False)),
        (error("MOVEDX 1 :7001"), None),
        (error("ERR MOVED 1 :7001"), None),
        (b"MOVED 3999 10.0.0.2:7001", None),
        (None, None),
    ],
)
def test_a_redirection_names_a_slot_and_a_node(reply, redirect):
    assert Redirect.of(reply, ASKED) == redirect


def test_a_map_says_who_serves_each_slot():
    topology = Topology([ASKED])
    assert not topology.is_known
    topology.learn(
        [
            [0, 99, [b"10.0.0.1", 7000, b"id"], [b"10.0.0.9", 7009, b"id", []]],
            [100, 16382, [b"10.0.0.2", 7000, b"id", [b"hostname", b"two.example"]]],
        ],
        ASKED,
    )
    assert topology.owner(0) == topology.owner(99) == ASKED
    assert topology.owner(100) == topology.owner(16382) == Address("10.0.0.2", 7000)
    assert topology.owner(16383) is None
    assert Address("10.0.0.9", 7009) in topology.nodes


def test_a_node_without_a_host_is_the_one_that_was_asked_and_an_unknown_one_serves_nothing():
    topology = Topology([ASKED])
    topology.learn([[0, 9, [None, 7001]], [10, 19, [b"", 7002]], [20, 29, [b"?", 7003]]], ASKED)
    assert topology.owner(0) == Address("10.0.0.1", 7001)
    assert topology.owner(10) == Address("10.0.0.1", 7002)
    assert topology.owner(20) is None


@pytest.mark.parametrize(
    "reply", [None, b"OK", [], [1], [[0]], [[0, 1]], [[0, 16384, [b"h", 1]]], [[0, 1, [b"h"]]]]
)
def test_what_is_no_map_leaves_the_known_one_in_place(reply):
    topology = Topology([ASKED])
    topology.learn([[0, 16383, [b"10.0.0.1", 7000]]], ASKED)
    with pytest.raises(ValueError, match="no map"):
        topology.learn(reply, ASKED)
    assert topology.owner(16383) == ASKED


def test_moved_corrects_one_slot_until_the_next_map():
    topology = Topology([ASKED])
    topology.learn([[0, 16383, [b"10.0.0.1", 7000]]], ASKED)
    new = Address("10.0.0.2", 7001)
    topology.moved(Redirect(7, new, once=False))
    assert (topology.owner(6), topology.owner(7)) == (ASKED, new)
    assert topology.knows(new)


def test_the_best_informed_node_is_asked_first_and_one_that_failed_last():
    seed, good, bad = Address("seed", 1), Address("good", 1), Address("bad", 1)
    topology = Topology([seed])
    topology.learn([[0, 1, [b"bad", 1]], [2, 3, [b"good", 1]], [4, 5, [b"best", 1]]], ASKED)
    best = Address("best", 1)
    for _ in range(3):
        first, *others, last = topology.to_ask(best=best, avoid=bad)
        assert (first, set(others), last) == (best, {good, seed}, bad)


def test_each_refresh_begins_with_another_node():
    seeds = [Address("seed", number) for number in range(3)]
    topology = Topology(seeds)
    assert [topology.to_ask(best=None, avoid=None)[0] for _ in range(4)] == [*seeds, seeds[0]]


def test_the_map_is_asked_for_at_most_every_so_often():
    topology = Topology([ASKED])
    assert topology.is_due(0.0)
    topology.asked(100.0)
    assert not topology.is_due(100.0 + REFRESH_SECONDS - 0.01)
    assert topology.is_due(100.0 + REFRESH_SECONDS)
