"""The pytest plug-in: fixtures `clock` and `comptroller`.

A test, module or conftest overrides the fixture `comptroller_policies` to use policies of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

# Imported inside the fixtures: pytest loads this module in every run, also in those that do not use it.
if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from policies import PolicySet
    from quota import Comptroller
    from quota.testing import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    """A clock that stands still until the test moves it: `clock.advance(hours=24)`."""
    from quota.testing import FakeClock  # noqa: PLC0415

    return FakeClock()


@pytest.fixture
def comptroller_policies() -> PolicySet | str | Path:
    """The policies of the fixture `comptroller`; by default everything is granted."""
    from policies import PolicySet  # noqa: PLC0415

    return PolicySet.unlimited()


@pytest.fixture
def comptroller(
    clock: FakeClock, comptroller_policies: PolicySet | str | Path
) -> Iterator[Comptroller]:
    """A Comptroller in memory, on the test's clock."""
    from quota import Comptroller  # noqa: PLC0415

    with Comptroller.open(comptroller_policies, "sqlite://", clock=clock) as opened:
        yield opened
