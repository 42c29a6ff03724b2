"""A Redis Cluster for threads: route by slot, follow redirections, find the nodes again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from redis.crc import key_slot

from quota.redis import wire
from quota.redis.errors import RedisUnavailable, closed, result
from quota.redis.forks import start_anew_in_children
from quota.redis.sync_client import SyncRedis
from quota.redis.sync_node import Node
from quota.redis.target import Address, Target
from quota.redis.topology import (
    REDIRECTIONS,
    REFRESH_TIMEOUTS,
    Redirect,
    Topology,
    no_owner,
    nobody_answered,
    redirected_too_often,
)


class SyncCluster(SyncRedis):
    """Runs scripts on the node that serves their key. A redirection means "not executed": followed.

    Nothing else is sent a second time. A call that fails has the map of slots refreshed for the
    calls after it, at most twice a second.
    """

    def __init__(self, target: Target, timeout_seconds: float, clock: Callable[[], float]) -> None:
        self._nodes: dict[Address, Node] = {}
        self._topology = Topology(target.addresses)
        super().__init__(target, timeout_seconds, clock)
        self.after_fork()
        start_anew_in_children(self)

    def after_fork(self) -> None:
        """Start with locks that nobody holds; the map of slots stays true."""
        self._refreshing = threading.Lock()
        self._adding = threading.Lock()

    def _ask(self, key: bytes | None, packed: bytes) -> Any:
        address = self._owner(key)
        reply = self._ask_node(address, packed)
        redirect = Redirect.of(reply, address)
        return reply if redirect is None else self._follow(redirect, packed)

    def _ask_many(self, calls: Sequence[tuple[bytes, bytes]]) -> list[Any]:
        replies: list[Any] = [None] * len(calls)
        by_node: dict[Address, list[int]] = {}
        for index, (key, _) in enumerate(calls):
            try:
                by_node.setdefault(self._owner(key), []).append(index)
            except RedisUnavailable as error:
                replies[index] = error
        for address, indexes in by_node.items():
            some = self._node(address).ask_many([calls[index][1] for index in indexes])
            for index, reply in zip(indexes, some, strict=True):
                replies[index] = self._followed(reply, address, calls[index][1])
            if any(isinstance(reply, RedisUnavailable) for reply in some):
                self._refresh(avoid=address)
        return replies

    def _followed(self, reply: Any, address: Address, packed: bytes) -> Any:
        redirect = Redirect.of(reply, address)
        if redirect is None:
            return reply
        try:
            return self._follow(redirect, packed)
        except RedisUnavailable as error:
            return error

    def _follow(self, redirect: Redirect, packed: bytes) -> Any:
        for _ in range(REDIRECTIONS):
            if redirect.once:
                reply = self._ask_node(redirect.address, wire.ASKING + packed, replies=2)
            else:
                self._topology.moved(redirect)
                reply = self._ask_node(redirect.address, packed)
                self._refresh(best=redirect.address)
            further = Redirect.of(reply, redirect.address)
            if further is None:
                return reply
            redirect = further
        raise redirected_too_often(redirect)

    def _ask_node(self, address: Address, packed: bytes, *, replies: int = 1) -> Any:
        try:
            return self._node(address).ask(packed, replies=replies)
        except RedisUnavailable:
            self._refresh(avoid=address)
            raise

    # --- the map and the nodes ------------------------------------------------------------------

    def _owner(self, key: bytes | None) -> Address:
        """Return the node that serves a key, the first known one where there is no key."""
        if self._closed:
            raise closed()
        if not self._topology.is_known:
            self._find_nodes()
        if key is None:
            return min(self._topology.nodes)
        address = self._topology.owner(key_slot(key))
        if address is None:
            self._refresh()
            raise no_owner()
        return address

    def _find_nodes(self) -> None:
        """Ask for the map for the first time, one thread for all."""
        if not self._refreshing.acquire(timeout=self._timeout):
            raise nobody_answered()
        try:
            if not self._topology.is_known and not self._learn(best=None, avoid=None):
                raise nobody_answered()
        finally:
            self._refreshing.release()

    def _refresh(self, *, best: Address | None = None, avoid: Address | None = None) -> None:
        """Ask for the map again, unless that was done just now or another thread is at it."""
        due = not self._closed and self._topology.is_due(self._clock())
        if due and self._refreshing.acquire(blocking=False):
            try:
                self._learn(best=best, avoid=avoid)
            finally:
                self._refreshing.release()

    def _learn(self, *, best: Address | None, avoid: Address | None) -> bool:
        self._topology.asked(self._clock())
        end = self._clock() + REFRESH_TIMEOUTS * self._timeout
        for address in self._topology.to_ask(best=best, avoid=avoid):
            if self._clock() > end:
                break
            try:
                slots = result(self._node(address).ask(wire.SLOTS))
                self._topology.learn(slots, address)
            except (RedisUnavailable, ValueError):
                continue
            self._forget_others()
            return True
        return False

    def _forget_others(self) -> None:
        with self._adding:
            gone = [one for one in self._nodes if not self._topology.knows(one)]
            nodes = [self._nodes.pop(address) for address in gone]
        for node in nodes:
            node.close()

    def _node(self, address: Address) -> Node:
        node = self._nodes.get(address)
        if node is None:
            with self._adding:
                if self._closed:
                    raise closed()
                node = self._nodes.setdefault(address, self._new_node(address))
        return node

    def _every_node(self) -> list[Node]:
        with self._adding:
            return list(self._nodes.values())
