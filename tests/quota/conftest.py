"""Books to tamper with: made once, put back after each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.quota.tampering import MORE, RULES, driver_of, lived_in, restore
from tests.world import World, a_world, plan


@pytest.fixture(scope="module")
def image() -> Iterator[tuple[World, bytes]]:
    with a_world(plan(RULES, more=MORE)) as world:
        lived_in(world)
        yield world, driver_of(world).serialize()
        restore(world, driver_of(world).serialize())


@pytest.fixture
def books(image: tuple[World, bytes]) -> Iterator[World]:
    world, copy = image
    yield world
    restore(world, copy)
