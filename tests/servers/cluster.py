"""A Redis Cluster of three primaries on this machine, and what can happen to one.

Its nodes are Valkeys from the wheel; no command-line client is needed. A node takes two seconds
before it trusts what it sees of the others, so that a cluster starts in a little more than that.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

from tests.servers import run
from tests.servers.process import READY_SECONDS, ServerError, free_port, private_folder, until
from tests.servers.redis import Redis, RedisAt

SLOTS: Final = 16384
PRIMARIES: Final = 3
# A primary that is silent for so long counts as failed. Where a replica may take over, soon; else
# a busy machine must not make a cluster fail.
FAILOVER_TIMEOUT_MS: Final = 600
PATIENT_TIMEOUT_MS: Final = 10_000
# What a node is called that its cluster does without.
_LOST: Final = frozenset({"fail", "fail?", "noaddr"})


@dataclass(frozen=True)
class Member:
    """A node as the cluster sees it."""

    id: str
    port: int
    flags: frozenset[str]
    primary: str  # the id of the primary that a replica follows; empty for a primary
    linked: bool
    slots: tuple[range, ...]
    moving: tuple[int, ...]  # slots open for moving, which only the node itself tells

    @property
    def serves(self) -> bool:
        return "master" in self.flags and not self.flags & _LOST


class ClusterAt:
    """A cluster by the ports of its nodes, whoever started it."""

    def __init__(self, ports: Sequence[int]) -> None:
        self._ports = tuple(ports)

    @property
    def ports(self) -> tuple[int, ...]:
        return self._ports

    @property
    def url(self) -> str:
        """The URL of the cluster; its first node tells the others."""
        return f"redis+cluster://127.0.0.1:{self.ports[0]}"

    def at(self, port: int) -> RedisAt:
        """One node."""
        return RedisAt(f"redis://127.0.0.1:{port}")

    def members(self, port: int | None = None) -> list[Member]:
        """All nodes, as the one at `port` sees them."""
        text = self.at(port or self.ports[0]).run("CLUSTER", "NODES")
        return [_member(line) for line in str(text).splitlines()]

    def primary_of(self, slot: int) -> int:
        """The port of the node that serves a slot."""
        for member in self.members():
            if member.serves and any(slot in each for each in member.slots):
                return member.port
        raise ServerError(f"no node serves slot {slot}")

    def slot_of(self, key: str) -> int:
        return int(self.at(self.ports[0]).run("CLUSTER", "KEYSLOT", key))

    def flush(self) -> None:
        """Empty every primary, of keys and of scripts."""
        for member in self.members():
            if member.serves:
                self.at(member.port).flush()

    # --- moving a slot ------------------------------------------------------------------------

    def begin_move(self, slot: int, to: int) -> None:
        """Open a slot for moving to the primary at port `to`.

        From now on its present primary answers ASK for keys that it does not have.
        """
        source = self.primary_of(slot)
        ids = {member.port: member.id for member in self.members()}
        self.at(to).run("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
        self.at(source).run("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[to])

    def move_keys(self, slot: int, to: int) -> list[str]:
        """Move the keys of an open slot; the answer is which."""
        source = self.at(self.primary_of(slot))
        keys: list[str] = source.run("CLUSTER", "GETKEYSINSLOT", slot, 1_000_000)
        if keys:
            source.run("MIGRATE", "127.0.0.1", to, "", 0, 10_000, "KEYS", *keys)
        return keys

    def finish_move(self, slot: int, to: int) -> None:
        """Give an open slot to the primary at port `to`. Its former primary answers MOVED."""
        source = self.primary_of(slot)
        ids = {member.port: member.id for member in self.members()}
        # The target first: a crash in between must not leave the slot with nobody.
        others = [each.port for each in self.members() if each.serves]
        for port in (to, source, *(each for each in others if each not in {to, source})):
            self.at(port).run("CLUSTER", "SETSLOT", slot, "NODE", ids[to])

    def abandon_moves(self) -> None:
        """Close the slots that are open for moving. They stay where they are."""
        for port in self.ports:
            for member in self.members(port):
                for slot in member.moving:
                    self.at(port).run("CLUSTER", "SETSLOT", slot, "STABLE")

    def move_slot(self, slot: int, to: int) -> None:
        """Move a slot with its keys to the primary at port `to`."""
        self.begin_move(slot, to)
        self.move_keys(slot, to)
        self.finish_move(slot, to)


class Cluster(ClusterAt):
    """A cluster of one's own, to stop and kill nodes of. `replicas` is how many each primary has.

    With replicas, one of them takes over within two seconds of its primary's end. A node that was
    elected should not have to stand again within four seconds: Redis 7.0 counts its votes of the
    first time then (Valkey, since its pull request 782, does not), under an epoch that the others
    believe no more, and the cluster is never whole again.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        replicas: int = 0,
        settings: dict[str, str] | None = None,
        owner: int | None = None,
    ) -> None:
        first = folder or private_folder(run.begin_run(), "cluster")
        timeout = FAILOVER_TIMEOUT_MS if replicas else PATIENT_TIMEOUT_MS
        common = {**_SETTINGS, "cluster-node-timeout": str(timeout), **(settings or {})}
        self.nodes = [
            Redis(
                first.with_name(f"{first.name}-{number}") if number else first,
                settings=common,
                owner=owner,
            )
            for number in range(PRIMARIES * (1 + replicas))
        ]

    @property
    def ports(self) -> tuple[int, ...]:
        """The ports of the nodes that run: the URL is of one that answers."""
        return tuple(node.port for node in self.nodes if node.running)

    def node(self, port: int) -> Redis:
        return next(node for node in self.nodes if node.port == port)

    def start(self) -> Self:
        """Start the nodes and wait until every one of them knows all and serves."""
        for node in self.nodes:
            node.settings["cluster-port"] = str(free_port())
            node.start()
        shares = [range(SLOTS * n // PRIMARIES, SLOTS * (n + 1) // PRIMARIES) for n in range(3)]
        for number, node in enumerate(self.nodes, start=1):
            node.run("CLUSTER", "SET-CONFIG-EPOCH", number)
        for node, share in zip(self.nodes, shares, strict=False):
            node.run("CLUSTER", "ADDSLOTSRANGE", share.start, share.stop - 1)
        for node in self.nodes:
            for other in self.nodes:
                if node is not other:
                    bus = other.settings["cluster-port"]
                    node.run("CLUSTER", "MEET", "127.0.0.1", other.port, bus)
        self._until("nodes do not meet", lambda node: len(self._known(node)) == len(self.nodes))
        ids = [node.run("CLUSTER", "MYID") for node in self.nodes]
        for number, node in enumerate(self.nodes[PRIMARIES:]):
            node.run("CLUSTER", "REPLICATE", ids[number % PRIMARIES])
        self.wait_until_whole()
        return self

    def wait_until_whole(self) -> None:
        """Wait until all running nodes agree that every slot is served, and replicas follow."""
        try:
            until("the cluster is not whole", READY_SECONDS, self._is_whole)
        except ServerError as error:
            seen = (f"{port}:\n{self.at(port).run('CLUSTER', 'NODES')}" for port in self.ports)
            raise ServerError("\n".join((f"{error}, as its nodes see it:", *seen))) from None

    def kill_primary(self, slot: int) -> Redis:
        """Kill the primary of a slot; `start()` of the answer brings it back.

        With replicas, `wait_until_whole()` waits until one has taken over by itself.
        """
        node = self.node(self.primary_of(slot))
        node.kill()
        return node

    def fail_over(self, slot: int) -> int:
        """Make a replica take a slot's primary over, without asking it; the answer is its port."""
        members = self.members()
        old = self.primary_of(slot)
        identity = next(member.id for member in members if member.port == old)
        new = next(member.port for member in members if member.primary == identity)
        self.node(new).run("CLUSTER", "FAILOVER", "TAKEOVER")
        until("no failover", READY_SECONDS, lambda: self._all_say(slot, new))
        self.wait_until_whole()
        return new

    def leave(self) -> None:
        for node in self.nodes:
            node.leave()

    def close(self) -> None:
        for node in self.nodes:
            node.close()

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *raised: object) -> None:
        self.close()

    # --- what nodes say -----------------------------------------------------------------------

    def _until(self, what: str, condition: Callable[[Redis], bool]) -> None:
        for node in self.nodes:
            if node.running:
                until(what, READY_SECONDS, functools.partial(condition, node))

    def _known(self, node: Redis) -> list[Member]:
        gone = {"handshake", "noaddr"}
        return [member for member in self.members(node.port) if not member.flags & gone]

    def _is_whole(self) -> bool:
        running = set(self.ports)
        views = {port: self.members(port) for port in running}
        # One that was a primary may still be one to those that have not heard from it since.
        roles = {
            frozenset(
                (each.port, each.primary, each.slots) for each in view if each.port in running
            )
            for view in views.values()
        }
        return len(roles) == 1 and all(self._is_whole_to(port, views[port]) for port in running)

    def _is_whole_to(self, port: int, members: list[Member]) -> bool:
        running = set(self.ports)
        serving = [member for member in members if member.serves]
        linked = {member.port for member in members if member.linked and not member.flags & _LOST}
        served = sum(len(each) for member in serving for each in member.slots)
        if not ({member.port for member in serving} <= running <= linked and served == SLOTS):
            return False
        follows = next(member.primary for member in members if "myself" in member.flags)
        node = self.at(port)
        return "cluster_state:ok" in str(node.run("CLUSTER", "INFO")) and (
            not follows or node.run("INFO", "replication").get("master_link_status") == "up"
        )

    def _all_say(self, slot: int, port: int) -> bool:
        return all(self._says(asked, slot) == port for asked in self.ports)

    def _says(self, asked: int, slot: int) -> int | None:
        for member in self.members(asked):
            if member.serves and any(slot in each for each in member.slots):
                return member.port
        return None


_SETTINGS: Final = {
    "cluster-enabled": "yes",
    "cluster-replica-validity-factor": "0",  # a replica takes over however old its data are
    "cluster-allow-replica-migration": "no",  # the roles of nodes are the test's to change
    "repl-diskless-sync-delay": "0",
    "repl-ping-replica-period": "1",
}


def shared_cluster() -> ClusterAt:
    """The cluster of this worker, without replicas; it ends with the run.

    A server that COMPTROLLER_TEST_REDIS names is no cluster: this one is started all the same, of
    the program that COMPTROLLER_TEST_REDIS_BINARY names.
    """
    name = f"cluster-{run.worker()}"
    url = run.share(name, lambda folder, owner: Cluster(folder, owner=owner))
    first = ClusterAt([urlsplit(url).port or 0])
    return ClusterAt([member.port for member in first.members()])


def _member(line: str) -> Member:
    """Read a line of CLUSTER NODES: id, ip:port@bus, flags, primary, two times, epoch, link, slots."""
    identity, address, flags, primary, _, _, _, link, *slots = line.split()
    return Member(
        id=identity,
        port=int(address.split(",")[0].rsplit("@")[0].rsplit(":")[1]),
        flags=frozenset(flags.split(",")),
        primary=primary.strip("-"),
        linked=link == "connected",
        slots=tuple(_range(each) for each in slots if not each.startswith("[")),
        moving=tuple(int(each[1:].split("-")[0]) for each in slots if each.startswith("[")),
    )


def _range(slots: str) -> range:
    first, _, last = slots.partition("-")
    return range(int(first), int(last or first) + 1)
