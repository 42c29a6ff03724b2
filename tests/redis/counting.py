"""Keys on every node of a cluster, and what its nodes have executed."""

from __future__ import annotations

from tests.servers import ClusterAt

KEYS = [b"{%d}" % number for number in range(60)]


def calls_of(cluster: ClusterAt, command: str) -> dict[int, int]:
    """How often each node has executed a command."""
    counted = {}
    for port in cluster.ports:
        stats = cluster.at(port).run("INFO", "commandstats")
        stat = stats.get(f"cmdstat_{command}", {})
        counted[port] = stat.get("calls", 0)
    return counted


def reset_statistics(cluster: ClusterAt) -> None:
    for port in cluster.ports:
        cluster.at(port).run("CONFIG", "RESETSTAT")
