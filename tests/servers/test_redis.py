"""Redis for the tests: empty for each, and a server that stops, hangs and crashes."""

from __future__ import annotations

from contextlib import closing

import pytest
import redis

from tests.servers import Redis, RedisAt, ServerError
from tests.servers.redis import EXTERNAL, shared_redis


@pytest.mark.parametrize("attempt", [1, 2])
def test_the_redis_of_a_test_is_empty(redis_url: str, attempt: int):
    server = RedisAt(redis_url)
    assert server.run("DBSIZE") == 0
    server.run("SET", "left", attempt)


def test_a_worker_keeps_its_redis(redis_server: RedisAt):
    assert shared_redis().url == redis_server.url


def test_a_killed_redis_comes_back_empty_on_its_port():
    with Redis() as server:
        url = server.url
        server.run("SET", "key", "value")
        server.kill()
        assert not server.running
        with pytest.raises(redis.ConnectionError):
            server.run("GET", "key")
        server.start()
        assert server.url == url
        assert server.run("GET", "key") is None


def test_a_paused_redis_answers_once_it_is_resumed():
    with (
        Redis() as server,
        closing(redis.Redis.from_url(server.url, socket_timeout=1, retry=None)) as client,
    ):
        server.pause()
        with pytest.raises(redis.TimeoutError):
            client.ping()
        server.resume()
        assert client.ping()


def test_settings_may_ask_for_data_that_outlive_a_restart():
    with Redis(settings={"appendonly": "yes"}) as server:
        server.run("SET", "key", "value")
        server.restart()
        assert server.run("GET", "key") == "value"


def test_a_redis_is_ready_once_it_has_loaded_what_it_kept():
    # It answers while it loads, every 1,024 keys; the delay is in microseconds for each of them.
    with Redis(settings={"appendonly": "yes", "key-load-delay": "100"}) as server:
        server.run("EVAL", "for i = 1, 8000 do redis.call('SET', i, i) end", 0)
        server.restart()
        assert server.run("INFO", "persistence")["loading"] == 0
        assert server.run("DBSIZE") == 8000


def test_a_server_that_does_not_start_says_why():
    with (
        pytest.raises(ServerError, match="no-such-setting"),
        Redis(settings={"no-such-setting": "1"}),
    ):
        pass


def test_workers_have_databases_of_their_own_on_a_named_server(
    monkeypatch: pytest.MonkeyPatch,
):
    with Redis() as server:
        monkeypatch.setenv(EXTERNAL, server.url)
        monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw1")
        one = shared_redis()
        monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw2")
        other = shared_redis()
        other.run("SET", "key", "value")
        one.flush()
        assert one.run("GET", "key") is None
        assert other.run("GET", "key") == "value"
        assert (one.url, other.url) == (f"{server.url}/2", f"{server.url}/3")
