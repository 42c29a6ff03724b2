"""One request and its answer, free of HTTP; and the record of all of them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from tests.stripe_server.errors import Json
from tests.stripe_server.forms import Tree, decode

API_VERSION_HEADER: Final = "stripe-version"


@dataclass(frozen=True)
class Request:
    """What was asked. Names of headers are in lower case; `params` come from query and body."""

    method: str
    path: str
    params: Tree
    headers: dict[str, str] = field(repr=False)

    @property
    def idempotency_key(self) -> str | None:
        return self.headers.get("idempotency-key")

    @property
    def version(self) -> str | None:
        return self.headers.get(API_VERSION_HEADER)


@dataclass(frozen=True)
class Answer:
    """A status, a body and headers. `lost` is an answer that never comes, or a cut connection."""

    status: int
    body: Json
    headers: dict[str, str] = field(default_factory=dict)
    lost: str | None = None

    @property
    def content(self) -> bytes:
        return json.dumps(self.body).encode()


def read(method: str, target: str, headers: dict[str, str], body: bytes) -> Request:
    """Read a request as it came over the wire."""
    parts = urlsplit(target)
    params = decode(parts.query)
    if "json" not in headers.get("content-type", ""):
        params |= decode(body.decode())
    return Request(method, parts.path, params, headers)
