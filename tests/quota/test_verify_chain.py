"""Whoever can write the chain anew too: each record is held against the records before it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from billing.book import canonical, record_hash
from billing.discrepancy import Discrepancy
from tests.quota.tampering import driver_of, tamper
from tests.world import World


def rewritten(world: World, seq: int, change: Any) -> list[Discrepancy]:
    """Change what a record of book 1 says, hash the chain anew, and mend the tables' head."""
    driver = driver_of(world)
    rows = driver.execute(
        "SELECT seq, body, prev_hash FROM comptroller_record WHERE book_id = 1 AND seq >= ?"
        " ORDER BY seq",
        (seq,),
    ).fetchall()
    statements, before = [], rows[0][2]
    for number, body, _ in rows:
        content = json.loads(body)
        if number == seq:
            change(content)
        anew = canonical(content)
        own = record_hash(1, number, before, anew)
        statements.append(
            f"UPDATE comptroller_record SET body = x'{anew.hex()}', prev_hash = x'{before.hex()}',"
            f" hash = x'{own.hex()}', at = {content['at']}, recorded_at = {content['recorded_at']}"
            f" WHERE book_id = 1 AND seq = {number}"
        )
        before = own
    statements.append(f"UPDATE comptroller_book SET head = x'{before.hex()}' WHERE id = 1")
    return tamper(world, *statements)


def fact(name: str, value: Any) -> Any:
    def change(content: dict[str, Any]) -> None:
        content["facts"][name] = value

    return change


def number_read(place: int, by: int) -> Any:
    def change(content: dict[str, Any]) -> None:
        content["facts"]["numbers"][place] += by

    return change


def earlier(content: dict[str, Any]) -> None:
    content["at"] -= 1


def cheaper(content: dict[str, Any]) -> None:
    content["facts"]["gpu_cost_micro_usd"] -= 1


def more_cents(content: dict[str, Any]) -> None:
    """Earn a cent more than the units that were used are worth, in lines and transfers alike."""
    for transfer in content["transfers"]:
        if transfer[1] == "revenue:usd":
            transfer[3] += 1
    content["lines"][1]["revenue_minor"] += 1


def one_unit_more(content: dict[str, Any]) -> None:
    content["facts"]["allocations"][0][2] += 1
    content["lines"][0]["units"] += 1


REWRITTEN: dict[str, tuple[int, Any, str]] = {
    "open grants that were read": (6, number_read(1, 1), "open grants that were read"),
    "usage that was read": (6, number_read(6, -1), "units of daily_allowance"),
    "the month's usage that was read": (6, number_read(2, -1), "units of all sources"),
    "money that was read": (8, number_read(4, -1), "spend of all sources"),
    "lots that were read": (6, fact("lots", [[1, 9]]), "lots that were read"),
    "the zone": (6, fact("zones", ["Asia/Tokyo"]), "time zones of the account"),
    "paid use": (6, fact("paid_use", "never"), "paid use of the account"),
    "the spend cap": (6, fact("spend_cap", [1, "day"]), "spend cap of the account"),
    "a finding": (2, fact("findings", []), "findings, decided again"),
    "units beyond the limit": (6, one_unit_more, "allocations, decided again"),
    "the estimate": (2, cheaper, "estimated GPU cost in micro-USD, decided again"),
    "rate state": (2, fact("rates", []), "rate state, decided again"),
    "charges to budgets": (2, fact("budgets", []), "charges to budgets, decided again"),
    "a hold that lives longer": (2, fact("expires_at", 1772500000000000), "expiry of the hold"),
    "units that do not come back": (2, fact("returns", False), "units on expiry"),
    "a start": (3, fact("expires_at", 1772500000000000), "expiry of the started grant"),
    "an extension that shortens": (4, fact("expires_at", 1), "expiry of the extended hold"),
    "a cheaper attempt": (5, cheaper, "GPU cost in micro-USD"),
    "units kept": (7, fact("kept", [0, 0]), "units kept"),
    "a cheaper end": (7, cheaper, "GPU cost in micro-USD"),
    "an overrun": (11, fact("budgets", []), "overrun debited to budgets"),
    "a cent too much": (7, more_cents, "unearned money after"),
    "an expiry too early": (10, earlier, "instant of the expiry"),
    "a grant that is dated back": (8, earlier, "instant of the record"),
    "late units": (11, fact("charged", [1]), "units charged"),
    "a lot's expiry": (18, earlier, "instant of the expiry"),
    "a refund": (19, fact("units", 1), "units and money refunded"),
    "an end of a grant that was never granted": (
        9,
        lambda content: content["grant"].__setitem__(0, 4),
        "end of grant 4",
    ),
    "a second end": (
        9,
        lambda content: content["grant"].__setitem__(0, 2),
        "end of grant 2",
    ),
    "a kind nobody knows": (
        16,
        lambda content: content.__setitem__("kind", "gift"),
        "kind of the record",
    ),
    "facts that are none": (12, lambda content: content["facts"].clear(), "what the record says"),
}


@pytest.mark.parametrize("change", REWRITTEN)
def test_what_a_record_says_is_held_against_the_records_before_it(books, change):
    seq, edit, said = REWRITTEN[change]
    found = rewritten(books, seq, edit)
    assert any((each.book, each.seq) == (1, seq) and said in each.what for each in found), [
        str(each) for each in found
    ]
    assert not any("hash of" in each.what for each in found)


def test_a_rewritten_chain_whose_records_say_what_they_did_is_sound(books):
    assert rewritten(books, 2, lambda content: None) == []


def test_a_grant_after_an_expiry_that_was_not_posted_is_found(books):
    def skipped(content: dict[str, Any]) -> None:
        content.update(kind="plan", facts={"plan": "own"}, at=content["recorded_at"])
        for name in ("once", "grant", "lines", "transfers"):
            content.pop(name, None)

    found = rewritten(books, 10, skipped)
    assert any("what fell due before it" in each.what and each.seq == 10 for each in found)
