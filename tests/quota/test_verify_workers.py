"""Verifying by several processes: they find what one finds, in the same order."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from policies.errors import InvalidRequest, StoreUnavailable
from quota import Comptroller
from quota.audit import workers
from tests.databases import KINDS, a_database
from tests.quota.tampering import MORE, RULES, lived_in
from tests.world import a_world, plan


@pytest.mark.parametrize("kind", KINDS)
def test_several_processes_find_what_one_finds(kind: str, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    with (
        a_database(kind, tmp_path) as url,
        a_world(plan(RULES, more=MORE), database=url) as world,
    ):
        lived_in(world)
        verify = world.comptroller.verify
        assert verify(workers=2, progress=lambda done, total: told.append((done, total))) == []
        assert told[-1] == (22, 22)
        assert told == sorted(told)
        world.write("UPDATE comptroller_book SET grants = grants + 1")
        world.write("UPDATE comptroller_budget_day SET spent_micro_usd = spent_micro_usd + 1")
        found = verify(workers=2)
        assert [each.book for each in found][:2] == [1, 2]
        assert found == verify()
        world.write("UPDATE comptroller_book SET grants = grants - 1")
        world.write("UPDATE comptroller_budget_day SET spent_micro_usd = spent_micro_usd - 1")


def test_a_process_that_ends_is_no_proof(tmp_path, monkeypatch):
    with (
        a_database("sqlite", tmp_path) as url,
        a_world(plan(RULES, more=MORE), database=url) as world,
    ):
        lived_in(world)
        monkeypatch.setattr(workers, "_verify", os._exit)
        with pytest.raises(StoreUnavailable, match="its end"):
            world.comptroller.verify(workers=2)


def test_other_processes_must_be_able_to_open_the_database(books, tmp_path):
    assert books.comptroller.verify(workers=None) == []
    for count in (0, -1, "2", 1.5, 10_000):
        with pytest.raises(InvalidRequest, match="workers"):
            books.comptroller.verify(workers=count)
    with pytest.raises(InvalidRequest, match="in memory"):
        books.comptroller.verify(workers=2)
    engine = create_engine(f"sqlite:///{tmp_path / 'hosts.db'}")
    with (
        Comptroller.open(plan(RULES), engine) as hosted,
        pytest.raises(InvalidRequest, match="your own engine"),
    ):
        hosted.verify(workers=2)
    engine.dispose()


@pytest.mark.parametrize(
    ("records", "count"), [(0, 1), (workers.WORTH_IT - 1, 1), (workers.WORTH_IT, None)]
)
def test_processes_are_started_where_there_is_enough_to_do(records, count, tmp_path):
    with a_database("sqlite", tmp_path) as url, a_world(database=url) as world:
        found = workers.useful_workers(world.comptroller._db, None, records)
        assert found == (count or workers.cores())
