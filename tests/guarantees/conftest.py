"""Every test of a guarantee lives in a small world of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.world import World, a_world


@pytest.fixture
def world() -> Iterator[World]:
    with a_world() as made:
        yield made
