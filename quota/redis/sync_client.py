"""Redis for threads: one server, or a Cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from quota.redis import wire
from quota.redis.breaker import State
from quota.redis.errors import as_result, is_unknown_script, result
from quota.redis.script import Script
from quota.redis.sync_node import Node
from quota.redis.target import Address, Target
from quota.redis.wire import Argument, Call


class SyncRedis:
    """Runs scripts on one Redis server. Safe for threads; a forked child opens its own connections.

    Every call takes at most a connect and a reply of `timeout_seconds` each, and is never repeated.
    """

    def __init__(self, target: Target, timeout_seconds: float, clock: Callable[[], float]) -> None:
        self._target = target
        self._timeout = timeout_seconds
        self._clock = clock
        self._closed = False
        self._first = self._new_node(target.addresses[0])

    def run(self, script: Script, key: bytes, args: Sequence[Argument]) -> Any:
        """Run a script on a key, in one command once Redis has cached it.

        Raises:
            RedisUnavailable: Redis gave no answer; see its `outcome_unknown`.
            ScriptFailed: the script is wrong.
        """
        reply = self._ask(key, wire.evalsha(script, key, args))
        if is_unknown_script(reply):
            reply = self._ask(key, wire.eval_body(script, key, args))
        return result(reply)

    def run_many(self, script: Script, calls: Sequence[Call]) -> list[Any | Exception]:
        """Run a script on many keys, pipelined; each gets its reply, or the exception it met.

        Calls of one key run in their order, unless the script is not cached: those are repeated
        after the others.
        """
        replies = self._ask_many([(key, wire.evalsha(script, key, args)) for key, args in calls])
        unknown = [index for index, reply in enumerate(replies) if is_unknown_script(reply)]
        if unknown:
            bodies = [(calls[index][0], wire.eval_body(script, *calls[index])) for index in unknown]
            for index, reply in zip(unknown, self._ask_many(bodies), strict=True):
                replies[index] = reply
        return [as_result(reply) for reply in replies]

    def command(self, *args: Argument) -> Any:
        """Send any one command. In a Cluster, a first argument in bytes is the key that routes it.

        Raises:
            RedisUnavailable: Redis gave no answer; see its `outcome_unknown`.
            ScriptFailed: Redis refused the command.
        """
        return result(self._ask(wire.key_of(args), wire.command(*args)))

    @property
    def states(self) -> dict[str, State]:
        """The state of each server's circuit breaker, by address."""
        return {str(node.address): node.breaker.state for node in self._every_node()}

    def close(self) -> None:
        """Close all connections. Later calls raise RedisUnavailable."""
        self._closed = True
        for node in self._every_node():
            node.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(str, self._target.addresses))})"

    # --- which server: a Cluster has another answer ----------------------------------------------

    def _ask(self, key: bytes | None, packed: bytes) -> Any:  # noqa: ARG002 - a Cluster routes by it
        return self._first.ask(packed)

    def _ask_many(self, calls: Sequence[tuple[bytes, bytes]]) -> list[Any]:
        return self._first.ask_many([packed for _, packed in calls])

    def _every_node(self) -> list[Node]:
        return [self._first]

    def _new_node(self, address: Address) -> Node:
        return Node(self._target, address, self._timeout, self._clock)
