"""Scripts go over as one command, and their replies come back as they are."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from quota.redis import Script, ScriptFailed
from tests.redis.conftest import Connect
from tests.redis.shells import BROKEN, COUNT, ECHO
from tests.servers import RedisAt


def calls_by_command(server: RedisAt) -> dict[str, int]:
    stats: dict[str, Any] = server.run("INFO", "commandstats")
    counted = {name.removeprefix("cmdstat_"): stat["calls"] for name, stat in stats.items()}
    return {name: counted[name] for name in ("evalsha", "eval", "script|load") if name in counted}


def test_a_script_is_known_by_the_sha1_of_its_text():
    assert Script.of("return 1").sha == hashlib.sha1(b"return 1").hexdigest()


def test_a_script_that_is_not_cached_is_sent_once_and_then_called_by_name(
    connect: Connect, lone_redis: RedisAt
):
    client = connect(lone_redis.url)
    lone_redis.run("CONFIG", "RESETSTAT")
    assert [client.run(COUNT, b"{a}") for _ in range(5)] == [1, 2, 3, 4, 5]
    # The first EVALSHA was refused, and nothing was executed for it.
    assert calls_by_command(lone_redis) == {"evalsha": 5, "eval": 1}


def test_once_cached_a_call_is_exactly_one_command(connect: Connect, lone_redis: RedisAt):
    client = connect(lone_redis.url)
    client.run(COUNT, b"{a}")
    lone_redis.run("CONFIG", "RESETSTAT")
    for _ in range(20):
        client.run(COUNT, b"{a}")
    stats = lone_redis.run("INFO", "commandstats")
    used = {name for name, stat in stats.items() if stat["calls"]}
    # How the test itself asks; and INCR is what the script does.
    asking = {f"cmdstat_{name}" for name in ("config|resetstat", "info", "hello", "client|setinfo")}
    assert used - asking == {"cmdstat_evalsha", "cmdstat_incr"}
    assert stats["cmdstat_evalsha"]["calls"] == 20


def test_scripts_forgotten_in_the_middle_cost_no_call_and_repeat_none(
    connect: Connect, lone_redis: RedisAt
):
    client = connect(lone_redis.url)
    replies = []
    for turn in range(30):
        if turn % 7 == 3:
            lone_redis.run("SCRIPT", "FLUSH")
        replies.append(client.run(COUNT, b"{a}"))
    assert replies == list(range(1, 31))


def test_arguments_arrive_as_they_were_given_and_replies_too(connect: Connect, redis_url: str):
    client = connect(redis_url)
    key, text, raw = b"{\xff\x00}", "naïve\r\n", bytes(range(256))
    reply = client.run(ECHO, key, [text, raw, -7, 2**60, ""])
    assert reply == [key, text.encode(), raw, b"-7", str(2**60).encode(), b""]
    assert client.run(Script.of("return false"), b"{a}") is None
    assert client.run(Script.of("return {}"), b"{a}") == []
    assert client.run(Script.of("return {1, {'x', {2}}}"), b"{a}") == [1, [b"x", [2]]]


def test_a_reply_of_a_megabyte_arrives_whole(connect: Connect, redis_url: str):
    client = connect(redis_url)
    assert client.run(Script.of("return string.rep('x', 1000000)"), b"{a}") == b"x" * 1_000_000


def test_a_script_that_fails_says_so_and_is_no_failure_of_redis(connect: Connect, redis_url: str):
    client = connect(redis_url)
    for _ in range(20):
        with pytest.raises(ScriptFailed, match="arithmetic on a table"):
            client.run(BROKEN, b"{a}")
        with pytest.raises(ScriptFailed, match="wrong kind of value"):
            client.run(
                Script.of("redis.call('SET', KEYS[1], 'x') redis.call('LPOP', KEYS[1])"), b"{a}"
            )
    assert client.states() == {"closed"}
    with pytest.raises(ScriptFailed, match="unknown command"):
        client.command("NONSENSE")


def test_many_calls_in_pipelines_each_get_their_own_reply(connect: Connect, redis_url: str):
    client = connect(redis_url)
    calls = [(b"{%d}" % (number % 50), [number]) for number in range(500)]
    replies = client.run_many(ECHO, calls)
    assert replies == [[key, str(number).encode()] for key, (number,) in calls]
    counted = client.run_many(COUNT, [(b"{a}", [])] * 150)
    assert counted == list(range(1, 151))
    assert client.run_many(COUNT, []) == []


def test_among_many_calls_one_that_fails_takes_no_other_with_it(connect: Connect, redis_url: str):
    client = connect(redis_url)
    client.command("RPUSH", b"{list}", 1)
    first, second, third = client.run_many(COUNT, [(b"{a}", []), (b"{list}", []), (b"{b}", [])])
    assert (first, third) == (1, 1)
    assert isinstance(second, ScriptFailed)


def test_among_many_calls_an_uncached_script_runs_once_for_each(
    connect: Connect, lone_redis: RedisAt
):
    client = connect(lone_redis.url)
    client.run(COUNT, b"{a}")
    lone_redis.run("SCRIPT", "FLUSH")
    client.run_many(COUNT, [(b"{%d}" % number, []) for number in range(200)])
    assert {lone_redis.run("GET", f"{{{number}}}") for number in range(200)} == {"1"}


def test_plain_commands_serve_health_and_forgetting(connect: Connect, redis_url: str):
    client = connect(redis_url)
    assert client.command("PING") == b"PONG"
    client.run(COUNT, b"{a}")
    assert client.command("DEL", b"{a}") == 1
    assert client.run(COUNT, b"{a}") == 1
