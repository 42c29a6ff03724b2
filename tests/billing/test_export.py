"""The auditors' file: every chain can be followed and the ledger added up from it alone."""

from __future__ import annotations

import csv
from collections import Counter

import pytest

from billing.book import GENESIS, record_hash
from tests.quota.tampering import MORE, RULES, lived_in
from tests.world import World, a_world, plan


@pytest.fixture(scope="module")
def world():
    with a_world(plan(RULES, more=MORE)) as made:
        yield lived_in(made)


def exported(world: World) -> list[dict[str, str]]:
    return list(csv.DictReader(world.comptroller.export()))


def test_every_chain_can_be_followed_from_the_file_alone(world):
    heads: dict[int, tuple[int, bytes]] = {}
    for row in exported(world):
        if row["row"] == "record":
            book, seq = int(row["book"]), int(row["seq"])
            before = heads.get(book, (0, GENESIS))
            assert (seq - 1, row["prev_hash"]) == (before[0], before[1].hex())
            own = record_hash(book, seq, before[1], row["body"].encode())
            assert row["hash"] == own.hex()
            heads[book] = seq, own
    books = world.rows("SELECT id, seq, head FROM comptroller_book")
    assert heads == {book: (seq, head) for book, seq, head in books}


def test_the_ledger_adds_up_from_the_file_alone(world):
    transfers = [row for row in exported(world) if row["row"] == "transfer"]
    assert len(transfers) == world.rows("SELECT count(*) FROM comptroller_transfer")[0][0]
    money: Counter[str] = Counter()
    for row in transfers:
        if row["asset"] == "usd":
            money[row["debit"].split(":")[0]] -= int(row["amount"])
            money[row["credit"].split(":")[0]] += int(row["amount"])
    assert sum(money.values()) == 0
    assert money["cash"] == -500


def test_pages_are_joined_without_a_seam(world, monkeypatch):
    whole = exported(world)
    monkeypatch.setattr("billing.export.PAGE", 3)
    assert exported(world) == whole


def test_nothing_is_exported_of_an_empty_database():
    with a_world() as world:
        assert len(list(world.comptroller.export())) == 1
