"""Clients that a test opens and need not close."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.redis.shells import PATIENT, Shell, opened
from tests.redis.trouble import Clock

Connect = Callable[..., Shell]


@pytest.fixture(params=["sync", "async"])
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    """Opens clients: the test runs once with sync ones, once with async ones."""
    with contextlib.ExitStack() as stack:

        def connected(url: str, timeout_seconds: float = PATIENT, **options: Any) -> Shell:
            shell = opened(request.param, url, timeout_seconds, **options)
            stack.callback(shell.close)
            return shell

        yield connected


@pytest.fixture
def clock() -> Clock:
    return Clock()
