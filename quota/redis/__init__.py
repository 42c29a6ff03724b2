"""The way to Redis and back: `(script, key, args) -> reply`, sync and async, server or Cluster.

What the script says is not known here. Where Redis gives no answer that can be used, RedisUnavailable
is raised at once or within the timeout, and SQL decides.
"""

from quota.redis.async_client import AsyncRedis
from quota.redis.errors import RedisUnavailable, ScriptFailed
from quota.redis.opening import open_async, open_sync
from quota.redis.script import Script
from quota.redis.sync_client import SyncRedis

__all__ = [
    "AsyncRedis",
    "RedisUnavailable",
    "Script",
    "ScriptFailed",
    "SyncRedis",
    "open_async",
    "open_sync",
]
