"""Which node of a Cluster serves a key: the map of slots, and what redirections say. No I/O.

Shared by the sync and the async client. redis-py computes the slot of a key.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import hiredis

from quota.redis.errors import RedisUnavailable, code_of
from quota.redis.target import Address

SLOTS: Final = 16_384
# Redirections that one command follows. More of them is a Cluster that does not agree with itself.
REDIRECTIONS: Final = 5
# Seconds between two refreshes of the map, and timeouts that one may take.
REFRESH_SECONDS: Final = 0.5
REFRESH_TIMEOUTS: Final = 2


class Redirect(NamedTuple):
    """Where an error reply sends us. The command was not executed."""

    slot: int
    address: Address
    once: bool  # ASK: this command alone, after ASKING. Otherwise MOVED: for good

    @classmethod
    def of(cls, reply: Any, asked: Address) -> Redirect | None:
        """Return the redirection in a reply, None if it is any other.

        `asked` is the node that replied: an empty host means its own.
        """
        if not isinstance(reply, hiredis.ReplyError):
            return None
        code = code_of(reply)
        if code not in {"MOVED", "ASK"}:
            return None
        _, slot, place = str(reply).split(" ")[:3]
        host, _, port = place.rpartition(":")
        return cls(int(slot), Address(host or asked.host, int(port)), code == "ASK")


class Topology:
    """The map of slots as last heard, corrected by MOVED. Threads may share it."""

    def __init__(self, seeds: Iterable[Address]) -> None:
        self._seeds = tuple(seeds)
        self._owners: list[Address | None] = [None] * SLOTS
        self._asked_at: float | None = None
        self._refreshes = 0
        self.nodes: frozenset[Address] = frozenset()

    @property
    def is_known(self) -> bool:
        """Whether any node has sent its map."""
        return bool(self.nodes)

    def owner(self, slot: int) -> Address | None:
        """Return the primary that serves a slot; None if nobody does."""
        return self._owners[slot]

    def moved(self, redirect: Redirect) -> None:
        """Note what a MOVED said of one slot."""
        self._owners[redirect.slot] = redirect.address
        self.nodes |= {redirect.address}

    def learn(self, slots: Any, asked: Address) -> None:
        """Replace the map by a reply to CLUSTER SLOTS.

        Raises:
            ValueError: the reply is no map of slots.
        """
        owners: list[Address | None] = [None] * SLOTS
        nodes: set[Address] = set()
        try:
            for first, last, *places in slots:
                each = [_place(place, asked) for place in places]
                owners[first : last + 1] = [each[0]] * (last + 1 - first)
                nodes.update(one for one in each if one)
        except (TypeError, ValueError, IndexError, AttributeError):
            raise ValueError("redis sent no map of slots") from None
        if len(owners) != SLOTS or not nodes:
            raise ValueError("redis sent no map of slots")
        self._owners = owners
        self.nodes = frozenset(nodes)

    def knows(self, address: Address) -> bool:
        """Whether an address is a node's, or was given as one."""
        return address in self.nodes or address in self._seeds

    def is_due(self, now: float) -> bool:
        """Whether the map may be asked for again; `now` in monotonic seconds."""
        return self._asked_at is None or now - self._asked_at >= REFRESH_SECONDS

    def asked(self, now: float) -> None:
        """Note that the map is being asked for."""
        self._asked_at = now

    def to_ask(self, *, best: Address | None, avoid: Address | None) -> list[Address]:
        """Return whom to ask for the map: the best informed first, a node that failed last.

        Each time another comes first, so that nodes that hang do not hide those that answer.
        """
        known = list(dict.fromkeys((*sorted(self.nodes), *self._seeds)))
        first = self._refreshes % len(known)
        self._refreshes += 1
        every = dict.fromkeys((*([best] if best else []), *known[first:], *known[:first]))
        return sorted(every, key=lambda address: address == avoid)


def no_owner() -> RedisUnavailable:
    """Return the error for a slot that no node serves."""
    return RedisUnavailable("no node of the redis cluster serves this slot")


def nobody_answered() -> RedisUnavailable:
    """Return the error for a Cluster none of whose nodes sent its map."""
    return RedisUnavailable("no node of the redis cluster said which node serves which slots")


def redirected_too_often(last: Redirect) -> RedisUnavailable:
    """Return the error for nodes that send us to and fro."""
    return RedisUnavailable(f"redirected {REDIRECTIONS} times for slot {last.slot}")


def _place(place: Any, asked: Address) -> Address | None:
    """Read `[host, port, id, ...]`. No host: the one asked. `?`: the node does not know its own."""
    host = (place[0] or b"").decode() or asked.host
    return None if host == "?" else Address(host, place[1])
