"""What tests of the command line share: running it, and a small product with a history."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from policies import PolicySet
from quota import Comptroller, Grant
from quota.edges.cli import run
from quota.testing import FakeClock

POLICIES = """
schema: 1
currency: usd
gpus: {a10: {usd_per_hour: 3.60}}
operations:
  image.generate:
    attributes:
      images: {type: integer, default: 1, min: 1, max: 4}
      size: {type: string, choices: [small, large], default: small}
    weight: {each: {images: 1}}
    gpu_cost: {gpu: a10, gpu_seconds: {base: 1, each: {images: 2}}}
    hold_for: 1h
packs:
  ten: {units: 10, price: 4.00, valid_for: 12mo}
plans:
  free:
    paid_use: auto
    sources: [{kind: daily_allowance, units: 2}, {kind: credits}]
  pro:
    extends: free
    sources: [{kind: daily_allowance, units: 20}, {kind: credits}]
default_plan: free
on_release: {failed: {units: return}}
"""


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Cli = Callable[..., Said]


@pytest.fixture
def cli(capsys, tmp_path, monkeypatch) -> Cli:
    """Run a command in an empty folder, with no colours and no settings from outside."""
    monkeypatch.chdir(tmp_path)
    for name in ("COMPTROLLER_DATABASE", "COMPTROLLER_POLICIES", "COMPTROLLER_REDIS", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)

    def command(*arguments: object) -> Said:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    return command


@dataclass(frozen=True)
class Product:
    """A folder with a policy file and books: `ada` was granted two and denied at 12:03."""

    folder: Path
    database: str
    grant: Grant
    clock: FakeClock


@pytest.fixture(scope="session")
def history(tmp_path_factory) -> tuple[Path, Grant, datetime]:
    """The books of the product, its open grant, and when all that happened. Made once, copied often."""
    file = tmp_path_factory.mktemp("history") / "books.db"
    clock = FakeClock()
    grants: list[Grant] = []
    with Comptroller.open(PolicySet.parse(POLICIES), f"sqlite:///{file}", clock=clock) as books:
        for number in range(2):
            grant = books.admit(account="ada", operation="image.generate", key=f"job-{number}")
            assert isinstance(grant, Grant)
            grants.append(grant)
            clock.advance(timedelta(minutes=1))
        books.settle(grants[0].id, gpu_seconds=5)
        clock.advance(timedelta(minutes=1))
        assert not books.admit(account="ada", operation="image.generate", key="job-2")
    return file, grants[1], clock.now


@pytest.fixture
def product(history, tmp_path, monkeypatch) -> Product:
    file, grant, now = history
    (tmp_path / "policies.yaml").write_text(POLICIES)
    shutil.copy(file, tmp_path / "books.db")
    database = f"sqlite:///{tmp_path / 'books.db'}"
    monkeypatch.setenv("COMPTROLLER_DATABASE", database)
    return Product(tmp_path, database, grant, FakeClock(now))
