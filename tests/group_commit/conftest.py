"""Books on each kind of database, and calls about them that are made in batches."""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import copy_context
from typing import Any

import pytest

from policies.policy_set import PolicySet
from quota import Comptroller
from quota.ask import checked_ask
from quota.group_commit.batch import Call
from quota.group_commit.works import Admission, Work
from quota.testing import FakeClock
from tests.databases import KINDS, a_database
from tests.world import POLICIES, START, discrepancies

OTHERS = ("attributes", "plan", "member", "not_after")


@pytest.fixture(params=KINDS)
def database(request, tmp_path) -> Iterator[str]:
    with a_database(request.param, tmp_path) as url:
        yield url


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(START)


@pytest.fixture
def comptroller(database, clock) -> Iterator[Comptroller]:
    """Open books, which must be sound at the end."""
    with Comptroller.open(PolicySet.parse(POLICIES), database, clock=clock) as opened:
        yield opened
        assert discrepancies(opened) == []


def call(work: Work | None) -> Call:
    assert work is not None
    return Call(work, copy_context())


def admission(
    comptroller: Comptroller,
    account: str,
    key: str,
    n: int = 1,
    *,
    kind: type[Admission] = Admission,
    expects_denial: bool = False,
    **more: Any,
) -> Call:
    """An admit of `n` units, as one of a batch."""
    asked = dict.fromkeys(OTHERS) | {"operation": "clip", "consent": False} | more
    ask = checked_ask(**asked | {"account": account, "key": key, "attributes": {"n": n}})
    return call(kind(comptroller, ask, None, expects_denial))
