"""What every test may ask for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

from quota.prefilter.front import Front
from tests.servers.fixtures import (  # noqa: F401 - pytest finds them here, for every test below
    cluster_url,
    database_url,
    lone_redis,
    postgres,
    pytest_configure,
    pytest_unconfigure,
    redis_cluster,
    redis_server,
    redis_url,
)

# What Redis refuses of our script is a mistake of ours: users are answered by SQL, tests fail.
Front.raises_mistakes = True

PROJECT = Path(__file__).resolve().parent.parent

# A failure prints a blob that reproduces it anywhere. No deadline: the machine may be busy.
settings.register_profile(
    "random",
    print_blob=True,
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow],
)
# A change is judged by the same cases each time, not by what chance finds in code that it does not touch. New cases are
# looked for by everybody else: `make test` draws others in each run.
settings.register_profile("ci", settings.get_profile("random"), derandomize=True)
# Before a release, or where a rule is changed: HYPOTHESIS_PROFILE=deep make test
settings.register_profile("deep", settings.get_profile("random"), max_examples=2000)
# tests.sabotage asks whether a test turns red, not for the smallest example.
settings.register_profile(
    "sabotage", settings.get_profile("random"), phases=[Phase.explicit, Phase.generate]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "random"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of example policy files and recorded demand that lies beside the project."""
    folder = PROJECT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("no folder ../shared beside the project: its examples were not tried")
    return folder
