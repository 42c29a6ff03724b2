"""Where Redis is and how to get in: a URL, read once.

redis-py reads the single URL, so that an address means here what it means everywhere else. We add
the schemes of a Cluster, and refuse what would be ignored in silence.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple
from urllib.parse import SplitResult, urlsplit

from policies.errors import InvalidRequest

DEFAULT_PORT: Final = 6379
_SCHEMES: Final = {
    "redis": ("redis", False),
    "rediss": ("rediss", False),
    "unix": ("unix", False),
    "redis+cluster": ("redis", True),
    "rediss+cluster": ("rediss", True),
}
_TLS_OPTIONS: Final = frozenset(
    "ssl_ca_certs ssl_certfile ssl_keyfile ssl_cert_reqs ssl_check_hostname".split()
)
_OPTIONS: Final = frozenset({"host", "port", "path", "db", "username", "password"}) | _TLS_OPTIONS
_HELP: Final = (
    "write `redis://[user:password@]host:port/db`, `rediss://...` for TLS, `unix:///path?db=0` or "
    "`redis+cluster://host:port,host:port`, with special characters of the password percent-encoded"
)


class Address(NamedTuple):
    """One server: a host and its port, or the path of a Unix socket and port 0."""

    host: str
    port: int

    @property
    def is_unix(self) -> bool:
        """Whether `host` is the path of a Unix socket."""
        return not self.port

    def __str__(self) -> str:
        return self.host if self.is_unix else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Target:
    """What a URL says. Never shows the credentials."""

    addresses: tuple[Address, ...]  # of a Cluster: the nodes to ask for the others
    is_cluster: bool = False
    db: int = 0
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = field(default=None, repr=False)

    def greetings(self) -> list[tuple[str | int, ...]]:
        """Return the commands that begin a connection."""
        commands: list[tuple[str | int, ...]] = []
        if self.password is not None:
            user = () if self.username is None else (self.username,)
            commands.append(("AUTH", *user, self.password))
        if self.db:
            commands.append(("SELECT", self.db))
        return commands


def read_url(url: str) -> Target:
    """Read the URL of a server or a Cluster.

    Raises:
        InvalidRequest: it cannot be read; in one line, without the URL, which may hold a password.
    """
    if not isinstance(url, str):
        raise InvalidRequest(f"redis must be a URL, not `{type(url).__name__}`: {_HELP}")
    try:
        parts = urlsplit(url)
        scheme, is_cluster = _SCHEMES[parts.scheme]
        each = [_settings(single) for single in _one_by_one(parts._replace(scheme=scheme))]
        addresses = tuple(_address(settings, scheme) for settings in each)
    except (KeyError, ValueError):
        raise InvalidRequest(f"the Redis URL cannot be read: {_HELP}") from None
    first = each[0]
    if unknown := sorted(first.keys() - _OPTIONS):
        listed = ", ".join(f"`{name}`" for name in unknown)
        known = ", ".join(sorted(_TLS_OPTIONS | {"db"}))
        raise InvalidRequest(f"the Redis URL has unknown options {listed}: write one of {known}")
    if is_cluster and first.get("db"):
        raise InvalidRequest("a Redis Cluster has database 0 alone: leave `/db` out of the URL")
    return Target(
        addresses=addresses,
        is_cluster=is_cluster,
        db=first.get("db", 0),
        username=first.get("username"),
        password=first.get("password"),
        tls=_tls(first) if scheme == "rediss" else None,
    )


def _one_by_one(parts: SplitResult) -> list[str]:
    """Split `user@a,b/0` into `user@a/0` and `user@b/0`: redis-py reads one host."""
    if parts.fragment or "@" in parts.query:
        raise ValueError  # a bare `#` or `?` in the password; what is before it is no host
    if parts.scheme == "unix":
        if not parts.path:
            raise ValueError
    elif (database := parts.path.strip("/")) and not database.isdecimal():
        raise ValueError  # redis-py would ignore it, and use database 0
    login, at, hosts = parts.netloc.rpartition("@")
    return [
        f"{parts.scheme}://{login}{at}{host}{parts.path}?{parts.query}" for host in hosts.split(",")
    ]


def _settings(url: str) -> dict[str, Any]:
    from redis.connection import parse_url  # noqa: PLC0415 - a tenth of a second, for its users

    settings: dict[str, Any] = parse_url(url)  # type: ignore[no-untyped-call]
    settings.pop("connection_class", None)
    return settings


def _address(settings: dict[str, Any], scheme: str) -> Address:
    if scheme == "unix":
        return Address(settings["path"], 0)
    host = settings.get("host", "localhost")
    host.encode("idna")  # a name that no resolver could look up
    return Address(host, settings.get("port", DEFAULT_PORT))


def _tls(settings: dict[str, Any]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.get("ssl_ca_certs"))
        if "ssl_certfile" in settings:
            context.load_cert_chain(settings["ssl_certfile"], settings.get("ssl_keyfile"))
    except OSError as error:
        reason = error.strerror or "not a certificate"
        raise InvalidRequest(
            f"the certificates that the Redis URL names cannot be used ({reason}): "
            "write paths of PEM files to `ssl_ca_certs`, `ssl_certfile` and `ssl_keyfile`"
        ) from None
    demand = settings.get("ssl_cert_reqs", "required")
    if demand not in {"required", "none"}:
        raise InvalidRequest("`ssl_cert_reqs` of the Redis URL: write `required` or `none`")
    context.check_hostname = demand == "required" and settings.get("ssl_check_hostname", True)
    context.verify_mode = ssl.CERT_REQUIRED if demand == "required" else ssl.CERT_NONE
    return context
