"""Every test of a guarantee lives in a small world of its own, on each kind of database."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.databases import KINDS, a_database
from tests.world import World, a_world


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    """The kind of database."""
    return str(request.param)


@pytest.fixture
def database(kind, tmp_path) -> Iterator[str]:
    """A database of the test's own: in memory, or on PostgreSQL."""
    if kind == "sqlite":
        yield "sqlite://"
        return
    with a_database(kind, tmp_path) as url:
        yield url


@pytest.fixture
def world(database) -> Iterator[World]:
    with a_world(database=database) as made:
        yield made
