"""The engine, each of whose calls goes through a batch, in the company of calls that fail."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from datetime import timedelta
from typing import Any, ClassVar

from quota.ask import checked_ask
from quota.group_commit.batch import Call, run_batch
from quota.group_commit.works import (
    Admission,
    Renewal,
    Work,
    extending,
    goes_on,
    releasing,
    settling,
    starting,
)
from tests.conformance.driver import Driver, Filed
from tests.conformance.fronts import FiledFronted, ServedFronted
from tests.conformance.servers import Served

NOBODYS = (10**15, 1)
"""A grant of a book that there is not."""

WORKS: dict[str, Callable[..., Work | None]] = {
    "start": starting,
    "extend": extending,
    "settle": settling,
    "release": releasing,
}
ASKED = ("account", "operation", "attributes", "key", "plan", "member", "consent", "not_after")


class Grouped(Driver):
    """Each admit, start, extend, settle and release is made in a batch; what that leaves is made alone, as it is."""

    made: ClassVar[dict[bool, int]] = {True: 0, False: 0}
    """How many calls were done by their batch, and how many had to be made alone."""

    def run(self, method: str, *values: Any, **named: Any) -> Any:
        work = self.work(method, *values, **named)
        if work is None:
            return super().run(method, *values, **named)
        company = [Renewal(self.comptroller, NOBODYS, by) for by in (None, timedelta(hours=1))]
        calls = [Call(each, copy_context()) for each in (company[0], work, company[1])]
        run_batch(self.comptroller._db, calls)
        self.made[calls[1].is_done] += 1
        if not calls[1].is_done:
            return super().run(method, *values, **named)
        return calls[1].answer()

    def work(self, method: str, *values: Any, **named: Any) -> Work | None:
        if method in WORKS:
            return WORKS[method](self.comptroller, *values, **named)
        if method != "admit":
            return None
        ask = checked_ask(**(dict.fromkeys(ASKED) | {"consent": False} | named))
        front = self.comptroller._front
        told = None if front is None else front.decide(self.comptroller.policies, ask)
        expects_denial = sum(self.made.values()) % 2 == 0
        return Admission(self.comptroller, ask, told, expects_denial) if goes_on(told) else None


class InBatches(Grouped):
    """In memory."""


class FiledInBatches(Grouped, Filed):
    """On a file."""


class ServedInBatches(Grouped, Served):
    """On PostgreSQL."""


class FiledFrontedInBatches(Grouped, FiledFronted):
    """On a file, with Redis in front."""


class ServedFrontedInBatches(Grouped, ServedFronted):
    """On PostgreSQL, with Redis in front."""
