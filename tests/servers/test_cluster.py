"""A Redis Cluster for the tests: it serves, redirects, moves slots and fails over."""

from __future__ import annotations

import pytest
import redis

from tests.servers import Cluster, ClusterAt
from tests.servers.cluster import SLOTS


def another(cluster: ClusterAt, port: int) -> int:
    return next(each for each in cluster.ports if each != port)


def test_all_slots_are_served_by_three_primaries(redis_cluster: ClusterAt):
    for port in redis_cluster.ports:
        members = redis_cluster.members(port)
        served = [slot for member in members for each in member.slots for slot in each]
        assert len(members) == 3
        assert sorted(served) == list(range(SLOTS))


def test_a_node_redirects_to_the_one_that_serves(redis_cluster: ClusterAt, cluster_url: str):
    slot = redis_cluster.slot_of("key")
    owner = redis_cluster.primary_of(slot)
    with pytest.raises(redis.exceptions.MovedError, match=f"{slot} 127.0.0.1:{owner}"):
        redis_cluster.at(another(redis_cluster, owner)).run("GET", "key")


def test_a_slot_on_the_move_is_asked_for_and_then_moved(redis_cluster: ClusterAt, cluster_url: str):
    slot = redis_cluster.slot_of("{a}1")
    source = redis_cluster.primary_of(slot)
    target = another(redis_cluster, source)
    redis_cluster.at(source).run("SET", "{a}1", "value")
    redis_cluster.begin_move(slot, target)
    assert redis_cluster.at(source).run("GET", "{a}1") == "value"
    with pytest.raises(redis.exceptions.AskError, match=f"{slot} 127.0.0.1:{target}"):
        redis_cluster.at(source).run("GET", "{a}2")
    assert redis_cluster.move_keys(slot, target) == ["{a}1"]
    redis_cluster.finish_move(slot, target)
    assert redis_cluster.primary_of(slot) == target
    assert redis_cluster.at(target).run("GET", "{a}1") == "value"
    with pytest.raises(redis.exceptions.MovedError):
        redis_cluster.at(source).run("GET", "{a}1")


def test_a_move_that_is_given_up_leaves_the_slot_where_it_was(
    redis_cluster: ClusterAt, cluster_url: str
):
    slot = redis_cluster.slot_of("key")
    source = redis_cluster.primary_of(slot)
    redis_cluster.begin_move(slot, another(redis_cluster, source))
    redis_cluster.abandon_moves()
    assert redis_cluster.at(source).run("GET", "key") is None


def test_replicas_take_over_when_told_and_when_their_primary_is_killed():
    with Cluster(replicas=1) as cluster:
        first = cluster.primary_of(0)
        second = cluster.fail_over(0)
        assert second != first
        killed = cluster.kill_primary(0)
        assert killed.port == second
        cluster.wait_until_whole()
        assert cluster.primary_of(0) == first
        killed.start()
        cluster.wait_until_whole()
        assert len(cluster.ports) == 6
        folders = [node.folder for node in cluster.nodes]
    assert not [folder for folder in folders if folder.exists()]
