"""A URL says where Redis is and how to get in. Its password is shown nowhere."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from policies.errors import InvalidRequest
from quota.redis import RedisUnavailable, Script, open_async, open_sync
from quota.redis.target import Address, read_url
from tests.redis.conftest import Connect
from tests.redis.shells import COUNT, SHORT
from tests.redis.tls import CERTIFICATE, tls_in_front_of
from tests.servers import Redis

SECRET = "pässword/with#every?sign@:in&it"
ENCODED = "p%C3%A4ssword%2Fwith%23every%3Fsign%40%3Ain%26it"


def text_of(error: BaseException) -> str:
    """All that a log would show of an error, its causes included."""
    return "".join(traceback.format_exception(error))


# --- reading ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "addresses", "is_cluster", "db"),
    [
        ("redis://", [("localhost", 6379)], False, 0),
        ("redis://cache:7000", [("cache", 7000)], False, 0),
        ("redis://cache/3", [("cache", 6379)], False, 3),
        ("redis://cache?db=3", [("cache", 6379)], False, 3),
        ("redis://[::1]:7000/1", [("::1", 7000)], False, 1),
        ("rediss://cache:7000", [("cache", 7000)], False, 0),
        ("unix:///run/redis.sock", [("/run/redis.sock", 0)], False, 0),
        ("unix:///run/redis.sock?db=2", [("/run/redis.sock", 0)], False, 2),
        ("redis+cluster://a:1,b:2,c", [("a", 1), ("b", 2), ("c", 6379)], True, 0),
        ("rediss+cluster://me:pw@a:1,b:2/0", [("a", 1), ("b", 2)], True, 0),
    ],
)
def test_a_url_names_servers_and_a_database(url, addresses, is_cluster, db):
    target = read_url(url)
    assert target.addresses == tuple(Address(*each) for each in addresses)
    assert (target.is_cluster, target.db) == (is_cluster, db)
    assert (target.tls is not None) == url.startswith("rediss")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "cache:6379",
        "http://cache",
        "redis+sentinel://cache",
        f"redis://:{SECRET}@cache:6379",
        "redis://:secret@cache:port",
        "redis://:secret@cache:99999",
        "redis://:secret@cache/name",
        "redis://:secret@cache?db=one",
        "redis://:12/secret@cache",
        "redis://:12#secret@cache",
        "redis://:12?secret@cache",
        "redis://:secret@ca..che",
        "redis://:secret@cache?colour=secret",
        "redis://:secret@cache?socket_timeout=5",
        "unix://:secret@",
        "redis+cluster://:secret@cache/1",
        "rediss://:secret@cache?ssl_cert_reqs=secret",
        "rediss://:secret@cache?ssl_ca_certs=nowhere.pem",
        "rediss://:secret@cache?ssl_certfile=pyproject.toml",
    ],
)
@pytest.mark.parametrize("opener", [open_sync, open_async])
def test_a_url_that_cannot_be_used_is_refused_in_one_line_that_says_what_to_write(opener, url):
    with pytest.raises(InvalidRequest, match=r"write|leave") as raised:
        opener(url)
    assert "\n" not in str(raised.value)
    shown = text_of(raised.value)
    assert "secret" not in shown
    assert "every" not in shown


# --- getting in ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded() -> Iterator[Redis]:
    """A server that wants a password, and knows two users."""
    with Redis(settings={"unixsocket": "redis.sock"}) as server:
        server.run("ACL", "SETUSER", "engine", "on", f">{SECRET}", "~*", "&*", "+@all")
        server.run("ACL", "SETUSER", "reader", "on", ">pw", "~*", "+@read", "+@connection")
        server.run("ACL", "SETUSER", "shy", "on", ">pw", "~*", "+@all", "-incr")
        server.run("CONFIG", "SET", "requirepass", SECRET)
        yield server


def test_a_password_lets_in(connect: Connect, guarded: Redis):
    assert connect(f"redis://:{ENCODED}@127.0.0.1:{guarded.port}").command("PING") == b"PONG"


def test_a_user_and_a_database_are_taken_from_the_url(connect: Connect, guarded: Redis):
    client = connect(f"redis://engine:{ENCODED}@127.0.0.1:{guarded.port}/3")
    assert client.command("ACL", "WHOAMI") == b"engine"
    assert client.run(COUNT, b"{db}") >= 1
    assert connect(f"redis://:{ENCODED}@127.0.0.1:{guarded.port}").command("EXISTS", b"{db}") == 0


def test_a_unix_socket_works_with_password_and_database(connect: Connect, guarded: Redis):
    client = connect(f"unix://:{ENCODED}@{guarded.folder}/redis.sock?db=4")
    assert b"db=4" in client.command("CLIENT", "INFO")
    assert b":0 laddr=" in client.command("CLIENT", "INFO")


@pytest.mark.parametrize(
    ("login", "code"),
    [
        (":wrong-but-secret", "WRONGPASS"),
        ("engine:wrong-but-secret", "WRONGPASS"),
        ("wrong-but-secret:secret", "WRONGPASS"),
    ],
)
def test_a_wrong_login_is_told_without_the_password(connect: Connect, guarded: Redis, login, code):
    url = f"redis://{login}@127.0.0.1:{guarded.port}"
    client = connect(url, SHORT)
    with pytest.raises(RedisUnavailable, match=code) as raised:
        client.run(COUNT, b"{a}")
    assert not raised.value.outcome_unknown
    assert "secret" not in text_of(raised.value)
    assert "secret" not in repr(client.client) + repr(read_url(url))


def test_no_login_and_no_permission_mean_that_sql_is_asked(connect: Connect, guarded: Redis):
    with pytest.raises(RedisUnavailable, match="NOAUTH"):
        connect(f"redis://127.0.0.1:{guarded.port}").run(COUNT, b"{a}")
    with pytest.raises(RedisUnavailable, match="NOPERM"):
        connect(f"redis://reader:pw@127.0.0.1:{guarded.port}").run(COUNT, b"{a}")


def test_no_login_opens_the_breaker_however_long_the_command(connect: Connect, guarded: Redis):
    """To a command of more than ten parts by a stranger, Redis answers as if it were none, and hangs up."""
    client = connect(f"redis://127.0.0.1:{guarded.port}")
    for _ in range(5):
        with pytest.raises(RedisUnavailable, match="login"):
            client.run(COUNT, b"{a}", list(range(12)))
    assert client.states() == {"open"}


def test_no_permission_for_what_the_script_does_means_that_sql_is_asked(
    connect: Connect, guarded: Redis
):
    client = connect(f"redis://shy:pw@127.0.0.1:{guarded.port}")
    forbidden = "no permissions to run the 'incr' command|can't run this command"  # Redis 7.0
    with pytest.raises(RedisUnavailable, match=forbidden):
        client.run(COUNT, b"{a}")


def test_a_database_that_is_not_there_is_told(connect: Connect, guarded: Redis):
    with pytest.raises(RedisUnavailable, match="SELECT"):
        connect(f"redis://:{ENCODED}@127.0.0.1:{guarded.port}/9999").run(COUNT, b"{a}")


def test_a_connection_that_is_no_longer_logged_in_is_replaced(connect: Connect, guarded: Redis):
    client = connect(f"redis://:{ENCODED}@127.0.0.1:{guarded.port}")
    client.command("RESET")  # the connection is no longer logged in
    with pytest.raises(RedisUnavailable, match="NOAUTH"):
        client.run(COUNT, b"{a}")
    assert client.command("PING") == b"PONG"


# --- TLS ----------------------------------------------------------------------------------------


def test_tls_with_a_trusted_certificate_works(connect: Connect, redis_url: str):
    path = urlsplit(redis_url).path  # the number of the database that is empty
    with tls_in_front_of(port_of(redis_url)) as port:
        for host in ("localhost", "127.0.0.1"):
            client = connect(f"rediss://{host}:{port}{path}?ssl_ca_certs={CERTIFICATE}")
            counted = [client.run(COUNT, host.encode()) for _ in range(20)]
            assert counted == list(range(1, 21))
            assert client.run(Script.of("return string.rep('x', 300000)"), b"{a}") == b"x" * 300_000


def test_tls_shows_the_certificate_of_the_client(connect: Connect, redis_url: str):
    with tls_in_front_of(port_of(redis_url), ask_for_certificate=True) as port:
        url = f"rediss://localhost:{port}?ssl_ca_certs={CERTIFICATE}"
        assert connect(f"{url}&ssl_certfile={CERTIFICATE}").command("PING") == b"PONG"
        with pytest.raises(RedisUnavailable):
            connect(url).command("PING")


def test_tls_with_an_unknown_certificate_is_refused_unless_that_is_asked_for(
    connect: Connect, redis_url: str
):
    with tls_in_front_of(port_of(redis_url)) as port:
        with pytest.raises(RedisUnavailable, match="certificate verify failed") as raised:
            connect(f"rediss://localhost:{port}").command("PING")
        assert not raised.value.outcome_unknown
        client = connect(f"rediss://localhost:{port}?ssl_cert_reqs=none")
        assert client.command("PING") == b"PONG"


def test_a_server_without_tls_is_told_apart_from_one_with_it(connect: Connect, redis_url: str):
    with pytest.raises(RedisUnavailable):
        connect(redis_url.replace("redis://", "rediss://"), SHORT).command("PING")
    with tls_in_front_of(port_of(redis_url)) as port, pytest.raises(RedisUnavailable):
        connect(f"redis://localhost:{port}", SHORT).command("PING")


def port_of(url: str) -> int:
    port = urlsplit(url).port
    assert port
    return port
