"""Calls that are made again where the database undid their transaction: to end a deadlock, or an anomaly.

Only our own transactions are, never one in the host's session, of which we know but a part. What was undone left
nothing behind, and each of these calls is known by a key, a reference or a primary key: should it nevertheless
have been done, it is found to have been, and is not done twice.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, Final, ParamSpec, TypeVar

from policies.errors import AccountBusy
from quota.stores.base import Undone

TRIES: Final = 5
"""Who lost a deadlock five times has waited some seconds: whoever calls shall hear of it."""

S = TypeVar("S")
P = ParamSpec("P")
T = TypeVar("T")


def retried(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """Return a method that is called again, a few times, where the database undid its transaction."""

    @wraps(method)
    def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        for _ in range(1 if kwargs.get("session") is not None else TRIES):
            try:
                return method(self, *args, **kwargs)
            except Undone as error:
                undone = error
        raise AccountBusy(str(undone)) from undone

    return call
