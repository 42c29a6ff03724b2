"""A Redis Cluster for event loops: as sync_cluster.py, with the map refreshed in the background."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from redis.crc import key_slot

from quota.redis import wire
from quota.redis.async_client import AsyncRedis
from quota.redis.errors import RedisUnavailable, result
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


class AsyncCluster(AsyncRedis):
    """Runs scripts on the node that serves their key, pipelined per node.

    A redirection means "not executed" and is followed; nothing else is sent a second time. A call
    that fails has the map of slots refreshed for the calls after it, at most twice a second.
    """

    def __init__(self, target: Target, timeout_seconds: float, clock: Callable[[], float]) -> None:
        super().__init__(target, timeout_seconds, clock)
        self._topology = Topology(target.addresses)

    async def _ask(self, key: bytes | None, packed: bytes) -> Any:
        if not self._topology.is_known:
            await self._find_nodes()
        address = self._owner(key)
        reply = await self._ask_node(address, packed)
        redirect = Redirect.of(reply, address)
        return reply if redirect is None else await self._follow(redirect, packed)

    async def _ask_many(self, calls: Sequence[tuple[bytes, bytes]]) -> list[Any]:
        if not self._topology.is_known:
            try:
                await self._find_nodes()
            except RedisUnavailable as error:
                return [error] * len(calls)
        replies: list[Any] = [None] * len(calls)
        by_node: dict[Address, list[int]] = {}
        for index, (key, _) in enumerate(calls):
            try:
                by_node.setdefault(self._owner(key), []).append(index)
            except RedisUnavailable as error:
                replies[index] = error

        async def ask(address: Address, indexes: list[int]) -> None:
            some = await self._node(address).ask_many([calls[index][1] for index in indexes])
            for index, reply in zip(indexes, some, strict=True):
                replies[index] = await self._followed(reply, address, calls[index][1])
            if any(isinstance(reply, RedisUnavailable) for reply in some):
                self._refresh(avoid=address)

        await asyncio.gather(*(ask(*each) for each in by_node.items()))
        return replies

    async def _followed(self, reply: Any, address: Address, packed: bytes) -> Any:
        redirect = Redirect.of(reply, address)
        if redirect is None:
            return reply
        try:
            return await self._follow(redirect, packed)
        except RedisUnavailable as error:
            return error

    async def _follow(self, redirect: Redirect, packed: bytes) -> Any:
        for _ in range(REDIRECTIONS):
            if not redirect.once:
                self._topology.moved(redirect)
                self._refresh(best=redirect.address)
            reply = await self._ask_node(redirect.address, packed, asking=redirect.once)
            further = Redirect.of(reply, redirect.address)
            if further is None:
                return reply
            redirect = further
        raise redirected_too_often(redirect)

    async def _ask_node(self, address: Address, packed: bytes, *, asking: bool = False) -> Any:
        try:
            return await self._node(address).ask(packed, asking=asking)
        except RedisUnavailable:
            self._refresh(avoid=address)
            raise

    # --- the map and the nodes ------------------------------------------------------------------

    def _owner(self, key: bytes | None) -> Address:
        """Return the node that serves a key, the first known one where there is no key."""
        if key is None:
            return min(self._topology.nodes)
        address = self._topology.owner(key_slot(key))
        if address is None:
            self._refresh()
            raise no_owner()
        return address

    async def _find_nodes(self) -> None:
        """Ask for the map for the first time, one task for all of this loop."""
        found = await asyncio.shield(self._learning(best=None, avoid=None))
        if not found:
            raise nobody_answered()

    def _refresh(self, *, best: Address | None = None, avoid: Address | None = None) -> None:
        """Ask for the map again in the background, unless that was done just now."""
        if self._topology.is_due(self._clock()) and not self._closed:
            _ = self._learning(best=best, avoid=avoid)

    def _learning(self, *, best: Address | None, avoid: Address | None) -> asyncio.Task[bool]:
        here = self._here()
        if here.refreshing is None or here.refreshing.done():
            self._topology.asked(self._clock())
            here.refreshing = asyncio.create_task(self._learn(best=best, avoid=avoid))
        return here.refreshing

    async def _learn(self, *, best: Address | None, avoid: Address | None) -> bool:
        end = self._clock() + REFRESH_TIMEOUTS * self._timeout
        for address in self._topology.to_ask(best=best, avoid=avoid):
            if self._clock() > end:
                break
            try:
                slots = result(await self._node(address).ask(wire.SLOTS))
                self._topology.learn(slots, address)
            except (RedisUnavailable, ValueError):
                continue
            self._forget_others()
            return True
        return False

    def _forget_others(self) -> None:
        nodes = self._here().nodes
        for address in [one for one in nodes if not self._topology.knows(one)]:
            nodes.pop(address).retire()
        for address in [one for one in list(self._breakers) if not self._topology.knows(one)]:
            self._breakers.pop(address, None)
