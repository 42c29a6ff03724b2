"""Which function answers which path. Paths are written as in Stripe's own description."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tests.stripe_server.errors import Json
from tests.stripe_server.params import Params
from tests.stripe_server.world import World


@dataclass(frozen=True)
class Call:
    """One request to an endpoint, with the ids that its path names, in their order."""

    world: World
    params: Params
    ids: tuple[str, ...]
    path: str

    @property
    def id(self) -> str:
        return self.ids[0]


Handler = Callable[[Call], Json]


@dataclass(frozen=True)
class Route:
    method: str
    template: str
    handler: Handler

    @functools.cached_property
    def pattern(self) -> re.Pattern[str]:
        return re.compile(re.sub(r"\\{\w+\\}", "([^/]+)", re.escape(self.template)))


ROUTES: Final[list[Route]] = []


def route(method: str, template: str) -> Callable[[Handler], Handler]:
    """Register a function as an endpoint."""

    def register(handler: Handler) -> Handler:
        ROUTES.append(Route(method, template, handler))
        return handler

    return register


def routed(method: str, path: str) -> tuple[Route, tuple[str, ...]] | None:
    """Return the endpoint of a path and the ids in it; None where there is none.

    A route without ids is preferred: `/v1/invoices/upcoming` is no invoice.
    """
    for each in sorted(ROUTES, key=lambda each: each.template.count("{")):
        if each.method == method and (found := each.pattern.fullmatch(path)):
            return each, found.groups()
    return None
